"""The reference application passes its audit: every carrier, over every store."""

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys

import pytest
from helpers import CountingStore
from realservers import free_port, wait_until
from stores.places import needs, places

from nocookie.errors import StoreError
from nocookie.stores.base import ByOwner, Purgeable
from nocookie.testing import audit, reference
from nocookie.testing.audit.requirements import NOT_FROM_OUTSIDE
from nocookie.testing.serving import serving

BUILDS = {
    "header:X-Session-Id": {},
    "query:sid": {"rewrite": "html"},
    "path:~": {"rewrite": "html"},
}

#: What is not applicable: no hook is given for it here, or the application has no such endpoint.
NOT_SEEN = {24, 35, 37, 38, 39, 50, 54} | NOT_FROM_OUTSIDE.keys()
NOT_FOR = {"header:X-Session-Id": {26, 31, 34}, "query:sid": {34}, "path:~": set()}

TIMEOUT, LIFETIME, EVERY, GRACE = 1800.0, 7200.0, 900.0, 10.0
#: The options by which the application keeps what this audit asks of it, and how it is told.
PROMISES = {
    "timeout": TIMEOUT,
    "lifetime": LIFETIME,
    "rotate_every": EVERY,
    "rotation_grace": GRACE,
    "require_https": True,
    "trusted_proxies": "127.0.0.1",
}
DESCRIPTION = {
    "timeout": TIMEOUT,
    "lifetime": LIFETIME,
    "renew_after": EVERY,
    "grace": GRACE,
    "headers": {"X-Forwarded-Proto": "https"},
    "clears_site_data": True,
}

BY_OWNER = {"sessions", "end_all", "end_others"}


class Log(logging.Handler):
    """All that is logged while the audit runs."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.lines, self.events = [], []

    def emit(self, record):
        self.lines.append(logging.Formatter().format(record) + repr(record.__dict__))
        if hasattr(record, "event"):
            self.events.append(record.event)


@pytest.fixture
def log(caplog):
    log = Log()
    for name in (None, "nocookie"):
        caplog.set_level("DEBUG", name)
    logging.getLogger().addHandler(log)
    yield log
    logging.getLogger().removeHandler(log)


def count(store):
    """How many records there are, expired ones too."""
    if hasattr(store, "expired"):
        return len(list(store.keys())) + store.expired()
    return len(store._records)


def in_plain_http(app):
    """The same application, as a proxy shows it that was asked without TLS."""
    return lambda environ, start: app({**environ, "HTTP_X_FORWARDED_PROTO": "http"}, start)


def endpoints(store):
    """What the application can do on this store."""
    cannot = set() if isinstance(store, ByOwner) else BY_OWNER
    return {name: text for name, text in reference.ENDPOINTS.items() if name not in cannot}


@pytest.mark.parametrize("carrier", BUILDS)
@places()
def test_the_reference_application_passes(place, carrier, clock, log):
    app = reference.application(find_id=carrier, **BUILDS[carrier], **place.at(clock), **PROMISES)
    store = app.sessions.manager.backend.store
    hooks = {}
    if isinstance(store, Purgeable):
        hooks = {"purge": lambda: store.purge(10**6), "store_count": lambda: count(store)}
    with serving(app) as url, serving(in_plain_http(app)) as plain:
        report = audit.run(
            url,
            carrier=carrier,
            endpoints=endpoints(store),
            plain=plain,
            origin=url.replace("http:", "https:"),
            advance=clock.advance,
            store_dump=place.dump,
            log_text=lambda: "\n".join(log.lines),
            events=lambda: log.events,
            ids=300,
            rounds=5,
            threads=4,
            **DESCRIPTION,
            **hooks,
        )
    assert not report.failed, str(report)
    not_applicable = NOT_SEEN | NOT_FOR[carrier] | (set() if hooks else {19})
    not_applicable |= set() if isinstance(store, ByOwner) else {20}
    assert {result.number for result in report.not_applicable} == not_applicable, str(report)


@pytest.mark.parametrize(
    ("carrier", "options"),
    [("cookie:nocookie.session.id", {"use_cookies": True}), ("bearer", {"find_id": "bearer"})],
)
def test_so_it_does_with_ids_in_other_places(carrier, options):
    with serving(reference.application(type=CountingStore(), **options)) as url:
        report = audit.run(
            url, carrier=carrier, endpoints=reference.ENDPOINTS, ids=300, rounds=5, threads=4
        )
    assert not report.failed, str(report)
    assert ("REQ-31" in {result.name for result in report.passed}) == (carrier != "bearer")


@places()
def test_an_outage_is_told(place, monkeypatch):
    """A store that fails at once, and then works again."""
    down = []
    store = place.store()

    def guard(call):
        def guarded(*arguments, **more):
            if down:
                raise StoreError("down, for the test")
            return call(*arguments, **more)

        return guarded

    for name in ("load", "load_and_touch", "create", "save", "touch"):
        if hasattr(store, name):
            monkeypatch.setattr(store, name, guard(getattr(store, name)))

    @contextlib.contextmanager
    def outage():
        down.append(1)
        yield
        down.clear()

    app = reference.application(**place.options)
    assert app.sessions.manager.backend.store is store
    with serving(app) as url:
        report = audit.run(url, only=[38, 39], outage=outage, deadline=1.0)
    assert [result.outcome for result in report] == ["pass", "pass"], str(report)


@places("remote")
def test_a_server_that_hangs_is_told_within_the_deadline(place):
    @contextlib.contextmanager
    def outage():
        place.server.freeze()
        try:
            yield
        finally:
            place.server.thaw()

    app = reference.application(**{**place.options, "deadline": 1.0})
    with serving(app) as url:
        report = audit.run(url, only=[38, 39], outage=outage, deadline=1.0, threads=4)
    assert [result.outcome for result in report] == ["pass", "pass"], str(report)


def test_what_is_planted_in_the_store_is_harmless():
    store = CountingStore()

    def overwrite(data):
        for key, record in store._records.items():
            fields = dict.fromkeys(record.fields, data)
            store._records[key] = record._replace(fields=fields)

    app = reference.application(type=store)
    with serving(app) as url:
        report = audit.run(
            url, only=[3, 35, 37], overwrite=overwrite, store_calls=lambda: len(store.trips)
        )
    assert [result.outcome for result in report] == ["pass"] * 3, str(report)
    assert "no store call" in report.of(3).evidence


# -- a real server -------------------------------------------------------------------------------

#: Two processes of four threads, and an access log. A worker that is told to stop while it starts
#: does not hear it, and is waited for.
GUNICORN = (
    *("-m", "gunicorn", "--workers=2", "--threads=4", "--no-control-socket"),
    *("--graceful-timeout=3", "--access-logfile=access.log", "served:application"),
)


@contextlib.contextmanager
def served(folder, options):
    """Serve the reference application with these options, which are JSON; give its URL."""
    (folder / "served.py").write_text(
        "import json\nfrom nocookie.testing import reference\n"
        f"application = reference.application(**json.loads({json.dumps(options)!r}))\n"
    )
    port = free_port()
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-W",
                "ignore",
                *GUNICORN[:-1],
                f"--bind=127.0.0.1:{port}",
                GUNICORN[-1],
            ],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdout=log,
            stderr=log,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until(
                lambda: process.poll() is not None or answers(port),
                lambda: (folder / "log").read_text(),
            )
            assert process.poll() is None, (folder / "log").read_text()
            yield url
        finally:
            process.terminate()
            try:
                process.wait(60)
            finally:
                process.kill()


def answers(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


@pytest.mark.server
@pytest.mark.parametrize("carrier", BUILDS)
@places("shared")
def test_it_passes_under_a_server_of_two_processes(place, carrier, tmp_path):
    needs("gunicorn")
    (tmp_path / "server").mkdir()
    with served(
        tmp_path / "server", {"find_id": carrier, **BUILDS[carrier], **place.options}
    ) as url:
        report = audit.run(
            url,
            carrier=carrier,
            endpoints=endpoints(place.store()),
            clears_site_data=True,
            store_dump=place.dump,
            log_text=(tmp_path / "server" / "log").read_text,
            access_log=(tmp_path / "server" / "access.log").read_text,
            ids=300,
            rounds=10,
        )
    assert not report.failed, str(report)
