"""Flash messages: kept until they are shown, whatever way the id travels."""

import threading

import pytest
from helpers import CountingStore
from webob import Response
from webob.dec import wsgify
from webob.exc import HTTPSeeOther
from webtest import TestApp

from nocookie import Session, SessionMiddleware, StoreError, session
from nocookie.flash import Message, flash, pop_messages


@wsgify
def shop(request):
    """Says what it is asked to say, redirects, and shows what there is."""
    if request.path_info == "/buy":
        flash(f"Bought {request.GET['item']}.", *request.GET.getall("category"))
        return HTTPSeeOther(location=f"/?{request.GET.get('back', '')}")
    if request.path_info == "/silent":
        session["seen"] = True
        session.save()
        return "nothing"
    if request.path_info == "/logout":
        session.delete()
        flash("Goodbye.")
        return ""
    if request.path_info == "/fails":
        pop_messages()
        raise RuntimeError("for the test")
    if request.path_info == "/buy-fails":
        flash("Bought.")
        raise RuntimeError("for the test")
    wanted = request.GET.get("only")
    return " ".join(f"{message.category}:{message}" for message in pop_messages(wanted))


def client_of(app=shop, **options):
    return TestApp(SessionMiddleware(app, **options))


def test_a_message_survives_a_redirect_and_is_shown_once():
    client = client_of()

    page = client.get("/buy?item=tea").follow()

    assert page.text == "notice:Bought tea."
    assert client.get("/").text == ""


def test_a_message_waits_for_the_page_that_shows_it():
    client = client_of()
    client.get("/buy?item=tea")
    client.get("/silent")
    client.get("/silent")

    assert client.get("/").text == "notice:Bought tea."


def test_messages_are_shown_in_their_order():
    client = client_of()
    for item in "abcdefghijkl":
        client.get(f"/buy?item={item}")

    assert client.get("/").text == " ".join(f"notice:Bought {item}." for item in "abcdefghijkl")


def test_a_category_can_be_shown_by_itself():
    client = client_of()
    for category in ("error", "notice", "error"):
        client.get(f"/buy?item=tea&category={category}")

    assert client.get("/?only=error").text == "error:Bought tea. error:Bought tea."
    assert client.get("/?only=error").text == ""
    assert client.get("/").text == "notice:Bought tea."


def test_messages_are_kept_in_a_session_that_its_client_keeps():
    client = client_of(type="cookie", secret="thirty-two characters, or a few more")
    client.get("/buy?item=tea")
    client.get("/buy?item=milk")

    assert client.get("/").text == "notice:Bought tea. notice:Bought milk."
    assert client.get("/").text == ""


def test_cookieless_the_messages_go_with_the_id():
    client = client_of(use_cookies=False)
    id = client.get("/buy?item=tea").headers["X-Session-Id"]

    assert client.get("/").text == ""
    assert client.get("/", headers={"X-Session-Id": id}).text == "notice:Bought tea."
    assert client.cookies == {}


def test_a_message_survives_a_redirect_under_an_id_in_the_query():
    @wsgify
    def application(request):
        if request.method == "POST":
            flash("Bought tea.")
            return HTTPSeeOther(location=f"/?sid={session.id}")
        return "; ".join(map(str, pop_messages()))

    client = client_of(application, use_cookies=False, find_id="query:sid")

    assert client.post("/").follow().text == "Bought tea."
    assert client.cookies == {}


def test_a_message_outlives_the_session_that_was_ended_before_it():
    client = client_of()
    client.get("/silent")
    before = client.cookies["nocookie.session.id"]
    client.get("/logout")

    assert client.cookies["nocookie.session.id"] != before
    assert client.get("/").text == "notice:Goodbye."


def test_a_page_that_fails_has_shown_nothing():
    client = client_of()
    client.get("/buy?item=tea")
    with pytest.raises(RuntimeError):
        client.get("/fails")

    assert client.get("/").text == "notice:Bought tea."


def test_a_request_that_fails_has_said_nothing():
    client = client_of()
    client.get("/silent")
    with pytest.raises(RuntimeError):
        client.get("/buy-fails")

    assert client.get("/").text == ""


def test_a_message_whose_page_could_not_be_saved_is_shown_again():
    store = CountingStore()
    client = client_of(type=store)
    client.get("/buy?item=tea")
    store.failing = {"save": StoreError("down, for the test")}
    client.get("/", status=503)
    store.failing = {}

    assert client.get("/").text == "notice:Bought tea."


def test_looking_for_messages_makes_no_session_and_writes_nothing():
    store = CountingStore()
    client = client_of(type=store)

    assert client.get("/").text == ""
    assert client.cookies == {}
    assert store.trips == []


def test_looking_for_messages_saves_nothing_that_the_handler_did_not():
    @wsgify
    def application(request):
        if request.path_info == "/":
            session["user"] = "ada"
            session.save()
        else:
            session["user"] = "eve"
            pop_messages()
        return session["user"]

    store = CountingStore()
    client = client_of(application, type=store)
    client.get("/")
    store.trips.clear()
    client.get("/looks")

    assert store.trips == ["load"]


def test_looking_for_messages_costs_a_known_session_one_load():
    store = CountingStore()
    client = client_of(type=store)
    client.get("/silent")
    store.trips.clear()
    client.get("/")

    assert store.trips == ["load"]


def test_looking_for_messages_decodes_no_value_of_the_applications():
    decoded = []

    @wsgify
    def application(request):
        if request.path_info == "/":
            session["large"] = ["x"] * 1000
            session.save()
            return ""
        pop_messages()
        decoded.append("large" in session._get_current_obj()._session()._values)
        return ""

    client = client_of(application)
    client.get("/")
    client.get("/later")

    assert decoded == [False]


def test_messages_said_and_shown_at_once_are_all_shown():
    """Two requests of one session, each in the middle of the other."""
    store = CountingStore()
    options = {"use_cookies": False, "type": store}
    id = client_of(**options).get("/buy?item=first").headers["X-Session-Id"]
    inside = threading.Barrier(3)
    shown = []

    @wsgify
    def meanwhile(request):
        session.load()
        inside.wait(10)
        if request.path_info == "/show":
            shown.extend(map(str, pop_messages()))
        else:
            flash(request.path_info)
        inside.wait(10)
        return ""

    app = SessionMiddleware(meanwhile, **options)

    def ask(path):
        TestApp(app).get(path, headers={"X-Session-Id": id})

    threads = [threading.Thread(target=ask, args=[path]) for path in ("/show", "/a", "/b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    later = client_of(**options).get("/", headers={"X-Session-Id": id}).text

    assert shown == ["Bought first."]
    assert sorted(later.split()) == ["notice:/a", "notice:/b"]


def test_a_message_is_text_and_harmless_in_a_page():
    class Lazy:
        def __str__(self):
            return "<b>later</b>"

    seen = []

    @wsgify
    def application(request):
        flash(Lazy(), category="error")
        flash("<script>")
        seen.extend(pop_messages())
        return ""

    client_of(application).get("/")

    assert seen == [Message("error", "<b>later</b>"), Message("notice", "<script>")]
    assert f"{seen[0]}" == "<b>later</b>"
    assert seen[1].__html__() == "&lt;script&gt;"


def test_a_message_saves_what_the_request_changed():
    """As Pylons' flash did: it calls save(), and that is about the whole session."""

    @wsgify
    def application(request):
        if request.path_info == "/":
            session["user"] = "ada"
            flash("Welcome.")
            session["later"] = True
        return f"{session.get('user')} {session.get('later')}"

    client = client_of(application)
    client.get("/")

    assert client.get("/who").text == "ada True"


def test_a_message_in_a_body_that_is_made_while_it_is_sent():
    def body():
        yield b"first "
        for message in pop_messages():
            yield f"{message} ".encode()

    @wsgify
    def application(request):
        if request.path_info == "/":
            flash("Bought tea.")
            return ""
        return Response(app_iter=body())

    client = client_of(application)
    client.get("/")

    assert client.get("/stream").text == "first Bought tea. "
    assert client.get("/stream").text == "first "


def test_nothing_of_a_message_is_left_in_the_session():
    store = CountingStore()
    client = client_of(use_cookies=False, type=store)
    id = client.get("/buy?item=tea").headers["X-Session-Id"]
    client.get("/", headers={"X-Session-Id": id})

    assert len(Session({}, id=id, type=store)) == 0
