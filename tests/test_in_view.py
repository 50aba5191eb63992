"""What shows an id though nobody meant to: a dump of environ, a traceback with its variables."""

import traceback

import pytest
from helpers import serve

from nocookie import IdLeak, SessionMiddleware, session


def test_a_dump_of_environ_does_not_show_the_id_that_a_form_brought():
    seen = []

    def application(environ, start_response):
        session["visits"] = session.get("visits", 0) + 1
        session.save()
        seen.append((session["visits"], {name: repr(value) for name, value in environ.items()}))
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["wsgi.input"].read()]

    app = SessionMiddleware(application, use_cookies=False, find_id="form:sid")
    id = serve(app).id
    answer = serve(app, method="POST", POST={"sid": id})
    visits, shown = seen[-1]
    assert visits == 2
    assert answer.body == f"sid={id}".encode()
    assert [name for name, value in shown.items() if id in value] == []


@pytest.mark.parametrize("is_streamed", [False, True])
def test_an_error_shows_no_page_with_an_id_among_the_variables_of_our_frames(is_streamed):
    ids = []

    def application(environ, start_response):
        session["visits"] = session.get("visits", 0) + 1
        session.save()
        ids.append(session.id)
        start_response("200 OK", [("Content-Type", "text/html")])
        page = [f"<a href='/?sid={ids[0]}'>".encode()]
        return (chunk for chunk in page) if is_streamed else page

    app = SessionMiddleware(application, use_cookies=False, find_id="query:sid", leak_guard="raise")
    serve(app)
    with pytest.raises(IdLeak) as caught:
        serve(app)
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    ours = [frame for frame in shown.stack if frame.filename.endswith("nocookie/middleware.py")]
    assert ours
    for frame in ours:
        assert ids[0] not in str(frame.locals)
