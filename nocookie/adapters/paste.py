"""Paste: sessions from an ini file, and for the globals of a Pylons-style application.

`egg:nocookie#beaker_session` stands where `egg:Beaker#beaker_session` stood, as a filter and as
a filter-app; `egg:nocookie#session` is the same under the library's own environ key. PasteDeploy
finds them. Paste itself is needed by those only who use its registry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from nocookie import middleware
from nocookie.backend import Backend
from nocookie.errors import ConfigError
from nocookie.options import PREFIXES, by_name, is_ours
from nocookie.session_object import SessionObject
from nocookie.sessions import Session

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = [
    "SessionMiddleware",
    "beaker_session",
    "nocookie_filter_app_factory",
    "nocookie_filter_factory",
    "session_filter_app_factory",
    "session_filter_factory",
]

Filter = Callable[["WSGIApplication"], "SessionMiddleware"]


def _stacked_proxy() -> Any:
    try:
        from paste.registry import StackedObjectProxy
    except ImportError:
        return None

    return StackedObjectProxy(name="the session of nocookie")


#: The session of the request, for code that imports a global of Paste's kind; None without
#: Paste. It is bound where a `RegistryManager` of Paste is above the middleware.
beaker_session: Any = _stacked_proxy()


class SessionMiddleware(middleware.SessionMiddleware):
    """`nocookie.SessionMiddleware` with what Beaker's does beside the session.

    The session is at `environ["beaker.session"]` unless *environ_key* says otherwise. It is
    registered with `environ["paste.registry"]` for the global `beaker_session`. A session apart
    from the request's own comes from `environ["beaker.get_session"]()`; with an id in it, as
    TurboGears 2 asks, the one that has it. With the option
    `webtest_varname`, the responses of WebTest have the session as an attribute of that name.

    Raises `ConfigError`.
    """

    def __init__(
        self,
        app: WSGIApplication,
        config: Mapping[str, Any] | None = None,
        environ_key: str = "beaker.session",
        **options: Any,
    ) -> None:
        config = dict(config or {})
        names = [
            given.pop(f"{prefix}webtest_varname", None)
            for given in (options, config)
            for prefix in ("", *PREFIXES)
            if prefix or given is options
        ]
        varname = next(filter(None, names), None)
        super().__init__(_Around(app, environ_key, varname), config, environ_key, **options)


class _Around:
    """Has Paste know the session before the application runs."""

    def __init__(self, app: WSGIApplication, environ_key: str, varname: str | None) -> None:
        self.app = app
        self.environ_key = environ_key
        self.varname = varname

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        session: SessionObject = environ[self.environ_key]
        environ["beaker.get_session"] = partial(_another, session._manager.backend)
        registry = environ.get("paste.registry")
        if beaker_session is not None and registry is not None and registry.reglist:
            registry.register(beaker_session, session)
        variables = environ.get("paste.testing_variables")
        if self.varname is not None and variables is not None:
            variables[self.varname] = session
        return self.app(environ, start_response)


def _another(backend: Backend, id: object = None) -> Session:
    """Return a session apart from the request's: the one with this *id*, or a new one."""
    return Session({}, id, backend=backend)


# -- what an ini file names ----------------------------------------------------------------------


def session_filter_factory(global_conf: Mapping[str, str], /, **local_conf: str) -> Filter:
    """`egg:nocookie#beaker_session`, as a `[filter:...]`."""
    return partial(_with_sessions, "beaker.session", global_conf, local_conf)


def session_filter_app_factory(
    app: WSGIApplication, global_conf: Mapping[str, str], /, **local_conf: str
) -> SessionMiddleware:
    """`egg:nocookie#beaker_session`, as a `[filter-app:...]`. Raises `ConfigError`."""
    return _with_sessions("beaker.session", global_conf, local_conf, app)


def nocookie_filter_factory(global_conf: Mapping[str, str], /, **local_conf: str) -> Filter:
    """`egg:nocookie#session`, as a `[filter:...]`."""
    return partial(_with_sessions, "nocookie.session", global_conf, local_conf)


def nocookie_filter_app_factory(
    app: WSGIApplication, global_conf: Mapping[str, str], /, **local_conf: str
) -> SessionMiddleware:
    """`egg:nocookie#session`, as a `[filter-app:...]`. Raises `ConfigError`."""
    return _with_sessions("nocookie.session", global_conf, local_conf, app)


def _with_sessions(
    environ_key: str,
    global_conf: Mapping[str, str],
    local_conf: Mapping[str, str],
    app: WSGIApplication,
) -> SessionMiddleware:
    """The section itself is ours, and every key in it is checked. `[DEFAULT]` belongs to
    everybody: of that, only keys under our prefixes count, and the section wins."""
    shared = {key: value for key, value in global_conf.items() if is_ours(key)}
    section = dict(local_conf)
    config = {"cache_dir": section.pop("cache_dir", None) or global_conf.get("cache_dir")}
    options = {}
    for name, (written, value) in (by_name(shared) | by_name(section)).items():
        if name == "environ_key":
            environ_key = value
        else:
            options[written] = value
    if not environ_key:
        raise ConfigError("option 'environ_key' must be a text, not ''")
    return SessionMiddleware(app, config, environ_key, **options)
