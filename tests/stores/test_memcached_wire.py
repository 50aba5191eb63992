"""The commands to memcached, one by one: what is sent, and what is made of whatever comes back."""

import socket
import time
import traceback
from collections import deque
from types import SimpleNamespace

import pytest

from nocookie import StoreError, StoreTimeout
from nocookie.stores import timed
from nocookie.stores.memcached_wire import PIECE, Connection
from nocookie.stores.pool import Pool
from nocookie.testing import FakeClock

#: What came from the server, and must not be in an error.
SECRET = b"hunter2"

HELD = b"VALUE k 0 5 17\r\na\r\nbc\r\nEND\r\n"

#: By command: how it is asked, what is sent then, the answer that says yes, and those that say no.
COMMANDS = {
    "cas": (
        lambda connection, name=b"k": connection.cas(name, b"item", b"17", 60),
        b"cas k 0 60 4 17\r\nitem\r\n",
        b"STORED\r\n",
        [b"EXISTS\r\n", b"NOT_FOUND\r\n"],
    ),
    "add": (
        lambda connection, name=b"k": connection.add(name, b"item", 60),
        b"add k 0 60 4\r\nitem\r\n",
        b"STORED\r\n",
        [b"NOT_STORED\r\n"],
    ),
    "put, instead of what is there": (
        lambda connection, name=b"k": connection.put(name, b"item", 60, b"17") == b"18",
        b"ms k 4 T60 C17 c\r\nitem\r\n",
        b"HD c18\r\n",
        [b"EX c0\r\n", b"NF c0\r\n", b"EX\r\n"],
    ),
    "put, where nothing is": (
        lambda connection, name=b"k": connection.put(name, b"item", 60) == b"18",
        b"ms k 4 T60 ME c\r\nitem\r\n",
        b"HD c18\r\n",
        [b"NS c0\r\n", b"NS\r\n"],
    ),
    "delete": (
        lambda connection, name=b"k": connection.delete(name),
        b"delete k\r\n",
        b"DELETED\r\n",
        [b"NOT_FOUND\r\n"],
    ),
    "delete_if": (
        lambda connection, name=b"k": connection.delete_if(name, b"17"),
        b"md k C17\r\n",
        b"HD\r\n",
        [b"EX\r\n", b"NF\r\n"],
    ),
}

#: By command, `gets` among them: how it is asked.
ASK = {name: ask for name, (ask, *_) in COMMANDS.items()}
ASK["gets"] = lambda connection, name=b"k": connection.gets(name)


class Scripted:
    """A socket that answers in these pieces, and then is closed."""

    def __init__(self, *pieces):
        self.pieces = [*pieces, b""]
        self.sent = b""

    def sendall(self, data):
        self.sent += data

    def recv(self, size):
        return self.pieces.pop(0)


def connection_on(sock):
    return Connection(sock, Pool(1), deque())


def connection_that_hears(*pieces):
    return connection_on(Scripted(*pieces))


def in_pieces(answer, size):
    return [answer[at : at + size] for at in range(0, len(answer), size)]


def fails(connection, command, name=b"k"):
    """Have *command* fail, with an error that tells nothing that came; return what it says."""
    with pytest.raises(StoreError) as caught:
        ASK[command](connection, name)
    assert not connection.usable, "the connection is closed when it is given back"
    assert SECRET.decode() not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_one_line_out_and_one_back_in_pieces_of_any_size(command, size):
    ask, sent, yes, no = COMMANDS[command]
    for answer in (yes, *no):
        connection = connection_that_hears(*in_pieces(answer, size))
        assert ask(connection) is (answer == yes)
        assert connection.usable
        assert connection.sock.sent == sent


@pytest.mark.parametrize("size", [1, 2, 3, 7, len(HELD) - 1, len(HELD)])
def test_an_item_comes_with_its_token_in_pieces_of_any_size(size):
    for answer, found in ((HELD, (b"a\r\nbc", b"17")), (b"END\r\n", (None, b""))):
        connection = connection_that_hears(*in_pieces(answer, size))
        assert connection.gets(b"k") == found
        assert connection.usable
        assert connection.sock.sent == b"gets k\r\n"


@pytest.mark.parametrize("length", [0, PIECE - 20, PIECE, PIECE + 1, 5 * PIECE])
def test_an_item_of_any_length_comes_whole(length):
    item = bytes(range(256)) * (length // 256 + 1)
    answer = b"VALUE k 0 %d 17\r\n%b\r\nEND\r\n" % (length, item[:length])
    connection = connection_that_hears(*in_pieces(answer, PIECE))
    assert connection.gets(b"k") == (item[:length], b"17")


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (b"ERROR\r\n", "refused: ERROR"),
        (b"CLIENT_ERROR bad command hunter2 format\r\n", "refused: CLIENT_ERROR"),
        (b"CLIENT_ERROR bad data chunk hunter2\r\n", "refused: CLIENT_ERROR"),
        (b"SERVER_ERROR hunter2\r\n", "refused: SERVER_ERROR"),
        (b"SERVER_ERROR object too large for cache\r\n", "larger than an item may be"),
        (b"SERVER_ERROR out of memory storing object\r\n", "no memory left"),
    ],
)
@pytest.mark.parametrize("command", ASK)
def test_a_refusal_is_an_error_that_says_which_and_costs_the_connection(
    command, refusal, said, size
):
    assert said in fails(connection_that_hears(*in_pieces(refusal, size)), command)


NO_ANSWERS = {
    "closed": b"",
    "a line without its end": b"hunter2",
    "an empty line": b"\r\n",
    "a word of another command": b"TOUCHED\r\n",
    "a yes and more": b"STORED hunter2\r\n",
    "in small letters": b"stored\r\n",
    "what it does not begin with": b"hunter2 SERVER_ERROR\r\n",
    "garbage": bytes(range(256)) + SECRET + b"\r\n",
}


@pytest.mark.parametrize("what", NO_ANSWERS)
@pytest.mark.parametrize("command", ASK)
def test_what_is_no_answer_is_an_error_and_costs_the_connection(command, what):
    said = fails(connection_that_hears(NO_ANSWERS[what]), command)
    assert ("no answer" in said) == (what not in ("closed", "a line without its end")), said


@pytest.mark.parametrize("more", [b"E", b"END\r\n", b"STORED\r\n", HELD])
@pytest.mark.parametrize("command", ASK)
def test_more_than_an_answer_is_an_error_and_costs_the_connection(command, more):
    answers = [HELD, b"END\r\n"] if command == "gets" else [COMMANDS[command][2]]
    for answer in answers:
        fails(connection_that_hears(answer + more), command)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(HELD[:-1], id="cut short"),
        pytest.param(HELD.replace(b" k ", b" l "), id="about another key"),
        pytest.param(HELD.replace(b" 5 ", b" 4 "), id="a smaller size"),
        pytest.param(HELD.replace(b" 5 ", b" 6 "), id="a larger size"),
        pytest.param(HELD.replace(b" 5 ", b" -5 "), id="no size"),
        pytest.param(b"VALUE k 0 -2 17\r\nEND\r\n", id="no size, before what comes after an item"),
        pytest.param(HELD.replace(b" 5 ", b" x "), id="not a number"),
        pytest.param(HELD.replace(b" 17", b""), id="no token"),
        pytest.param(HELD.replace(b" 17", b" 17 18"), id="a word too many"),
        pytest.param(HELD.replace(b"VALUE", b"VA"), id="another word"),
    ],
)
def test_what_is_no_item_is_an_error_and_costs_the_connection(answer):
    fails(connection_that_hears(answer), "gets")


@pytest.mark.parametrize("command", ASK)
def test_a_line_that_does_not_end_is_not_read_for_ever(command):
    connection = connection_that_hears(*[SECRET * 100] * 1000)
    assert "no answer" in fails(connection, command)
    assert len(connection.sock.pieces) > 900


def test_a_server_without_cas_is_told_by_its_tokens():
    connection = connection_that_hears(HELD.replace(b" 17", b" 0"))
    with pytest.raises(StoreError, match="-C"):
        connection.gets(b"k")


@pytest.mark.parametrize("command", ASK)
def test_what_comes_a_byte_at_a_time_ends_at_the_deadline(command, monkeypatch):
    """Each byte comes within a timeout of its own; all of them together do not."""
    clock = FakeClock()

    class Late(Scripted):
        def recv(self, size):
            clock.advance(1)
            return super().recv(size)

        def settimeout(self, timeout):
            pass

        def send(self, data):
            return len(data)

    monkeypatch.setattr(timed, "time", SimpleNamespace(monotonic=clock))
    answer = HELD if command == "gets" else COMMANDS[command][2]
    late = Late(*in_pieces(answer, 1))
    connection = connection_on(timed.TimedSocket(late, clock() + 2.5))
    with pytest.raises(StoreTimeout):
        ASK[command](connection)
    assert len(late.pieces) == len(answer) + 1 - 3, "it read on until then"
    assert not connection.usable


@pytest.fixture
def connected(memcached):
    """A connection to a real server."""
    sock = socket.create_connection(("127.0.0.1", memcached.port))
    connection = connection_on(timed.TimedSocket(sock, time.monotonic() + 10))
    yield connection
    connection.close()


@pytest.mark.server
@pytest.mark.parametrize("name", [b"k" * 251, b"k" * 3000], ids=len)
@pytest.mark.parametrize("command", ASK)
def test_a_key_that_the_server_refuses_is_an_error(connected, command, name):
    assert "memcached refused" in fails(connected, command, name)


@pytest.mark.server
def test_a_real_server_says_yes_and_no(connected):
    name = b"x" * 250
    assert connected.gets(name) == (None, b"")
    assert not connected.put(name, b"0", 60, b"1")
    assert not connected.cas(name, b"0", b"1", 60)
    assert not connected.delete(name)
    assert not connected.delete_if(name, b"1")
    assert connected.add(name, b"\r\n" * 3, 60)
    assert not connected.add(name, b"2", 60)
    item, first = connected.gets(name)
    assert item == b"\r\n" * 3
    assert not connected.put(name, b"2", 60)
    token = connected.put(name, b"", 60, first)
    assert not connected.put(name, b"3", 60, first)
    assert not connected.cas(name, b"3", first, 60)
    assert not connected.delete_if(name, first)
    item, second = connected.gets(name)
    assert (item, second) == (b"", token)
    assert connected.cas(name, b"x" * 100_000, second, 60)
    item, third = connected.gets(name)
    assert item == b"x" * 100_000
    assert connected.delete_if(name, third)
    assert connected.add(name, b"4", 60)
    assert connected.delete(name)
    assert connected.usable
