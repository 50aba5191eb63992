"""The carrier suite, run for each carrier of ours and for one that inherits from nothing."""

import io
from urllib.parse import quote, quote_plus

import pytest

from nocookie import AskedHeader, Bearer, Cookie, FirstOf, Form, Header, Query
from nocookie.testing import CarrierSuite


class TestHeader(CarrierSuite):
    @pytest.fixture
    def carrier(self):
        return Header()

    def put(self, environ, *ids):
        environ["HTTP_X_SESSION_ID"] = ",".join(ids)  # as servers join repeated headers

    def client_sends_back(self, reply, environ):
        environ["HTTP_X_SESSION_ID"] = reply.headers["X-Session-Id"]


class TestHeaderOfAnotherName(TestHeader):
    @pytest.fixture
    def carrier(self):
        return Header("Api-Session")

    def put(self, environ, *ids):
        environ["HTTP_API_SESSION"] = ", ".join(ids)

    def client_sends_back(self, reply, environ):
        environ["HTTP_API_SESSION"] = reply.headers["api-session"]


class TestAskedHeader(TestHeader):
    @pytest.fixture
    def carrier(self):
        return AskedHeader()


class TestBearer(CarrierSuite):
    @pytest.fixture
    def carrier(self):
        return Bearer()

    def put(self, environ, *ids):
        # A server joins repeated headers, of which there must be one (RFC 9110, 11.6.2).
        environ["HTTP_AUTHORIZATION"] = ", ".join(f"Bearer {id}" for id in dict.fromkeys(ids))


class TestQuery(CarrierSuite):
    @pytest.fixture
    def carrier(self):
        return Query("sid")

    def put(self, environ, *ids):
        environ["QUERY_STRING"] = "&".join(["page=2", *(f"sid={id}" for id in ids), "s=1"])


class TestQueryThatIsQuoted(TestQuery):
    def put(self, environ, *ids):
        quoted = (f"%73id={quote(id, safe='', encoding='latin-1')}" for id in ids)
        environ["QUERY_STRING"] = "&".join(["page=%32", *quoted])


class TestForm(CarrierSuite):
    @pytest.fixture
    def carrier(self):
        return Form("sid")

    def put(self, environ, *ids):
        self._post(environ, "&".join(["page=2", *(f"sid={id}" for id in ids)]))

    def _post(self, environ, text):
        body = text.encode("latin-1")
        environ["REQUEST_METHOD"] = "POST"
        environ["CONTENT_TYPE"] = "application/x-www-form-urlencoded; charset=utf-8"
        environ["CONTENT_LENGTH"] = str(len(body))
        environ["wsgi.input"] = io.BytesIO(body)


class TestFormThatIsQuoted(TestForm):
    def put(self, environ, *ids):
        self._post(environ, "&".join(f"sid={quote_plus(id, encoding='latin-1')}" for id in ids))


class TestCookie(CarrierSuite):
    @pytest.fixture
    def carrier(self):
        return Cookie("sid")

    def put(self, environ, *ids):
        environ["HTTP_COOKIE"] = "; ".join(["a=1", *(f"sid={id}" for id in ids), "xsid=2"])

    def client_sends_back(self, reply, environ):
        pair, *attributes = reply.headers["Set-Cookie"].split("; ")
        assert "HttpOnly" in attributes
        environ["HTTP_COOKIE"] = f"theirs=1; {pair}"


class TestFirstOf(CarrierSuite):
    @pytest.fixture
    def carrier(self):
        return FirstOf(Query("sid"), Header("X-Session-Id"), lambda request: None)

    def put(self, environ, *ids):
        environ["HTTP_X_SESSION_ID"] = ",".join(ids)

    def client_sends_back(self, reply, environ):
        environ["HTTP_X_SESSION_ID"] = reply.headers["X-Session-Id"]


class Subdomain:
    """A carrier of somebody else: it inherits from nothing."""

    def find(self, request):
        label = request.environ.get("HTTP_HOST", "").partition(".")[0]
        return label if len(label) == 43 else None

    def place(self, id, reply):
        return False

    def forget(self, reply):
        pass


class TestThirdParty(CarrierSuite):
    @pytest.fixture
    def carrier(self):
        return Subdomain()

    def put(self, environ, *ids):
        environ["HTTP_HOST"] = ".".join([*dict.fromkeys(ids), "example.com"])

    def test_different_ids_count_as_none(self):
        pytest.skip("a request has one host")


def test_a_carrier_that_reads_the_body_and_keeps_it_fails_the_suite():
    """The suite itself can fail."""

    class Greedy(Form):
        def read(self, environ):
            environ["wsgi.input"].read()

    with pytest.raises(AssertionError):
        CarrierSuite().test_the_application_reads_the_whole_body(Greedy(), "POST")


def test_a_carrier_that_says_it_placed_and_did_not_fails_the_suite():
    class Liar(Header):
        def place(self, id, reply):
            return True

    with pytest.raises(AssertionError):
        TestHeader().test_what_is_placed_comes_back(Liar())


def test_a_carrier_that_takes_the_first_of_several_fails_the_suite():
    class First(Header):
        def read(self, environ):
            text = environ.get("HTTP_X_SESSION_ID")
            return text and text.partition(",")[0]

    with pytest.raises(AssertionError):
        TestHeader().test_different_ids_count_as_none(First())
