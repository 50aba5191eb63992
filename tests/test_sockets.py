"""What a WebSocket handler does with its session is done, or an event says that it is not. Under
the servers that let a WSGI application take the socket over: flask-sock tells gunicorn by raising
StopIteration, and gevent-websocket calls no `close()`."""

import json

import pytest
from realservers import PATIENCE, wait_until

pytestmark = pytest.mark.server

SERVERS = ["gunicorn-sync", "gunicorn-gthread", "gunicorn-gevent", "gevent-websocket"]


@pytest.fixture(params=SERVERS)
def server(request, wsgi_server):
    return wsgi_server(request.param, "sockets:application")


def begin(server):
    return server.request("GET", "/begin").headers["X-Session-Id"]


def shown(server, id):
    return json.loads(server.request("GET", "/show", [("X-Session-Id", id)]).body)


def by_socket(server, order, id=None):
    """Have a WebSocket handler do this, and return what it answered, once it is done."""
    from websocket import create_connection  # where the servers are, too

    before = handled(server)
    headers = {"X-Session-Id": id} if id else {}
    client = create_connection(
        f"ws://127.0.0.1:{server.port}/socket", timeout=PATIENCE, header=headers
    )
    client.send(order)
    answer = client.recv()
    client.close()
    wait_until(lambda: handled(server) > before, lambda: server.log)
    return answer


def handled(server):
    return int(server.request("GET", "/handled").body)


def test_what_a_socket_handler_saves_is_saved(server):
    id = begin(server)
    assert by_socket(server, "save", id) == "None"
    assert shown(server, id)["said"] == 1


def test_a_session_that_a_socket_handler_only_reads_is_renewed(server):
    id = begin(server)
    server.request("GET", "/later?seconds=1000")
    assert by_socket(server, "read", id) == "True"
    server.request("GET", "/later?seconds=1000")
    found = shown(server, id)
    assert found["begun"]
    assert 1000 <= found["idle"] < 1800


def test_a_new_session_of_a_socket_handler_is_reported_as_lost(server):
    before, created = server.log.count("<Event lost"), server.log.count("<Event created")
    by_socket(server, "save")
    assert server.log.count("<Event lost") == before + 1, server.log
    assert server.log.count("<Event created") == created
