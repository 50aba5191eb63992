"""What 26 applications in the wild have configured Beaker with, and what each line must mean here.

Secrets and hosts are replaced, and folders that were somebody's own. A line is the key, the value
and what comes of it: the options that it gives; NEEDLESS, if it is taken and changes nothing; or
ANOTHERS, if it is no option of sessions.
"""

from datetime import timedelta
from typing import Any, NamedTuple

NEEDLESS = "needless"
ANOTHERS = "another's"

SECRET = "a secret of 32 characters or more."
SECRETS = (SECRET,)
KEYED = {"secret": SECRETS}
DAY = 86400


class Line(NamedTuple):
    key: str
    value: Any
    means: Any


class Configuration(NamedTuple):
    name: str
    #: An ini file has these lines, or a dict in a program.
    is_ini: bool
    lines: list[Line]
    #: What follows from all of them together.
    together: dict[str, Any] = {}


def ini(name, /, together=None, **lines):
    """Keys are below `beaker.session.`, unless they are written whole."""
    return _configuration(name, True, "beaker.session.", together, lines)


def program(name, /, together=None, prefix="session.", **lines):
    return _configuration(name, False, prefix, together, lines)


def _configuration(name, is_ini, prefix, together, lines):
    whole = [
        Line(key if key.startswith(("beaker.", "cache_dir")) else prefix + key, value, means)
        for key, (value, means) in lines.items()
    ]
    return Configuration(name, is_ini, whole, together or {})


def key(name):
    return {"key": (name, {"key": name})}


def signed(means=KEYED):
    return {"secret": (SECRET, means)}


def validated(means=NEEDLESS):
    return {"validate_key": (SECRET, means)}


def encrypted():
    return {"encrypt_key": (SECRET, {"encrypt_key": SECRETS})}


def lasts(seconds):
    """A timeout, before which no lifetime may end a session."""
    is_long = seconds > DAY / 2
    times = {"timeout": float(seconds), "lifetime": float(seconds if is_long else DAY / 2)}
    return {"timeout": (str(seconds), times)}


def flag(name, value, means):
    return {name: (value, {name: means})}


def folder(written="data", means=None):
    return {"data_dir": (written, {"data_dir": means or written})}


MONTH = lasts(30 * DAY)
CACHE_DIR = {"cache_dir": ("%(here)s/data", {"data_dir": "{here}/data"})}
CACHE = {"beaker.cache.data_dir": ("%(here)s/data/cache/data", ANOTHERS)}
FILE = {"type": ("file", {"type": "file"})}
COOKIE = {"type": ("cookie", {"type": "cookie"})}
LOCKS = {"lock_dir": ("data", NEEDLESS)}
MEMCACHED = {"type": ("ext:memcached", {"type": "ext:memcached"})}
REDIS = {"type": ("ext:redis", {"type": "ext:redis"})}
#: Beaker makes its table by itself, and so ours is made.
DATABASE = {"type": ("ext:database", {"type": "ext:database", "create_table": True})}
TABLE = {"table_name": ("db_session", {"table_name": "nocookie_db_session"})}
HTTPONLY = flag("httponly", "true", True)
INSECURE = flag("secure", "false", False)


def url(written):
    return {"url": (written, {"url": written})}


def database(name):
    written = f"postgresql://user:password@db.example/{name}"
    return {"sa.url": (written, {"url": written})}


def expires(value, means):
    return {"cookie_expires": (value, {"cookie_expires": means})}


CONFIGURATIONS = [
    ini(
        "rhodecode, template",
        **CACHE_DIR,
        **key("rhodecode"),
        **signed(),
        **MONTH,
        **HTTPONLY,
        **INSECURE,
        **flag("auto", "False", False),
        **CACHE,
        **{"beaker.cache.regions": ("short_term", ANOTHERS)},
    ),
    ini(
        "rhodecode, cluster",
        **DATABASE,
        **TABLE,
        **database("rhodecode"),
        **{"sa.pool_recycle": ("3600", NEEDLESS), "sa.echo": ("false", NEEDLESS)},
        **signed(),
    ),
    ini(
        "rhodecode, memcached",
        **MEMCACHED,
        **url("localhost:11211"),
        **key("rhodecode"),
        **signed(),
        **MONTH,
    ),
    ini(
        "rhodecode, redis",
        **REDIS,
        **url("redis://127.0.0.1:6379/2"),
        **key("http_app"),
        **signed(),
        **LOCKS,
        **MONTH,
        **HTTPONLY,
        **INSECURE,
    ),
    ini(
        "wuttaweb",
        **FILE,
        **folder("%(here)s/cache/sessions/data", "{here}/cache/sessions/data"),
        lock_dir=("%(here)s/cache/sessions/lock", NEEDLESS),
        **signed(),
        **key("wutta"),
    ),
    ini("kallithea", **CACHE_DIR, **key("kallithea"), **HTTPONLY, **MONTH, **signed(), **CACHE),
    ini(
        "kallithea, database",
        **key("kallithea"),
        **HTTPONLY,
        **MONTH,
        **signed(),
        **DATABASE,
        **database("kallithea"),
        **TABLE,
    ),
    ini("ckan, tests of hdx", **key("ckan"), **validated(), **signed()),
    ini("ckan, older hdx", **key("ckan"), **signed()),
    ini(
        "ckan, with redis",
        **key("ckan_session"),
        **signed(),
        data_serializer=("json", {"data_serializer": "json"}),
        **HTTPONLY,
        **flag("secure", "true", True),
        **lasts(3600),
        save_accessed_time=("true", NEEDLESS),
        **REDIS,
        **url("redis://127.0.0.1:6379"),
        **expires("true", True),
        cookie_domain=("127.0.0.1", {"cookie_domain": "127.0.0.1"}),
    ),
    ini(
        "ckan, trentino",
        cache_dir=("data", {"data_dir": "data"}),
        **key("ckan"),
        **signed(),
    ),
    ini(
        "ckan, as 2.10 advises",
        **COOKIE,
        data_serializer=("json", {"data_serializer": "json"}),
        **validated(KEYED),
        **flag("httponly", "True", True),
        **flag("secure", "True", True),
        samesite=("Lax", {"samesite": "Lax"}),
    ),
    ini("allura", **CACHE_DIR, **key("allura"), **COOKIE, **signed(), **validated()),
    *(
        ini(name, {"type": None, "data_dir": None, "use_cookies": True})
        for name in ("tracim, files", "tracim, redis", "pyramid, a page of its documentation")
    ),
    ini(
        "a login for several sites, three servers of memcached",
        **key("sso"),
        **signed(),
        **MEMCACHED,
        **url("127.0.0.1:11211;127.0.0.1:11211;127.0.0.1:11211"),
        **lasts(10800),
    ),
    ini("a server of one's own", {"type": None, "data_dir": None, "use_cookies": True}),
    program(
        "sirepo",
        **flag("auto", True, True),
        **expires(False, False),
        **FILE,
        **folder(),
        **LOCKS,
    ),
    program(
        "cork, cookie",
        **expires(True, True),
        **encrypted(),
        **flag("httponly", True, True),
        **lasts(DAY),
        **COOKIE,
        validate_key=(True, "refused"),
    ),
    program(
        "bottle, memcached, encrypted",
        **MEMCACHED,
        **url("localhost:11211"),
        **expires(True, True),
        **flag("auto", True, True),
        lock_dir=("lock", NEEDLESS),
        **encrypted(),
        **validated(KEYED),
    ),
    program(
        "openmining",
        **FILE,
        **folder(),
        **LOCKS,
        **expires(50000, timedelta(seconds=50000)),
        **flag("auto", True, True),
    ),
    program(
        "pyload",
        **FILE,
        **expires(False, False),
        **folder("./tmp"),
        **flag("auto", False, False),
    ),
    program(
        "vezilka",
        prefix="beaker.session.",
        **FILE,
        **expires(300, timedelta(seconds=300)),
        **folder(),
    ),
    program(
        "ayame",
        prefix="beaker.session.",
        **FILE,
        **folder(),
        **LOCKS,
        **expires("31 days, 0:00:00", timedelta(days=31)),
        key=(None, NEEDLESS),
        **signed(),
    ),
    program("austalk", **expires(False, False)),
]

#: Its `validate_key` is the word True, which Beaker takes for a text: anybody can forge a session.
CANNOT_START = {"cork, cookie"}
