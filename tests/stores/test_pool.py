"""The pool of connections, and the socket with a deadline, that stores with servers share."""

import math
import socket
import threading
import time

import pytest

from nocookie.stores.pool import Pool
from nocookie.stores.timed import TimedSocket

#: Seconds. Long enough for a busy machine.
PATIENCE = 10.0


class Connection:
    closed = False

    def close(self):
        self.closed = True


def test_the_connection_used_last_comes_first_and_places_for_more_come_after():
    pool, older, newer = Pool(3), Connection(), Connection()
    lent = [pool.take(0)[0] for _ in range(3)]
    for places, connection in zip(lent, (older, newer, None), strict=True):
        pool.give_back(places, connection)
    assert [pool.take(0)[1] for _ in range(3)] == [newer, older, None]
    with pytest.raises(TimeoutError):
        pool.take(0)


def test_what_comes_back_to_a_pool_that_was_closed_is_closed():
    pool, idle, used = Pool(2), Connection(), Connection()
    lent = [pool.take(0)[0] for _ in range(2)]
    for places, connection in zip(lent, (idle, used), strict=True):
        pool.give_back(places, connection)
    places, taken = pool.take(0)
    assert taken is used
    pool.close()
    assert (idle.closed, used.closed) == (True, False)
    pool.give_back(places, used)
    assert used.closed
    assert [pool.take(0)[1] for _ in range(2)] == [None, None], "it opens new ones"


def test_who_is_broken_off_when_a_place_comes_back_leaves_it_to_the_next():
    """As gevent ends those whose client went away, whatever they wait for."""

    class Broken(BaseException):
        pass

    class Condition(threading.Condition):
        def wait(self, timeout=None):
            waiting.append(threading.current_thread())
            told = super().wait(timeout)
            if threading.current_thread() is waiting[0]:
                raise Broken
            return told

    def take(broken):
        try:
            pool.take(until)
        except Broken:
            broken.append(True)

    waiting, pool, until = [], Pool(1), time.monotonic() + 4 * PATIENCE
    pool._returned = Condition()
    places, _ = pool.take(0)
    broken = [], []
    threads = [threading.Thread(target=take, args=(b,), daemon=True) for b in broken]
    for number, thread in enumerate(threads):
        thread.start()
        while len(waiting) <= number and time.monotonic() < until:
            time.sleep(0.001)
    with pool._returned:
        pass  # the second waits, too
    pool.give_back(places, None)
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)
    assert broken == ([True], [])


class Recorded:
    """A socket that notes its timeouts, and is late as often as it is told."""

    def __init__(self, late=0):
        self.timeouts, self.late = [], late

    def settimeout(self, timeout):
        self.timeouts.append(timeout)

    def send(self, data):
        if self.late:
            self.late -= 1
            raise TimeoutError
        return min(len(data), 3)

    def recv(self, size):
        self.send(b"")
        return b"answer"


def test_a_timeout_that_still_fits_is_not_set_again():
    sock = Recorded()
    timed = TimedSocket(sock, time.monotonic() + PATIENCE)
    for _ in range(5):
        timed.until = time.monotonic() + PATIENCE
        timed.sendall(b"question")
        assert timed.recv(10) == b"answer"
    assert len(sock.timeouts) == 1
    timed.until = time.monotonic() + PATIENCE / 2
    timed.recv(10)
    assert sock.timeouts[1] <= PATIENCE / 2


@pytest.mark.parametrize("call", [lambda timed: timed.recv(10), lambda timed: timed.sendall(b"q")])
def test_a_wait_that_ends_before_its_call_does_goes_on_for_what_is_left(call):
    sock = Recorded(late=1)
    call(TimedSocket(sock, time.monotonic() + PATIENCE))
    assert 0 < sock.timeouts[0] < sock.timeouts[1] <= PATIENCE
    with pytest.raises(TimeoutError):
        call(TimedSocket(Recorded(late=2), time.monotonic() + PATIENCE))
    with pytest.raises(TimeoutError):
        call(TimedSocket(Recorded(), time.monotonic()))


@pytest.mark.parametrize("with_poll", [True, False])
def test_a_socket_is_quiet_until_the_other_end_speaks_or_closes(with_poll):
    for end in (lambda other: other.sendall(b"unasked"), lambda other: other.close()):
        one, other = socket.socketpair()
        timed = TimedSocket(one, math.inf)
        if not with_poll:
            timed._poll = None
        with one, other:
            assert timed.is_quiet()
            other.sendall(b"answer")
            timed.until = time.monotonic() + PATIENCE
            assert timed.recv(10) == b"answer"
            assert timed.is_quiet()
            end(other)
            assert not timed.is_quiet()


def test_a_pool_that_is_shut_lends_none_until_it_is_opened():
    pool, idle = Pool(2), Connection()
    places, _ = pool.take(0)
    pool.give_back(places, idle)
    pool.shut(time.monotonic() + PATIENCE)
    assert idle.closed
    with pytest.raises(TimeoutError):
        pool.take(0)
    pool.open()
    assert [pool.take(0)[1] for _ in range(2)] == [None, None]


def test_to_shut_a_pool_waits_for_what_is_in_use_and_closes_it():
    pool, used = Pool(2), Connection()
    places, _ = pool.take(0)
    returner = threading.Timer(0.05, pool.give_back, (places, used))
    returner.start()
    begun = time.monotonic()
    pool.shut(begun + PATIENCE)
    assert used.closed
    assert time.monotonic() - begun < PATIENCE
    returner.join()


def test_to_shut_a_pool_waits_no_longer_than_it_may():
    pool, used = Pool(1), Connection()
    places, _ = pool.take(0)
    pool.shut(time.monotonic() + 0.05)
    pool.open()
    pool.give_back(places, used)
    assert used.closed
    assert pool.take(0)[1] is None


def test_who_waits_while_a_pool_is_shut_gets_a_connection_when_it_is_opened():
    pool, found = Pool(1), []
    pool.shut(time.monotonic() + PATIENCE)
    waiter = threading.Thread(target=lambda: found.append(pool.take(time.monotonic() + PATIENCE)))
    waiter.start()
    until = time.monotonic() + PATIENCE
    while not pool._waiting and time.monotonic() < until:
        time.sleep(0.001)
    pool.open()
    waiter.join(PATIENCE)
    assert [connection for _, connection in found] == [None]
