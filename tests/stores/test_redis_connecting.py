"""How the redis store comes to a connection: addresses, TLS, the handshake, and who breaks it."""

import datetime
import ipaddress
import random
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
import traceback
from contextlib import contextmanager, suppress

import pytest
from realservers import wait_until

from nocookie.errors import StoreError, StoreTimeout
from nocookie.stores import redis_connection, redis_url, timed
from nocookie.stores.base import Delta, Missing, Record
from nocookie.stores.redis import RedisStore
from nocookie.stores.redis_cluster import slot_of

#: Seconds that a call may take beyond its deadline on a busy machine.
SLACK = 3.0


def key(number):
    return f"{number:064x}"


def record(**fields):
    return Record(fields, time.time(), 0.0, 0.0, 0)


def quickly(call, deadline, *arguments):
    """The error that the call raises, in time."""
    begun = time.monotonic()
    with pytest.raises(StoreError) as caught:
        call(*arguments)
    assert time.monotonic() - begun < deadline + SLACK
    return caught.value


def use(store):
    store.create(key(1), record(a=b"1"), 600)
    store.save(key(1), Delta({"a": b"2"}), 600)
    assert fields(store) == {"a": b"2"}
    store.destroy(key(1))
    assert store.load(key(1)) is Missing.UNKNOWN


def fields(store):
    found = store.load(key(1))
    assert isinstance(found, Record), found
    return dict(found.fields)


@pytest.fixture
def opened():
    """`opened(url, ...)` makes a store that is closed in the end."""
    stores = []

    def make(url, **options):
        stores.append(RedisStore(url=url, **options))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@contextmanager
def saying(*pieces, pause=0.0, first=b""):
    """The port of a server that says this, whatever it is asked, piece by piece; on each
    connection *first* comes first, where PORT is its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    over = threading.Event()

    def serve(client):
        with client, suppress(OSError):
            if first:
                client.recv(65536)
                client.sendall(first.replace(b"PORT", b"%d" % port))
            if client.recv(65536):
                for piece in pieces:
                    client.sendall(piece)
                    over.wait(pause)
                while client.recv(65536):
                    pass

    def accept():
        with suppress(OSError):
            while True:
                client = listener.accept()[0]
                clients.append(client)
                threads.append(threading.Thread(target=serve, args=(client,)))
                threads[-1].start()

    clients: list[socket.socket] = []
    threads = [threading.Thread(target=accept)]
    threads[0].start()
    try:
        yield port
    finally:
        over.set()
        for sock in (listener, *clients):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in threads:
            thread.join(10)


# -- addresses


@pytest.fixture
def addresses(monkeypatch):
    """`addresses(*names)`: what every name is found to mean, instead of what it does."""
    real = socket.getaddrinfo

    def set_to(*found):
        def look_up(host, port, *more, **named):
            assert host == "sessions.example"
            return [entry for name in found for entry in real(name, port, *more, **named)]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)

    return set_to


@pytest.mark.server
def test_the_first_address_of_a_name_that_answers_is_taken(valkey, opened, addresses):
    addresses("127.0.0.2", "127.0.0.3", "127.0.0.1")
    use(opened(f"redis://sessions.example:{valkey.port}"))


@contextmanager
def silent_listener():
    """The port of 127.0.0.2 where a connection is neither taken nor refused."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.2", 0))
        listener.listen(0)
        callers = [socket.socket() for _ in range(4)]
        try:
            for caller in callers:  # its queue is full then
                caller.setblocking(False)
                caller.connect_ex(listener.getsockname())
            yield listener.getsockname()[1]
        finally:
            for caller in callers:
                caller.close()


def test_a_silent_address_leaves_time_for_the_next(opened, addresses):
    addresses("127.0.0.2", "127.0.0.1")
    with silent_listener() as port, socket.create_server(("127.0.0.1", port)) as listener:
        begun = time.monotonic()
        with timed.connect(("sessions.example", port), begun + 2) as sock:
            assert sock.getpeername() == ("127.0.0.1", port)
            assert 0.9 < time.monotonic() - begun < 1 + SLACK
        listener.accept()[0].close()


def test_addresses_that_are_all_silent_take_one_deadline_together(opened, addresses):
    addresses(*["127.0.0.2"] * 8)
    with silent_listener() as port:
        begun = time.monotonic()
        store = opened(f"redis://sessions.example:{port}", deadline=1.0)
        assert isinstance(quickly(store.load, 1.0, key(1)), StoreTimeout)
        assert time.monotonic() - begun < 3, "more than the one"


def test_addresses_that_all_refuse_are_an_error(opened, addresses):
    addresses("127.0.0.2", "127.0.0.3")
    error = quickly(opened("redis://sessions.example:1").load, 0, key(1))
    assert "cannot connect: ConnectionRefusedError" in str(error)


@pytest.mark.parametrize("name", ["no-such-host.invalid", "a..b", "x" * 70, "a%00b"])
def test_a_name_that_means_nothing_is_an_error(opened, name, monkeypatch):
    real = socket.getaddrinfo

    def look_up(host, *more, **named):
        if host.endswith(".invalid"):
            raise socket.gaierror(-2, "not known")
        return real(host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert "cannot connect" in str(quickly(opened(f"redis://{name}:1").load, 0, key(1)))


@pytest.mark.server
def test_an_address_of_version_6(own_valkey, opened):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this host has no ::1")
    server = own_valkey(bind=("127.0.0.1", "::1"))
    use(opened(f"redis://[::1]:{server.port}/2"))


@pytest.mark.server
def test_a_unix_socket_with_everything(tmp_path, own_valkey, opened):
    path = tmp_path / "a socket"
    server = own_valkey(unixsocket=path)
    server.ask("ACL", "SETUSER", "shop", "on", ">p@ss", "~*", "+@all")
    url = f"unix://shop:p%40ss@{str(path).replace(' ', '%20')}?db=2&client_name=shop-1"
    store = opened(url)
    use(store)
    store.create(key(1), record(), 600)
    assert server.ask("-n", "2", "DBSIZE") == "1"
    assert "name=shop-1 " in server.ask("CLIENT", "LIST")


def test_a_unix_socket_that_is_not_there_is_an_error(tmp_path, opened):
    error = quickly(opened(f"unix://{tmp_path}/none").load, 0, key(1))
    assert "cannot connect: FileNotFoundError" in str(error)


@pytest.mark.parametrize(("option", "kept"), [("", 1), ("?socket_keepalive=no", 0)])
def test_connections_are_kept_alive_unless_that_is_switched_off(opened, monkeypatch, option, kept):
    seen = []

    def connect(*arguments):
        sock = timed.connect(*arguments)
        seen.append(bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)))
        seen.append(bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))
        if hasattr(socket, "TCP_KEEPIDLE"):
            idle = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
            assert (idle == timed.KEEPALIVE["TCP_KEEPIDLE"]) is bool(kept)
        return sock

    monkeypatch.setattr(redis_connection, "connect", connect)
    with saying(b"*0\r\n") as port:
        assert opened(f"redis://127.0.0.1:{port}{option}").load(key(1)) is Missing.UNKNOWN
    assert seen == [bool(kept), True]


@pytest.mark.server
def test_the_package_redis_is_not_needed(valkey, python):
    code = (
        "import sys\n"
        "sys.modules['redis'] = None\n"
        "from nocookie.stores.redis import RedisStore\n"
        "store = RedisStore(url=sys.argv[1])\n"
        "store.load(f'{1:064x}')\n"
        "print('loaded')\n"
    )
    assert python(code, valkey.url).communicate(timeout=60)[0] == "loaded\n"


# -- the handshake

PASSWORD = "p#s s:/?@[%25]'\"\\+&é字"


def encoded(text):
    return "".join(f"%{byte:02X}" for byte in text.encode())


@pytest.mark.server
def test_a_password_of_any_characters(own_valkey, opened):
    server = own_valkey()
    server.ask("ACL", "SETUSER", "shöp@1", "on", f">{PASSWORD}", "~*", "+@all")
    server.ask("ACL", "SETUSER", "default", "resetpass", f">other {PASSWORD}")
    user, address = encoded("shöp@1"), f"127.0.0.1:{server.port}"
    for url in (
        f"redis://{user}:{encoded(PASSWORD)}@{address}",
        f"redis://:other%20{encoded(PASSWORD)}@{address}/1",
        f"redis://{address}/1?password=other+{encoded(PASSWORD)}",
        f"redis://{address}?username={user}&password={encoded(PASSWORD)}",
    ):
        use(opened(url))


@pytest.mark.server
@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("redis://shop:wrong-one@{}", "WRONGPASS"),
        ("redis://nobody@{}", "WRONGPASS"),
        ("redis://:wrong-one@{}/1?client_name=x", "WRONGPASS"),
        ("redis://{}", "NOAUTH"),
        ("redis://:right-one@{}/77", "ERR"),
    ],
)
def test_a_handshake_that_is_refused_says_so_and_shows_nothing(own_valkey, opened, url, word):
    server = own_valkey()
    server.ask("CONFIG", "SET", "requirepass", "right-one")
    store = opened(url.format(f"127.0.0.1:{server.port}"))
    for _ in range(2):
        error = quickly(store.load, 0, key(1))
        assert str(error).endswith(f": {word}")
        text = "".join(traceback.format_exception(error))
        assert not re.search("wrong-one|right-one|nobody", text)
    clients = server.ask("-a", "right-one", "--no-auth-warning", "CLIENT", "LIST")
    assert word == "NOAUTH" or len(clients.splitlines()) == 1, "it is closed"


@pytest.mark.parametrize(
    "said",
    [
        [b"+MAYBE\r\n"],
        [b"+OK\r\n+OK\r\n"],
        [b":1\r\n"],
        [b"*1\r\n$7\r\nprivate\r\n"],
        [b"?private\r\n"],
        [b"-private words\r\n"],
        [b"HTTP/1.1 400 private\r\n\r\n"],
    ],
)
def test_a_handshake_that_is_none_is_an_error_and_shows_nothing(opened, said):
    with saying(*said) as port:
        error = quickly(opened(f"redis://:word@127.0.0.1:{port}").load, 0, key(1))
    assert "cannot connect" in str(error)
    assert not re.search("private|Protocol", "".join(traceback.format_exception(error)))


@pytest.mark.parametrize("pieces", [[], [b"+"] * 100, [b"$9\r\n", *[b"x"] * 8]])
@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
def test_a_handshake_in_drops_has_no_more_time_than_others(opened, pieces, scheme):
    with saying(*pieces, pause=0.1) as port:
        store = opened(f"{scheme}://:word@127.0.0.1:{port}", deadline=0.4)
        assert isinstance(quickly(store.load, 0.4, key(1)), StoreError)


# -- replies that are none


#: All of it is on the one that says so.
WHOLE_CLUSTER = b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$0\r\n\r\n:PORT\r\n"


@pytest.mark.parametrize(
    "said",
    [
        b"?private\r\n",
        b":private\r\n",
        b":7\r\n",
        b"+private\r\n",
        b"$-7\r\n",
        b"*1\r\n$1\r\nm\r\n",
        b"*1\r\n:7\r\n",
        b"*2\r\n$1\r\nm\r\n:7\r\n",
        b"*2\r\n*1\r\n+private\r\n+b\r\n",
        b"*0\r\n*0\r\n",
        b"-MOVED private\r\n",
        b"-ASK 7 private:port\r\n",
        b"-ASK 7 private:99999999999999999999\r\n",
        b"-MOVED 7 private:-1\r\n",
    ],
)
@pytest.mark.parametrize("cluster", [False, True])
def test_what_is_no_reply_is_an_error_and_shows_nothing(opened, said, cluster):
    first = WHOLE_CLUSTER if cluster else b""
    with saying(said, first=first) as port:
        scheme = "redis+cluster" if cluster else "redis"
        error = quickly(opened(f"{scheme}://127.0.0.1:{port}").load, 0, key(1))
    assert not re.search("private|Protocol", "".join(traceback.format_exception(error)))


@pytest.mark.parametrize(
    "said",
    [
        b"*1\r\n:7\r\n",
        b"*1\r\n*2\r\n:0\r\n+private\r\n",
        b"*1\r\n*3\r\n:0\r\n:9\r\n:7\r\n",
        b"*1\r\n*3\r\n:0\r\n:9\r\n*2\r\n+private\r\n+private\r\n",
        b"*1\r\n*3\r\n+private\r\n:9\r\n*2\r\n$0\r\n\r\n:1\r\n",
        b"*1\r\n*3\r\n:0\r\n:9223372036854775807\r\n*2\r\n$0\r\n\r\n:1\r\n",
        b"*1\r\n*3\r\n:-4611686018427387904\r\n:9\r\n*2\r\n$0\r\n\r\n:1\r\n",
        b"*1\r\n*3\r\n:9\r\n:1\r\n*2\r\n$0\r\n\r\n:1\r\n",
        b"*1\r\n*3\r\n:0\r\n:9\r\n*2\r\n$0\r\n\r\n:99999999999999999999\r\n",
        b"+private\r\n",
    ],
)
def test_what_is_no_map_of_a_cluster_is_an_error_and_shows_nothing(opened, said):
    with saying(said) as port:
        store = opened(f"redis+cluster://127.0.0.1:{port}", deadline=0.5)
        error = quickly(store.load, 0.5, key(1))
    assert not re.search("private|Protocol", "".join(traceback.format_exception(error)))


def test_keys_have_the_slots_that_others_give_them():
    from redis.crc import key_slot

    chance = random.Random(1)
    keys = [bytes(chance.choices(b"{}ab:", k=chance.randrange(12))) for _ in range(2000)]
    assert [slot_of(name) for name in keys] == [key_slot(name) for name in keys]
    assert slot_of(b"123456789") == 0x31C3, "the check value of the specification"


# -- TLS


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """A folder with the certificates of an authority, of a server named 127.0.0.1, and of a client
    whose key has a password."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path_factory.mktemp("certificates")
    now = datetime.datetime.now(datetime.UTC)

    def make(name, issuer=None, password=b""):
        private = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        signer, signer_name = issuer or (private, subject)
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        # From Python 3.13 on an authority and a server have to say what their keys are for.
        used = ("digital_signature",) if issuer else ("key_cert_sign", "crl_sign")
        usage = {
            each: each in used
            for each in (
                *("digital_signature", "content_commitment", "key_encipherment"),
                *("data_encipherment", "key_agreement", "key_cert_sign", "crl_sign"),
                *("encipher_only", "decipher_only"),
            )
        }
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(signer_name)
            .public_key(private.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), True)
            .add_extension(x509.SubjectAlternativeName([address]), False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), False)
            .add_extension(authority, False)
            .add_extension(x509.KeyUsage(**usage), True)
            .sign(signer, hashes.SHA256())
        )
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (folder / f"{name}.key").write_bytes(
            private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(password)
                if password
                else serialization.NoEncryption(),
            )
        )
        return private, subject

    ours = make("ours")
    make("server", ours)
    make("client", ours, b"p#ss word")
    make("theirs")
    return folder


@pytest.fixture
def front_of(certificates):
    """`front_of(server, ...)` puts TLS before it."""
    from realservers.valkey import TlsFront

    def make(server, **options):
        pair = certificates / "server.pem", certificates / "server.key"
        return TlsFront(server, *pair, **options)

    return make


@pytest.mark.server
def test_tls(own_valkey, opened, front_of, certificates):
    server = own_valkey()
    with front_of(server) as front:
        address = f"rediss://127.0.0.1:{front.port}"
        good = f"{address}?ssl_ca_certs={certificates}/ours.pem"
        store = opened(good)
        use(store)
        store.create(key(1), record(large=bytes(1_000_000)), 600)
        assert fields(store) == {"large": bytes(1_000_000)}
        for url in (
            address,
            f"{address}?ssl_ca_certs={certificates}/theirs.pem",
            f"rediss://127.0.0.1:{server.port}?ssl_ca_certs={certificates}/ours.pem",
            f"redis://127.0.0.1:{front.port}",
        ):
            quickly(opened(url, deadline=1).destroy, 1, key(1))
        assert fields(store) == {"large": bytes(1_000_000)}
        server.ask("CLIENT", "KILL", "TYPE", "normal")
        idle = store._wire._node.pool.here()._places[-1].socket
        wait_until(lambda: not idle.is_quiet(), lambda: "the connection is still open")
        store.save(key(1), Delta({"a": b"1"}, {"large"}), 600)
        assert fields(store) == {"a": b"1"}
        server.freeze()
        try:
            for one in opened(good, deadline=0.3), opened(good, deadline=0.3):
                assert isinstance(quickly(one.load, 0.3, key(1)), StoreTimeout)
        finally:
            server.thaw()


@pytest.mark.server
def test_a_client_shows_its_certificate(valkey, opened, front_of, certificates):
    with front_of(valkey, clients=certificates / "ours.pem") as front:
        address = f"rediss://127.0.0.1:{front.port}?ssl_ca_certs={certificates}/ours.pem"
        mine = f"{address}&ssl_certfile={certificates}/client.pem"
        with_key = f"{mine}&ssl_keyfile={certificates}/client.key"
        use(opened(f"{with_key}&ssl_password=p%23ss%20word"))
        begun = time.monotonic()
        for wrong in ("", "&ssl_password=another"):  # and nobody is asked at a terminal
            store = opened(f"{with_key}{wrong}", deadline=1)
            assert "cannot connect: SSLError" in str(quickly(store.load, 1, key(1)))
        assert time.monotonic() - begun < 3
        # Under TLS 1.3 a client hears of it with the first reply only.
        quickly(opened(address, deadline=1).load, 1, key(1))


@pytest.mark.server
def test_authorities_may_be_named_in_three_ways(valkey, opened, front_of, certificates, tmp_path):
    with front_of(valkey) as front:
        address = f"rediss://127.0.0.1:{front.port}"
        use(opened(f"{address}?ssl_ca_certs={certificates}/ours.pem"))
        text = (certificates / "ours.pem").read_text()
        use(opened(f"{address}?ssl_ca_data={encoded(text)}"))
        if shutil.which("openssl") is None:
            pytest.skip("no openssl to name the files of a folder as it wants them")
        name = ["openssl", "x509", "-noout", "-subject_hash", "-in", certificates / "ours.pem"]
        digest = subprocess.run(name, capture_output=True, text=True, check=True).stdout.strip()
        shutil.copy(certificates / "ours.pem", tmp_path / f"{digest}.0")
        use(opened(f"{address}?ssl_ca_path={tmp_path}"))


@pytest.mark.server
def test_a_renewed_file_counts_from_the_next_connection_on(
    valkey, opened, front_of, certificates, tmp_path
):
    file = tmp_path / "authorities.pem"
    with front_of(valkey) as front:
        store = opened(f"rediss://127.0.0.1:{front.port}?ssl_ca_certs={file}", deadline=1)
        assert "FileNotFoundError" in str(quickly(store.load, 1, key(1)))
        file.write_text((certificates / "theirs.pem").read_text())
        assert "SSLCertVerificationError" in str(quickly(store.load, 1, key(1)))
        file.write_text((certificates / "ours.pem").read_text())
        use(store)


@pytest.mark.server
def test_what_is_checked_of_a_server_can_be_less(valkey, opened, front_of, certificates):
    with front_of(valkey) as front:
        ours = f"ssl_ca_certs={certificates}/ours.pem"
        named = f"rediss://localhost:{front.port}?{ours}"  # it is 127.0.0.1 in the certificate
        assert "SSLCertVerificationError" in str(quickly(opened(named).load, 1, key(1)))
        use(opened(f"{named}&ssl_check_hostname=false"))
        use(opened(f"rediss://localhost:{front.port}?ssl_cert_reqs=none"))
        unchecked = f"rediss://127.0.0.1:{front.port}?ssl_check_hostname=false"
        assert "SSLCertVerificationError" in str(quickly(opened(unchecked).load, 1, key(1)))


@pytest.mark.server
def test_versions_and_ciphers_of_tls(valkey, opened, front_of, certificates):
    with front_of(valkey, newest=ssl.TLSVersion.TLSv1_2) as front:
        address = f"rediss://127.0.0.1:{front.port}?ssl_ca_certs={certificates}/ours.pem"
        use(opened(f"{address}&ssl_min_version={ssl.TLSVersion.TLSv1_2.value}"))
        use(opened(f"{address}&ssl_ciphers=ECDHE-ECDSA-AES256-GCM-SHA384"))
        for none in (
            f"ssl_min_version={ssl.TLSVersion.TLSv1_3.value}",
            "ssl_ciphers=ECDHE-RSA-AES256-GCM-SHA384",  # its key is no RSA
        ):
            error = quickly(opened(f"{address}&{none}").load, 1, key(1))
            assert "cannot connect: SSL" in str(error)


def test_flags_of_verification_are_added_and_taken_away():
    flags = "ssl_include_verify_flags=[VERIFY_CRL_CHECK_LEAF,VERIFY_X509_STRICT]"
    less = "ssl_exclude_verify_flags=VERIFY_X509_TRUSTED_FIRST"
    tls = redis_url.read(f"rediss://localhost?{flags}&{less}").settings.tls
    found = tls.context().verify_flags
    assert ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF in found
    assert ssl.VerifyFlags.VERIFY_X509_STRICT in found
    assert ssl.VerifyFlags.VERIFY_X509_TRUSTED_FIRST not in found
    plain = redis_url.read("rediss://localhost").settings.tls.context()
    assert (plain.verify_mode, plain.check_hostname) == (ssl.CERT_REQUIRED, True)


#: The beginning of a record of TLS, whose rest comes in drops.
DROPS = b"\x16\x03\x03\x10\x00", *[b"\x02"] * 60


@pytest.mark.parametrize("pieces", [[], DROPS], ids=["silent", "in drops"])
def test_a_handshake_of_tls_has_no_more_time_than_others(opened, pieces):
    with saying(*pieces, pause=0.1) as port:
        store = opened(f"rediss://127.0.0.1:{port}", deadline=0.5)
        begun = time.monotonic()
        assert isinstance(quickly(store.load, 0.5, key(1)), StoreTimeout)
        assert time.monotonic() - begun < 3, "its last drop comes after six seconds"


UNDER_GEVENT = """
from gevent import monkey
monkey.patch_all()
import sys, time
from nocookie.errors import StoreTimeout
from nocookie.stores.redis import RedisStore
store = RedisStore(url=sys.argv[1], deadline=0.5)
begun = time.monotonic()
try:
    store.load(f"{1:064x}")
except StoreTimeout:
    print("in time" if time.monotonic() - begun < 3 else time.monotonic() - begun)
"""


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_under_gevent_it_has_not_either(python, scheme):
    pytest.importorskip("gevent")
    with saying(*(DROPS if scheme == "rediss" else [b"+"] * 60), pause=0.1) as port:
        url = f"{scheme}://:word@127.0.0.1:{port}"
        assert python(UNDER_GEVENT, url).communicate(timeout=60)[0] == "in time\n"


@pytest.fixture
def drops_under_tls(certificates):
    """The port of a server that shakes hands, and then says a record of TLS in drops."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve():
        with suppress(OSError):
            client = context.wrap_socket(listener.accept()[0], server_side=True)
            client.recv(65536)
            with socket.socket(fileno=client.detach()) as raw:
                raw.sendall(b"\x17\x03\x03\x10\x00")
                while not over.wait(0.1):
                    raw.sendall(b"\x02")

    server = threading.Thread(target=serve)
    server.start()
    yield listener.getsockname()[1]
    over.set()
    listener.close()
    server.join(10)


def test_a_reply_in_drops_under_tls_has_no_more_time_than_others(
    opened, drops_under_tls, certificates
):
    url = f"rediss://127.0.0.1:{drops_under_tls}?ssl_ca_certs={certificates}/ours.pem"
    store = opened(url, deadline=0.5)
    begun = time.monotonic()
    assert isinstance(quickly(store.load, 0.5, key(1)), StoreTimeout)
    assert time.monotonic() - begun < 3


def test_under_gevent_a_reply_under_tls_has_not_either(python, drops_under_tls, certificates):
    pytest.importorskip("gevent")
    url = f"rediss://127.0.0.1:{drops_under_tls}?ssl_ca_certs={certificates}/ours.pem"
    process = python(UNDER_GEVENT, url)
    assert process.communicate(timeout=20)[0] == "in time\n"


@pytest.mark.server
def test_under_gevent_tls_carries_what_is_large(python, valkey, front_of, certificates):
    pytest.importorskip("gevent")
    code = """
from gevent import monkey
monkey.patch_all()
import sys, time
from nocookie.stores.base import Delta, Record
from nocookie.stores.redis import RedisStore
store = RedisStore(url=sys.argv[1], deadline=20)
large = bytes(range(256)) * 20_000
store.create(f"{1:064x}", Record({"a": large}, time.time(), 0.0, 0.0, 0), 600)
store.save(f"{1:064x}", Delta({"b": b"1"}), 600)
print(store.load(f"{1:064x}").fields == {"a": large, "b": b"1"})
"""
    with front_of(valkey) as front:
        url = f"rediss://127.0.0.1:{front.port}?ssl_ca_certs={certificates}/ours.pem"
        assert python(code, url).communicate(timeout=60)[0] == "True\n"


def test_under_gevent_a_large_save_under_tls_does_not_hold_up_others(python, certificates):
    """While the other end does not read."""
    pytest.importorskip("gevent")
    code = """
from gevent import monkey
monkey.patch_all()
import sys, time
import gevent
from nocookie.errors import StoreTimeout
from nocookie.stores.base import Record
from nocookie.stores.redis import RedisStore
store = RedisStore(url=sys.argv[1], deadline=2)

def save():
    try:
        store.create(f"{1:064x}", Record({"a": bytes(30_000_000)}, 0.0, 0.0, 0.0, 0), 600)
    except StoreTimeout:
        return "in time"

saving = gevent.spawn(save)
turns = 0
while not saving.ready():
    gevent.sleep(0.02)
    turns += 1
print(saving.value, turns > 10 or turns)
"""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        url = f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificates}/ours.pem"
        process = python(code, url)
        with context.wrap_socket(listener.accept()[0], server_side=True):
            assert process.communicate(timeout=60)[0] == "in time True\n"
