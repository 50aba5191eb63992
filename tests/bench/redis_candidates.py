"""The drivers that were looked at for the redis store, each in the shape that the store asks for.

They are told to repeat nothing and to have a deadline, as far as they can be told.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from urllib.parse import urlsplit

from nocookie.errors import StoreError, StoreTimeout
from nocookie.stores.pool import Pool
from nocookie.stores.redis import RedisStore
from nocookie.stores.redis_connection import ErrorReply

#: Seconds that a call is given.
DEADLINE = 0.5
POOL_SIZE = 50


class Ours:
    """nocookie/stores/redis_wire.py."""

    packages = ("hiredis",)

    def __init__(self, url, deadline=DEADLINE):
        self.store = RedisStore(url=url, deadline=deadline)  # it hears of forks
        self.call = self.store._wire.call

    def close(self):
        self.store.close()


class Failing:
    """Turns whatever a library raises into a StoreError, as a store would."""

    def __init__(self, url, deadline=DEADLINE):
        self.url = url
        self.deadline = deadline
        self.cluster = "+cluster" in url
        self.client = None

    def call(self, key, command, until, again=False):
        try:
            return self.ask(command, until)
        except StoreError:
            raise
        except Exception as error:
            kind = StoreTimeout if "Timeout" in type(error).__name__ else StoreError
            raise kind(f"the redis store failed: {type(error).__name__}") from None

    def close(self):
        pass

    def after_fork(self):
        pass


class RedisPy(Failing):
    """redis-py's clients, told to repeat nothing."""

    packages = ("redis", "hiredis")

    def ask(self, command, until):
        import redis

        if self.client is None:
            self.client = self.make(redis)
        try:
            return self.client.execute_command(command[0].decode(), *command[1:])
        except redis.exceptions.NoScriptError:
            return ErrorReply("NOSCRIPT")
        except redis.ResponseError as error:
            return ErrorReply(str(error))

    def make(self, redis):
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        url = self.url.replace("+cluster", "")
        options = {
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": self.deadline,
            "socket_connect_timeout": self.deadline,
        }
        if self.cluster:
            return redis.RedisCluster.from_url(url, **options)
        pool = redis.BlockingConnectionPool.from_url(url, timeout=self.deadline, **options)
        return redis.Redis(connection_pool=pool)


class RedisPyConnection(Failing):
    """redis-py's connection by its public methods, in our pool and our loop. A cluster would need
    our routing above it."""

    packages = ("redis", "hiredis")

    def __init__(self, url, deadline=DEADLINE):
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        super().__init__(url.replace("+cluster", ""), deadline)
        self.redis = redis
        self.pid = os.getpid()
        self.factory = redis.ConnectionPool.from_url(
            self.url, protocol=2, retry=Retry(NoBackoff(), 0), driver_info=None
        )
        self.login = self.factory.connection_kwargs.pop("password", None)
        self.pool = Pool(POOL_SIZE)

    def ask(self, command, until):
        if self.pid != os.getpid():
            self.pid = os.getpid()
            self.pool = Pool(POOL_SIZE)
        places, connection = self.pool.take(until)
        kept = None
        try:
            if connection is None or self.is_used_up(connection):
                connection = self.opened(until)
            connection.update_current_socket_timeout(until - time.monotonic())
            connection.send_command(*command)
            try:
                reply = self.reply(connection, until)
            except self.redis.exceptions.NoScriptError:
                reply = ErrorReply("NOSCRIPT")
            except self.redis.ResponseError as error:
                reply = ErrorReply(str(error))
            kept = connection
            return reply
        finally:
            if connection is not None and kept is None:
                connection.disconnect()
            self.pool.give_back(places, kept)

    def is_used_up(self, connection):
        try:
            if not connection.can_read(0):
                return False
        except self.redis.RedisError:
            pass
        connection.disconnect()
        return True

    def opened(self, until):
        connection = self.factory.make_connection()
        connection.socket_connect_timeout = connection.socket_timeout = until - time.monotonic()
        connection.connect()
        if self.login:
            connection.send_command("AUTH", self.login)
            self.reply(connection, until)
        return connection

    def reply(self, connection, until):
        while True:
            left = until - time.monotonic()
            if left <= 0 or not connection.can_read(left):
                raise TimeoutError
            try:
                return connection.read_response(timeout=0, disconnect_on_error=False)
            except self.redis.TimeoutError:
                pass  # that was not all of it

    def close(self):
        pass


class RedisAsyncio(Failing):
    """redis.asyncio in one thread of the process, each call within asyncio.timeout."""

    packages = ("redis", "hiredis")
    pid = loop = None
    parents = ()

    def ask(self, command, until):
        import redis.asyncio

        if self.pid != os.getpid():
            # What the parent has open is kept as it is: closed here, it would be closed for both.
            self.parents = (*self.parents, self.client, self.loop)
            self.pid = os.getpid()
            self.loop = asyncio.new_event_loop()
            self.client = None
            threading.Thread(target=self.loop.run_forever, daemon=True).start()
        future = asyncio.run_coroutine_threadsafe(self.asked(command, until), self.loop)
        try:
            return future.result()
        except redis.exceptions.NoScriptError:
            return ErrorReply("NOSCRIPT")
        except redis.ResponseError as error:
            return ErrorReply(str(error))
        finally:
            if not future.done():
                future.cancel()

    async def asked(self, command, until):
        import redis.asyncio
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        async with asyncio.timeout(until - time.monotonic()):
            if self.client is None:
                url = self.url.replace("+cluster", "")
                cls = redis.asyncio.RedisCluster if self.cluster else redis.asyncio.Redis
                self.client = cls.from_url(
                    url,
                    protocol=2,
                    retry=Retry(NoBackoff(), 0),
                    socket_timeout=None,
                    socket_connect_timeout=None,
                )
            return await self.client.execute_command(command[0].decode(), *command[1:])


class Glide(Failing):
    """valkey-glide, whose core is a runtime of Rust with threads of its own."""

    packages = ("valkey-glide-sync",)

    def ask(self, command, until):
        import glide_sync

        if self.client is None:
            self.client = self.make(glide_sync)
        try:
            return self.client.custom_command(list(command))
        except glide_sync.TimeoutError:
            raise
        except glide_sync.RequestError as error:
            if "NoScript" in str(error) or "NOSCRIPT" in str(error):
                return ErrorReply("NOSCRIPT")
            raise

    def make(self, glide):
        parts = urlsplit(self.url)
        name = "GlideClusterClient" if self.cluster else "GlideClient"
        advanced = getattr(glide, f"Advanced{name}Configuration")
        password = parts.password and glide.ServerCredentials(password=parts.password)
        config = getattr(glide, f"{name}Configuration")(
            [glide.NodeAddress(parts.hostname, parts.port)],
            credentials=password or None,
            request_timeout=int(self.deadline * 1000),
            protocol=glide.ProtocolVersion.RESP2,
            reconnect_strategy=glide.BackoffStrategy(0, 1, 2),
            advanced_config=advanced(connection_timeout=int(self.deadline * 1000)),
        )
        return getattr(glide, name).create(config)


DRIVERS = {
    "ours": Ours,
    "redis-py": RedisPy,
    "redis-py, its connection alone": RedisPyConnection,
    "redis.asyncio in a thread": RedisAsyncio,
    "valkey-glide-sync": Glide,
}
