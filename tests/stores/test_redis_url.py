"""The URL of the redis store: what is taken, what is refused, and that nothing is shown of it."""

import socket
import ssl
import sys
import traceback

import pytest

from nocookie import ConfigError, SessionMiddleware
from nocookie.stores import open_store
from nocookie.stores.redis import RedisStore
from nocookie.stores.redis_url import Settings, Tls, read

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
        f"rediss://localhost?ssl_certfile=/c.pem&ssl_keyfile=/k.pem&ssl_password={SECRET}",
        "rediss://localhost?ssl_ca_path=/etc/ca&ssl_ca_data=x&ssl_min_version=771",
    ],
)
def test_a_store_is_made_without_a_connection(url):
    """There is no server at any of them."""
    store = RedisStore(url=url)
    store.close()
    assert SECRET not in repr(store)
    assert SECRET not in repr(read(url))


@pytest.mark.parametrize(
    ("url", "addresses", "settings"),
    [
        ("redis://", [("localhost", 6379)], {}),
        ("redis:///4", [("localhost", 6379)], {"db": 4}),
        ("redis://Host:0/", [("host", 6379)], {}),
        ("redis://h?db=2", [("h", 6379)], {"db": 2}),
        ("redis://h/1?db=2", [("h", 6379)], {"db": 2}),
        ("redis://h?db=", [("h", 6379)], {}),
        ("redis://a%40b:c%3Ad%2F@h", [("h", 6379)], {"username": "a@b", "password": "c:d/"}),
        ("redis://u@h", [("h", 6379)], {"username": "u"}),
        ("redis://:p@h?password=q&username=u", [("h", 6379)], {"username": "u", "password": "p"}),
        ("redis://h?password=a%2520b+c", [("h", 6379)], {"password": "a%20b c"}),
        ("redis://[2001:db8::1]:7", [("2001:db8::1", 7)], {}),
        ("unix://u:p@/run/a%20b?db=3", ["/run/a b"], {"username": "u", "password": "p", "db": 3}),
        ("redis+cluster://u:p@a,b:7", [("a", 6379), ("b", 7)], {"username": "u", "password": "p"}),
        (
            "redis://h?client_name=n&max_connections=7&socket_keepalive=No&socket_read_size=9",
            [("h", 6379)],
            {
                "client_name": "n",
                "max_connections": 7,
                "socket_keepalive": False,
                "socket_read_size": 9,
            },
        ),
        ("rediss://h", [("h", 6379)], {"tls": Tls()}),
        (
            "rediss://h?ssl_cert_reqs=optional&ssl_check_hostname=0&ssl_min_version=772",
            [("h", 6379)],
            {"tls": Tls(ssl.CERT_OPTIONAL, False, min_version=ssl.TLSVersion.TLSv1_3)},
        ),
    ],
)
def test_what_a_url_means(url, addresses, settings):
    location = read(url)
    assert list(location.addresses) == addresses
    assert location.settings == Settings(**settings)


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
        ("redis://localhost?host=other", "host cannot be set"),
        ("redis://localhost?db=-1", "db does not take this value"),
        (f"redis://localhost?client_name={SECRET}+x", "client_name does not take"),
        (f"redis://localhost?max_connections={SECRET}", "max_connections does not take"),
        (f"redis://localhost?socket_keepalive={SECRET}", "true or false"),
        ("unix:///run/redis.sock?socket_keepalive=true", "socket_keepalive cannot be set"),
        ("redis://localhost?socket_read_size=0", "at least 1"),
        (f"redis://localhost?ssl_ca_certs={SECRET}", "ssl_ca_certs needs rediss://"),
        ("unix:///run/redis.sock?ssl_certfile=x", "ssl_certfile needs rediss://"),
        ("rediss://localhost?ssl_validate_ocsp=true", "ssl_validate_ocsp cannot be set"),
        ("rediss://localhost?ssl_validate_ocsp_stapled=1", "ssl_validate_ocsp_stapled cannot"),
        ("rediss://localhost?ssl_min_version=5", "ssl_min_version does not take"),
        ("rediss://localhost?ssl_min_version=TLS", "ssl_min_version does not take"),
        (f"rediss://localhost?ssl_ciphers={SECRET}", "ssl_ciphers"),
        (f"rediss://localhost?ssl_include_verify_flags={SECRET}", "names of ssl.VerifyFlags"),
        (f"redis://:\udcff{SECRET}@localhost", "cannot be read"),
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
