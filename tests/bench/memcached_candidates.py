"""What the memcached store could speak to its server with: the candidates, all with one interface.

A candidate is made with the port of a server of this host, the deadline of a call in seconds and
how many connections it may open. Its commands are those of `nocookie.stores.memcached_wire`.
Nothing private of a library is used; where one can be handed a socket, it gets ours, on which
every wait ends at the deadline.
"""

import math
import os
import socket
import time

import memcache
import pymemcache
from meta_memcache import (
    CacheClient,
    ConnectionPool,
    DefaultExecutor,
    DefaultRouter,
    Key,
    ServerAddress,
    Success,
    Value,
)
from meta_memcache import HostConnectionPoolProvider as OneHost
from meta_memcache.base.base_serializer import BaseSerializer, EncodedValue
from meta_memcache_socket import (
    RESPONSE_CONFLICT,
    RESPONSE_MISS,
    RESPONSE_NOT_STORED,
    RESPONSE_SUCCESS,
    RESPONSE_VALUE,
    SET_MODE_ADD,
    SET_MODE_REPLACE,
    MemcacheSocket,
    RequestFlags,
    build_meta_delete,
    build_meta_get,
    build_meta_set,
    parse_header,
)

from nocookie.stores.memcached import MemcachedStore
from nocookie.stores.pool import Pool
from nocookie.stores.timed import TimedSocket

HOST = "127.0.0.1"
#: A MemcacheSocket asks the system for a buffer of this size, too. With the default of 4096 an item
#: that is larger comes in pieces that the system holds back: 20 KB take longer than 0.2 s.
BUFFER = 65536
WITH_TOKEN = RequestFlags(return_value=True, return_cas_token=True)


def connect(port, until):
    sock = socket.create_connection((HOST, port), max(until - time.monotonic(), 0.001))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Ours:
    """nocookie: a store's connections to its server"""

    def __init__(self, port, deadline, pool_size=4):
        self.store = MemcachedStore(url=f"{HOST}:{port}", pool_size=pool_size)
        self.server = self.store._servers[0]
        self.deadline = deadline

    def gets(self, name):
        connection = self.server.take(time.monotonic() + self.deadline)
        try:
            return connection.gets(name)
        finally:
            self.server.give_back(connection)

    def add(self, name, item, exptime):
        return self.call("add", name, item, exptime)

    def replace(self, name, item, exptime):
        return self.call("replace", name, item, exptime)

    def cas(self, name, item, token, exptime):
        return self.call("cas", name, item, token, exptime)

    def delete(self, name):
        return self.call("delete", name)

    def delete_if(self, name, token):
        return self.call("delete_if", name, token)

    def call(self, command, *arguments):
        connection = self.server.take(time.monotonic() + self.deadline)
        try:
            return getattr(connection, command)(*arguments)
        finally:
            self.server.give_back(connection)


class Pymemcache:
    """pymemcache, as its documentation has it"""

    def __init__(self, port, deadline, pool_size=4):
        self.client = pymemcache.PooledClient(
            (HOST, port),
            connect_timeout=deadline,
            timeout=deadline,
            no_delay=True,
            default_noreply=False,
            max_pool_size=pool_size,
        )

    def gets(self, name):
        return self.client.gets(name)

    def add(self, name, item, exptime):
        return self.client.add(name, item, exptime)

    def replace(self, name, item, exptime):
        return self.client.replace(name, item, exptime)

    def cas(self, name, item, token, exptime):
        return bool(self.client.cas(name, item, token, exptime))

    def delete(self, name):
        return self.client.delete(name)

    def delete_if(self, name, token):
        return meta_done(self.client.raw_command(b"md %b C%b" % (name, token)))


class Lent:
    """A candidate's connection in our pool."""

    def __init__(self, timed):
        self.timed = timed

    def close(self):
        self.timed.close()

    def may_go_on(self, until):
        self.timed.until = until
        return self.timed.is_quiet()


class OnOurPool:
    """A candidate that is one connection, in our pool. A child of a fork begins with a new one."""

    def __init__(self, port, deadline, pool_size=4):
        self.port, self.deadline, self.pool_size = port, deadline, pool_size
        self.process = None

    def gets(self, name):
        return self.call("gets", name)

    def add(self, name, item, exptime):
        return self.call("add", name, item, exptime)

    def replace(self, name, item, exptime):
        return self.call("replace", name, item, exptime)

    def cas(self, name, item, token, exptime):
        return self.call("cas", name, item, token, exptime)

    def delete(self, name):
        return self.call("delete", name)

    def delete_if(self, name, token):
        return self.call("delete_if", name, token)

    def call(self, command, *arguments):
        until = time.monotonic() + self.deadline
        if self.process != os.getpid():
            self.process, self.pool = os.getpid(), Pool(self.pool_size)
        places, lent = self.pool.take(until)
        try:
            if lent is not None and not lent.may_go_on(until):
                lent.close()
                lent = None
            if lent is None:
                lent = self.open(until)
            answer = getattr(lent, command)(*arguments)
        except BaseException:
            if lent is not None:
                lent.close()
            self.pool.give_back(places, None)
            raise
        self.pool.give_back(places, lent)
        return answer


class TimedSockets:
    """A `socket_module` for pymemcache. It has one socket, ours."""

    AF_UNSPEC, SOCK_STREAM = socket.AF_UNSPEC, socket.SOCK_STREAM
    IPPROTO_TCP, TCP_NODELAY = socket.IPPROTO_TCP, socket.TCP_NODELAY

    def __init__(self, timed):
        self.timed = timed

    def getaddrinfo(self, host, port, *_):
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port))]

    def socket(self, *_):
        return self

    def setsockopt(self, *_):
        pass

    def settimeout(self, timeout):
        pass

    def connect(self, address):
        pass

    def sendall(self, data):
        self.timed.sendall(data)

    def recv(self, size):
        return self.timed.recv(size)

    def close(self):
        self.timed.close()


class PymemcacheOnOurSocket(OnOurPool):
    """pymemcache, on our socket by its `socket_module`, and in our pool"""

    class Lent(Lent, Pymemcache):
        def __init__(self, port, timed):
            self.timed = timed
            self.client = pymemcache.Client(
                (HOST, port), default_noreply=False, socket_module=TimedSockets(timed)
            )

    def open(self, until):
        return self.Lent(self.port, TimedSocket(connect(self.port, until), until))


class Bytes(BaseSerializer):
    """Items as they are."""

    def serialize(self, key, value):
        return EncodedValue(value, 0)

    def unserialize(self, data, encoding_id):
        return data


class MetaMemcache:
    """meta-memcache, its client and pool, with a socket factory of ours"""

    def __init__(self, port, deadline, pool_size=4):
        def factory():
            sock = connect(port, time.monotonic() + deadline)
            sock.settimeout(deadline)
            return sock

        pool = ConnectionPool(f"{HOST}:{port}", factory, 0, pool_size, read_buffer_size=BUFFER)
        provider = OneHost(ServerAddress(HOST, port), pool)
        self.client = CacheClient(router=DefaultRouter(provider, DefaultExecutor(Bytes())))

    def gets(self, name):
        return meta_item(self.client.meta_get(Key(name.decode()), WITH_TOKEN))

    def add(self, name, item, exptime):
        return self.set(name, item, cache_ttl=exptime, mode=SET_MODE_ADD)

    def replace(self, name, item, exptime):
        return self.set(name, item, cache_ttl=exptime, mode=SET_MODE_REPLACE)

    def cas(self, name, item, token, exptime):
        return self.set(name, item, cache_ttl=exptime, cas_token=int(token))

    def set(self, name, item, **flags):
        return isinstance(
            self.client.meta_set(Key(name.decode()), item, RequestFlags(**flags)), Success
        )

    def delete(self, name):
        return isinstance(self.client.meta_delete(Key(name.decode())), Success)

    def delete_if(self, name, token):
        flags = RequestFlags(cas_token=int(token))
        return isinstance(self.client.meta_delete(Key(name.decode()), flags), Success)


class MetaSocket(OnOurPool):
    """meta-memcache-socket's MemcacheSocket, told what is left of the deadline before each call,
    in our pool"""

    class Lent(Lent):
        def __init__(self, sock, until):
            super().__init__(TimedSocket(sock, until))
            self.sock = sock
            self.meta = MemcacheSocket(sock, BUFFER)

        def may_go_on(self, until):
            quiet = super().may_go_on(until)
            self.sock.settimeout(until - time.monotonic())
            self.meta.set_socket(self.sock)
            return quiet

        def gets(self, name):
            return meta_item(self.meta.meta_get(name, WITH_TOKEN))

        def add(self, name, item, exptime):
            return self.set(name, item, cache_ttl=exptime, mode=SET_MODE_ADD)

        def replace(self, name, item, exptime):
            return self.set(name, item, cache_ttl=exptime, mode=SET_MODE_REPLACE)

        def cas(self, name, item, token, exptime):
            return self.set(name, item, cache_ttl=exptime, cas_token=int(token))

        def set(self, name, item, **flags):
            return isinstance(self.meta.meta_set(name, item, RequestFlags(**flags)), Success)

        def delete(self, name):
            return isinstance(self.meta.meta_delete(name), Success)

        def delete_if(self, name, token):
            flags = RequestFlags(cas_token=int(token))
            return isinstance(self.meta.meta_delete(name, flags), Success)

    def open(self, until):
        sock = connect(self.port, until)
        sock.settimeout(until - time.monotonic())
        return self.Lent(sock, until)


class MetaCodec(OnOurPool):
    """meta-memcache-socket's functions that write commands and read answers, on our socket and in
    our pool"""

    class Lent(Lent):
        def gets(self, name):
            self.timed.sendall(build_meta_get(name, WITH_TOKEN))
            answer, (end, kind, size, flags) = self.answer()
            if kind == RESPONSE_MISS and end == len(answer):
                return None, b""
            if kind != RESPONSE_VALUE:
                raise ValueError("no answer")
            missing = end + size + 2 - len(answer)
            while missing > 0:
                answer += self.more(missing)
                missing = end + size + 2 - len(answer)
            if answer[end + size :] != b"\r\n":
                raise ValueError("no answer")
            return answer[end : end + size], meta_token(flags)

        def add(self, name, item, exptime):
            return self.set(name, item, cache_ttl=exptime, mode=SET_MODE_ADD)

        def replace(self, name, item, exptime):
            return self.set(name, item, cache_ttl=exptime, mode=SET_MODE_REPLACE)

        def cas(self, name, item, token, exptime):
            return self.set(name, item, cache_ttl=exptime, cas_token=int(token))

        def set(self, name, item, **flags):
            command = build_meta_set(name, len(item), RequestFlags(**flags))
            return self.done(b"%b%b\r\n" % (command, item))

        def delete(self, name):
            return self.done(build_meta_delete(name))

        def delete_if(self, name, token):
            return self.done(build_meta_delete(name, RequestFlags(cas_token=int(token))))

        def done(self, command):
            self.timed.sendall(command)
            answer, (end, kind, _, _) = self.answer()
            if end != len(answer):
                raise ValueError("more than an answer")
            if kind in (RESPONSE_NOT_STORED, RESPONSE_CONFLICT, RESPONSE_MISS):
                return False
            if kind != RESPONSE_SUCCESS:
                raise ValueError("no answer")
            return True

        def answer(self):
            answer = self.more(8192)
            while (header := parse_header(answer, 0, len(answer))) is None:
                answer += self.more(8192)
            return answer, header

        def more(self, size):
            piece = self.timed.recv(size)
            if not piece:
                raise ConnectionResetError
            return piece

    def open(self, until):
        return self.Lent(TimedSocket(connect(self.port, until), until))


class PythonMemcached:
    """python-memcached, as Beaker's ext:memcached has it: it reads by `get`, and saves by `set`"""

    def __init__(self, port, deadline, pool_size=4):
        self.client = memcache.Client([f"{HOST}:{port}"], socket_timeout=math.ceil(deadline))

    def gets(self, name):
        return self.client.get(name.decode()), b""

    def add(self, name, item, exptime):
        return self.client.set(name.decode(), item, exptime)

    def cas(self, name, item, token, exptime):
        return self.client.set(name.decode(), item, exptime)


def meta_done(line):
    if line not in (b"HD", b"EX", b"NF"):
        raise ValueError("no answer")
    return line == b"HD"


def meta_item(answer):
    if isinstance(answer, Value):
        return answer.value, meta_token(answer.flags)
    return None, b""


def meta_token(flags):
    if flags.cas_token is None:
        raise ValueError("no token comes with the item")
    return b"%d" % flags.cas_token


CANDIDATES = {
    "nocookie": Ours,
    "pymemcache": Pymemcache,
    "pymemcache, our socket": PymemcacheOnOurSocket,
    "meta-memcache": MetaMemcache,
    "MemcacheSocket": MetaSocket,
    "its codec": MetaCodec,
}
