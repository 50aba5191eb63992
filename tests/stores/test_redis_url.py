"""The URL of the redis store: what is taken, what is refused, and that nothing is shown of it."""

import socket
import sys
import traceback

import pytest

from nocookie import ConfigError, SessionMiddleware
from nocookie.stores import open_store
from nocookie.stores.redis import RedisStore

SECRET = "s3cret-pass"


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://localhost/3",
        "redis://localhost:6380/3?client_name=shop&max_connections=5&socket_keepalive=false",
        f"redis://user:{SECRET}@localhost:6380",
        "redis://:p%23ss%40@localhost",
        "redis://[::1]:6379",
        "rediss://localhost:6380?ssl_cert_reqs=required&ssl_ca_certs=/etc/ca.pem",
        "unix:///run/redis.sock",
        f"unix://user:{SECRET}@/run/redis.sock?db=2",
        "redis+cluster://localhost",
        "redis+cluster://one:7000,two:7001,[::1]:7002",
        f"rediss+cluster://user:{SECRET}@one:7000,two?ssl_check_hostname=false",
    ],
)
def test_a_store_is_made_without_a_connection(url):
    """There is no server at any of them."""
    store = RedisStore(url=url)
    store.close()
    assert SECRET not in repr(store)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("localhost:6379", "redis://"),
        ("http://localhost", "redis://"),
        ("redis:/localhost", "redis://"),
        ("", "redis://"),
        (f"redis://:{SECRET}@localhost:port", "cannot be read"),
        (f"redis://:{SECRET}@localhost:99999", "cannot be read"),
        (f"redis://:{SECRET}#x@localhost", "%23"),
        (f"redis://:{SECRET}@localhost/sessions", "number of a database"),
        (f"redis://:{SECRET}@localhost?db=many", "db does not take"),
        (f"redis://:{SECRET}@localhost?socket_timeout=5", "socket_timeout cannot be set"),
        (f"redis://:{SECRET}@localhost?decode_responses=true", "decode_responses cannot be set"),
        (f"redis://:{SECRET}@localhost?protocol=3", "protocol cannot be set"),
        (f"redis://:{SECRET}@localhost?ssl_colour=blue", "ssl_colour"),
        (f"rediss://:{SECRET}@localhost?ssl_cert_reqs={SECRET}", "does not take"),
        (f"redis://:{SECRET}@localhost?max_connections=0", "at least 1"),
        ("unix://", "path of a socket"),
        (f"redis+cluster://:{SECRET}@one:7000,:7001", "cannot be read"),
        (f"redis+cluster://:{SECRET}@one:7000,two:port", "cannot be read"),
        (f"redis+cluster://:{SECRET}@one/1", "only the database 0"),
    ],
)
def test_a_wrong_url_is_refused_and_not_shown(url, says):
    with pytest.raises(ConfigError) as caught:
        RedisStore(url=url)
    assert says in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_without_its_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "hiredis", None)
    with pytest.raises(ConfigError, match=r"pip install nocookie\[redis\]"):
        RedisStore(url="redis://localhost")


def test_the_type_redis_needs_a_url():
    with pytest.raises(ConfigError, match="'redis' needs url"):
        SessionMiddleware(None, type="redis")


def test_beakers_names_mean_this_store():
    url = "redis://localhost:1"
    assert type(open_store("ext:redis", {"url": url})) is RedisStore
    cluster = open_store("ext:rediscluster", {"url": "redis+cluster://localhost:1"})
    assert type(cluster) is RedisStore


def test_nothing_is_sent_before_the_first_use():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        SessionMiddleware(None, type="redis", url=f"redis://127.0.0.1:{listener.getsockname()[1]}")
        listener.settimeout(0.1)
        with pytest.raises(TimeoutError):
            listener.accept()
