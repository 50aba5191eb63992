"""What a configuration means, and what is not safe about it: `nocookie check`.

An ini file is read, or a dict of options, of Beaker or of this library, and each option is told in
the words of `nocookie.options`. Then the application is made of it as far as that goes without a
store: no connection, no file, no import of a finder. What is left is judged by RULES, a row a
danger.

No sentence shows a secret, nor any value that is not known to be harmless: somebody may have
misspelt the name of a secret.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from nocookie.beaker_options import NEEDLESS, REFUSED, Note, translated
from nocookie.carriers import SCHEMES, Cookie, UrlCarrier, carriers_from
from nocookie.errors import ConfigError
from nocookie.inifile import IniFile
from nocookie.manager import SessionManager
from nocookie.options import (
    OPTIONS,
    agree,
    by_name,
    converted,
    is_ours,
    is_secret,
    known,
    lengthened,
    with_cache_dir,
)
from nocookie.stores import ALIASES, STORES, arguments
from nocookie.strength import SECRETS, fresh_secret, weakness
from nocookie.successor import Successor, successor
from nocookie.tokens import Nowhere

__all__ = [
    *("BEAKER", "DEFAULTS", "KINDS", "RULES"),
    *("Finding", "Line", "Report", "Rule", "check", "check_options"),
]

#: Seconds: NIST 800-63B has people log in again after 30 days, whatever they use it for.
LONGEST: Final = 30 * 86400

#: Seconds: no request that was under way, and no response that got lost, needs more. Else an old
#: id that somebody found is of use for long.
LONGEST_GRACE: Final = 30
#: Bits, by the version of IP: 10.0.0.0/8 and fc00::/7 are the largest networks that are anybody's
#: own (RFC 1918, RFC 4193).
FEWEST_BITS: Final = {4: 8, 6: 7}


class Line(NamedTuple):
    """An option as it is written, and what it means."""

    #: Of the file; None if it is written in `[DEFAULT]`.
    number: int | None
    key: str
    #: As it is written, if it may be shown.
    value: str
    means: str
    #: What Beaker does otherwise; None if nothing, or if this was never Beaker's.
    beaker: str | None = None


#: The kinds of findings, the worst first. `unusable`: no application starts with it. `unsafe`: it
#: starts, and should not. `accepted`: as unsafe, and somebody said that it is meant. `note`: to
#: think about.
KINDS: Final = ("unusable", "unsafe", "accepted", "note")


class Finding(NamedTuple):
    """Something to know about a configuration."""

    kind: str
    #: The name of the rule.
    name: str
    sentence: str
    key: str | None = None
    number: int | None = None


class Report(NamedTuple):
    """One section of the file."""

    section: str
    lines: list[Line]
    findings: list[Finding]
    #: Where these were Beaker's options: what to write instead.
    successor: Successor | None = None

    @property
    def status(self) -> int:
        """As the command ends: 0 is fine, 1 is not safe, 2 is of no use."""
        kinds = {finding.kind for finding in self.findings}
        return 2 if "unusable" in kinds else 1 if "unsafe" in kinds else 0


class Rule(NamedTuple):
    """A danger: what it is called, the option that it is about, whether it is there, and why it is
    one."""

    name: str
    option: str
    applies: Callable[[Mapping[str, Any]], bool]
    sentence: str
    kind: str = "unsafe"


# -- what a rule asks for ------------------------------------------------------------------------


def _store(settings: Mapping[str, Any]) -> str:
    type = settings["type"] or ("file" if settings["data_dir"] else "memory")
    return ALIASES.get(type, type)


def _has_cookie(settings: Mapping[str, Any]) -> bool:
    carriers = settings["find_id"] or ()
    return settings["use_cookies"] or any(isinstance(carrier, Cookie) for carrier in carriers)


def _has_other(settings: Mapping[str, Any]) -> bool:
    """Whether an id travels otherwise than in a cookie, which has a rule of its own."""
    if settings["use_cookies"]:
        return False
    carriers = settings["find_id"]
    return not carriers or not all(isinstance(carrier, Cookie) for carrier in carriers)


def _in_url(settings: Mapping[str, Any]) -> bool:
    return any(getattr(carrier, "in_url", False) for carrier in settings["find_id"] or ())


def _link_first(settings: Mapping[str, Any]) -> bool:
    """Whether an id in a URL counts before one that no link can bring."""
    in_url = [isinstance(carrier, UrlCarrier) for carrier in settings["find_id"] or ()]
    return in_url != sorted(in_url)


def _is_everybody(network: IPv4Network | IPv6Network) -> bool:
    """Whether a network is so large that strangers are in it."""
    return network.prefixlen < FEWEST_BITS[network.version]


def _is_plain(settings: Mapping[str, Any]) -> bool:
    """Whether the store is across a network, and nothing is encrypted on the way."""
    url, store = settings["url"] or "", _store(settings)
    if store == "memcached":
        return not all(_is_here(f"//{server.strip()}") for server in url.split(";"))
    if store == "redis":
        return url.startswith(("redis://", "redis+cluster://")) and not _is_here(url)
    if store == "sqlalchemy":
        return not (_is_here(url) or _TLS.search(url.partition("?")[2]))
    return False


#: What the drivers of databases call it, in the query of a URL.
_TLS: Final = re.compile(r"ssl(?!mode=(disable|allow|prefer))", re.IGNORECASE)


def _is_here(url: str) -> bool:
    """Whether a URL leads to this machine, by a socket or over the loopback."""
    try:
        host = urlsplit(url).hostname
        return host in (None, "localhost") or ip_address(host).is_loopback
    except ValueError:  # it is a name
        return False


RULES: Final = (
    Rule(
        "memory",
        "type",
        lambda settings: _store(settings) == "memory",
        "sessions are in the memory of one process: they end with it, and other processes have "
        "others. Set cache_dir, or a type",
    ),
    Rule(
        "pickle",
        "data_serializer",
        lambda settings: settings["data_serializer"] == "pickle",
        "whoever learns the secret and writes to the store has the server run code. json, the "
        "default, holds plain values; is there need of more?",
    ),
    Rule(
        "secure",
        "secure",
        lambda settings: _has_cookie(settings) and not settings["secure"],
        "the cookie goes over plain HTTP, too, where anybody on the way can read it. Set secure = "
        "true, and serve HTTPS only",
    ),
    Rule(
        "httponly",
        "httponly",
        lambda settings: _has_cookie(settings) and not settings["httponly"],
        "scripts can read the cookie, the injected ones too. Leave httponly = false out",
    ),
    Rule(
        "samesite",
        "samesite",
        lambda settings: _has_cookie(settings) and settings["samesite"] not in ("Lax", "Strict"),
        "browsers send the cookie with requests that other sites make them do. Unless it is for an "
        "embedded page, leave samesite out; if it is, every form needs a token",
    ),
    Rule(
        "timeout",
        "timeout",
        lambda settings: settings["timeout"] is None,
        "a session that nobody uses any more never ends, and a lost id opens it for ever",
    ),
    Rule(
        "lifetime",
        "lifetime",
        lambda settings: settings["lifetime"] is None,
        "a session that is used never ends, and neither does it for who stole its id",
    ),
    Rule(
        "origin",
        "origin",
        lambda settings: _in_url(settings) and settings["origin"] is None,
        "ids go on links of whatever host and scheme a request names. Set origin, with https://",
    ),
    Rule(
        "transport",
        "origin",
        lambda settings: str(settings["origin"]).startswith("http:"),
        "ids travel over plain HTTP, where anybody on the way can read them",
    ),
    Rule(
        "plain_http",
        "require_https",
        lambda settings: _has_other(settings) and not settings["require_https"],
        "ids go over plain HTTP, too, where anybody on the way can read them. Set require_https = "
        "true, and name in trusted_proxies the proxy that ends TLS, if the server does not know it",
    ),
    Rule(
        "proxies",
        "trusted_proxies",
        lambda settings: any(_is_everybody(one) for one in settings["trusted_proxies"]),
        "whoever says that they came by HTTPS is believed. Name the addresses of your proxies",
    ),
    Rule(
        "grace",
        "rotation_grace",
        lambda settings: settings["rotate_every"] and settings["rotation_grace"] > LONGEST_GRACE,
        "for longer than 30 seconds after a rotation the old id is as good as the new one. "
        "Requests that were under way need a few",
    ),
    Rule(
        "leak_guard",
        "leak_guard",
        lambda settings: settings["leak_guard"] == "off",
        "nobody notices an id on its way to another origin or into a public cache",
    ),
    Rule(
        "strict",
        "strict",
        lambda settings: not settings["strict"],
        "whatever id is sent is adopted. Only behind a gateway that issues the ids, and that "
        "nobody gets around",
    ),
    Rule(
        "transport",
        "url",
        _is_plain,
        "what is stored crosses the network as it is, to read and to change. Use TLS (rediss://, "
        "sslmode=require), or a network that is yours alone",
    ),
    Rule(
        "order",
        "find_id",
        _link_first,
        "a link that somebody sends replaces the session of a client that has one in another "
        "carrier: put carriers in URLs last",
    ),
    Rule(
        "beaker_ids",
        "beaker_ids_until",
        lambda settings: settings["beaker_ids_until"] is not None,
        "ids that Beaker issued open what was imported, and who knew one then knows it now. When "
        "the day is over, take it out, and beaker_secret with it",
        "note",
    ),
    Rule(
        "cookie_domain",
        "cookie_domain",
        lambda settings: _has_cookie(settings) and settings["cookie_domain"] is not None,
        "every host below it gets the cookie, and can set one",
        "note",
    ),
    Rule(
        "stateless",
        "type",
        lambda settings: _store(settings) == "cookie",
        "a session that its client keeps cannot be ended by the server before its time",
        "note",
    ),
    Rule(
        "long",
        "lifetime",
        lambda settings: (settings["lifetime"] or 0) > LONGEST,
        "more than 30 days without a login",
        "note",
    ),
    Rule(
        "url",
        "find_id",
        _in_url,
        "addresses are shown, kept, sent on and logged, and ids with them: see what is done about "
        "that in docs/ids-in-urls.md, and what remains",
        "note",
    ),
)

#: What an option did in Beaker, where it was another thing.
BEAKER: Final[Mapping[str, str]] = {
    "use_cookies": "The text False was true, and without cookies every request failed.",
    "type": "dbm is one SQLite database now, as file is. The ext: names mean the stores here; "
    "ext:google and ext:mongodb have no successor.",
    "url": "A cluster is redis+cluster://, and several memcached servers have ; between them.",
    "table_name": "That table has other columns. With type = ext:database, ours is nocookie_ and "
    "this name, and is made; else make it with create_table = true.",
    "data_dir": "There was a file for each session. Here it is one database, in the folder "
    "sessions.",
    "timeout": "Not written, it was for ever. Files and rows were left where they were.",
    "auto": "Every session that was looked at was saved. Here only what changed is.",
    "secret": "It signed the cookie alone. Here it signs every id, and what is stored.",
    "encrypt_key": "It wanted a validate_key; here it wants a secret, and nocookie[crypto].",
    "data_serializer": "The default was pickle. The records of files and databases were pickles "
    "even with json.",
    "key": "The default was beaker.session.id.",
    "cookie_expires": "A number is counted from the last use, and 0 is refused.",
    "httponly": "The default was false.",
    "samesite": "None without secure = true was taken, and browsers dropped the cookie.",
}

#: Options that mean something else than with Beaker when they are not written.
DEFAULTS: Final[Mapping[str, str]] = {
    "timeout": "is not written: sessions end when they lie unused for 1800 seconds, and not never",
    "lifetime": "is not written: sessions end after 43200 seconds, however much they are used",
    "key": "is not written: the cookie is called nocookie.session.id, and not beaker.session.id",
    "httponly": "is not written: no script can read the cookie any more",
    "data_serializer": "is not written: values become json, and not pickle; other objects than "
    "plain values and dates are refused when they are saved",
}

#: Sections of PasteDeploy for nothing but sessions.
_EGG: Final = re.compile(r"egg:(?P<egg>nocookie|beaker)#(beaker_)?session", re.IGNORECASE)
#: Options of Beaker in which no secret is.
_HARMLESS: Final = NEEDLESS.keys() - {"validate_key", "sa_opts"}
#: Where secrets are.
_HIDDEN: Final = {name for name, option in OPTIONS.items() if option.hidden} | {
    *("validate_key", "sa.url", "urls", "sa_opts"),
}
#: Keys in such a section that are not options.
_PASTE: Final = frozenset({"use", "next", "filter-with"})


def check(
    path: Path, section: str | None = None, accept: frozenset[str] = frozenset()
) -> list[Report]:
    """Return what there is to say about *section* of an ini file, or about every one that
    configures sessions. Findings of the rules that *accept* names are not unsafe. Raises
    `ConfigError` if the file cannot be read, or has nothing of the kind in it."""
    file = IniFile(path)
    if section is not None:
        file.check(section)
    names = [section] if section is not None else _sections(file)
    return [_Section(file, name).report(accept) for name in names]


def _sections(file: IniFile) -> list[str]:
    """Those with an option of their own; else what all of them share."""
    names = [
        name
        for name in file.sections
        if _egg(file, name) or any(is_ours(key) and file.has(name, key) for key in file.keys(name))
    ]
    if names:
        return names
    if any(is_ours(key) for key in file.keys("DEFAULT")):
        return ["DEFAULT"]
    names = [name for name in file.sections if file.has(name, "cache_dir")]
    if not names:
        raise ConfigError(f"{file.path} has no section that configures sessions")
    return names


def check_options(
    config: Mapping[str, Any] | None,
    keywords: Mapping[str, Any] | None = None,
    accept: frozenset[str] = frozenset(),
) -> Report:
    """As `check`, of what is given to `SessionMiddleware(app, config, **keywords)`."""
    given = _Mapped(config or {}, keywords or {})
    return _Section(given, "options").report(accept)


class _Source(Protocol):
    """Where options are written, section by section."""

    @property
    def path(self) -> Path | None: ...
    def keys(self, section: str) -> list[str]: ...
    def has(self, section: str, key: str) -> bool: ...
    def line(self, section: str, key: str) -> int | None: ...
    def value(self, section: str, key: str) -> Any: ...


class _Mapped:
    """Options in a program: one section, and no lines."""

    path: Path | None = None

    def __init__(self, config: Mapping[str, Any], keywords: Mapping[str, Any]) -> None:
        shared = {key: config[key] for key in config if key == "cache_dir" or is_ours(key)}
        self._given = {**shared, **keywords}

    def keys(self, section: str) -> list[str]:
        return list(self._given)

    def has(self, section: str, key: str) -> bool:
        return True

    def line(self, section: str, key: str) -> int | None:
        return None

    def value(self, section: str, key: str) -> Any:
        return self._given[key]


def _egg(file: _Source, section: str) -> str | None:
    if "use" not in file.keys(section):
        return None
    match = _EGG.fullmatch(str(file.value(section, "use")))
    return match["egg"].lower() if match else None


class _Section:
    """What is found in a section, as it is found."""

    def __init__(self, file: _Source, name: str) -> None:
        self.file, self.name = file, name
        self.egg = _egg(file, name)
        self.lines: list[Line] = []
        self.findings: list[Finding] = []
        self.written = {key: file.value(name, key) for key in self._keys()}
        #: The options that count: name -> how it is written, and its value.
        self.options = self._options()
        self.was_beakers = self.egg == "beaker" or any(
            not key.startswith("nocookie.") and is_ours(key) for key, _ in self.options.values()
        )
        #: The same as they are written, before what is Beaker's was put into our words.
        self.before = self.options
        self.notes: list[Note] = []
        try:
            self.options, self.notes = translated(self.before)
        except ConfigError as error:
            self._find("unusable", "options", str(error))
        self.settings = {name: option.default for name, option in OPTIONS.items()}

    def _options(self) -> dict[str, tuple[str, Any]]:
        """As the middleware and the eggs for Paste put them together."""
        written = dict(self.written)
        folder = written.pop("cache_dir", "")
        here = {key: value for key, value in written.items() if self.file.has(self.name, key)}
        shared = {key: value for key, value in written.items() if key not in here}
        found = by_name(shared) | by_name(here) if self.egg else by_name(written)
        for key in written:
            (name,) = by_name({key: ""})
            self._compete(key, found[name][0])
        found = with_cache_dir(found, folder)
        if folder and "data_dir" in found:
            self._compete("cache_dir", found["data_dir"][0])
        if self.egg:
            for name in ("environ_key", "webtest_varname"):
                found.pop(name, None)
        return found

    def _compete(self, key: str, winner: str) -> None:
        if key != winner:
            self._tell(key, f"Does not count: {winner} wins.")

    def _keys(self) -> Iterator[str]:
        in_code = isinstance(self.file, _Mapped)
        for key in self.file.keys(self.name):
            own = self.egg and self.file.has(self.name, key) and key not in _PASTE
            own = own and not key.startswith(("set ", "get "))
            if in_code or is_ours(key) or key == "cache_dir" or own:
                yield key

    def _number(self, key: str) -> int | None:
        return self.file.line(self.name, key)

    def _tell(self, key: str, means: str, beaker: str | None = None) -> None:
        """Say once what a key means, with its value unless that may be a secret: of an option of
        ours that is none, or of one of Beaker's that is not needed."""
        if any(line.key == key for line in self.lines):
            return
        (name,) = by_name({key: ""})
        name = "data_dir" if key == "cache_dir" else name
        value = self.written[key]
        is_harmless = name in _HARMLESS or (name in OPTIONS and not is_secret(name, value))
        value = str(value) if is_harmless else "(not shown)"
        self.lines.append(Line(self._number(key), key, value, means, beaker))

    def _find(self, kind: str, name: str, sentence: str, key: str | None = None) -> None:
        number = self._number(key) if key is not None else None
        self.findings.append(Finding(kind, name, sentence, key, number))

    def report(self, accept: frozenset[str]) -> Report:
        for name in self.options:
            self._read(name)
        for note in self.notes:
            self._tell(note.key, f"{note.sentence.capitalize()}.")
        said = list(lengthened(self.settings, self.options))
        for note in said:
            self._find("note", note.name, str(note))
        # What is no option at all can be left out; with a wrong value the rest is another thing.
        if all(finding.name == "option" for finding in self.findings if finding.kind != "note"):
            self._make()
        self._judge()
        self._compare({note.name for note in said})
        self.lines.sort(key=lambda line: line.number or 0)
        findings = [
            finding._replace(kind="accepted")
            if finding.kind == "unsafe" and finding.name in accept
            else finding
            for finding in self.findings
        ]
        findings.sort(key=lambda finding: KINDS.index(finding.kind))
        return Report(self.name, self.lines, findings, self._successor())

    def _read(self, name: str) -> None:
        """Tell what an option means, and take its value."""
        key, value = self.options[name]
        try:
            option = OPTIONS[known(name, key)]
        except ConfigError as error:
            self._tell(key, _instead(name))
            self._find("unusable", "option", str(error), key)
            return
        means = option.doc.replace("`", "")
        if key == "cache_dir":
            means = f"Gives data_dir. {means}"
        elif key in self.written and name not in by_name({key: ""}):
            means = f"Means {name}. {means}"
        beaker = BEAKER.get(name) if self.was_beakers and not key.startswith("nocookie.") else None
        self._tell(key, means, beaker)
        try:
            value = converted(name, _unimported(value) if name == "on_event" else value)
            self.settings[name] = _carriers(value) if name == "find_id" else value
        except ConfigError as error:
            self._find("unusable", name, str(error), key)

    def _make(self) -> None:
        """Make what the application would make of the options, but for the store."""
        settings = self.settings
        # Nothing is to be said twice: the manager warns of these in the log.
        said: dict[str, Any] = {name: fresh_secret() for name in SECRETS if settings[name]}
        if settings["beaker_ids_until"]:
            said["beaker_ids_until"] = datetime.max.replace(tzinfo=UTC)
        store = _store(settings)
        try:
            agree(settings)
            type = store if store == "cookie" else Nowhere()
            SessionManager(None, **{**settings, **said, "type": type})
            if store != "cookie":
                cls, chosen = arguments(store, settings)
                if store in STORES:  # none of ours does anything before it is asked for a record
                    cls(**chosen).close()
        except ConfigError as error:
            self._find("unusable", "options", str(error))

    def _judge(self) -> None:
        """Say what is not safe."""
        for rule in RULES:
            if rule.applies(self.settings):
                key, _ = self.options.get(rule.option, (None, ""))
                self._find(rule.kind, rule.name, rule.sentence, key)
        for name in (*SECRETS, "validate_key"):
            key, value = self.before.get(name, (None, None))
            for secret in _secrets_in(value):
                why = weakness(secret)
                if why is not None:
                    self._find("unsafe", "secret", f"it can be guessed: {why}", key)
        self._judge_file()

    def _judge_file(self) -> None:
        if self.file.path is None:
            return
        hidden = [key for name, (key, _) in self.before.items() if name in _HIDDEN]
        mode = os.stat(self.file.path).st_mode
        if hidden and os.name == "posix" and mode & (stat.S_IROTH | stat.S_IWOTH):
            self._find(
                "unsafe",
                "readable",
                f"{self.file.path.name} is for everybody on this machine to read, and has "
                f"{', '.join(hidden)} in it: chmod o-rwx",
            )

    def _compare(self, said: Collection[str]) -> None:
        """Say what else is not as it was with Beaker, but for what was *said* already."""
        if not self.was_beakers:
            return
        if self.egg == "beaker":
            self._find("note", "egg", "write egg:nocookie#beaker_session for egg:Beaker#...", "use")
        for name, sentence in DEFAULTS.items():
            is_of_cookies = name in ("key", "httponly")
            if name in self.options or name in said:
                continue
            if not is_of_cookies or _has_cookie(self.settings):
                self._find("note", name, f"{name} {sentence}")

    def _successor(self) -> Successor | None:
        if not self.was_beakers or any(finding.kind == "unusable" for finding in self.findings):
            return None
        return successor(self.name, self.before, self.options, self.settings, self.file.path)


def _instead(name: str) -> str:
    return f"Not taken: {REFUSED[name]}." if name in REFUSED else "Not an option."


def _carriers(text: Any) -> Any:
    """Return the carriers that are meant, but for a finder of the application's: that would have
    to be imported."""
    if not isinstance(text, str):
        return text
    parts = [part.strip() for part in text.split(",")]
    return [
        carrier
        for part in parts
        for carrier in carriers_from(_finder if _is_finder(part) else part)
    ]


def _unimported(value: Any) -> Any:
    """Return none for callbacks that would have to be imported, and what is wrong as it is."""
    if not isinstance(value, str):
        return value
    return "" if all(":" in part for part in value.split(",")) else value


def _secrets_in(value: Any) -> Iterator[str]:
    texts = value.splitlines() if isinstance(value, str) else value
    if isinstance(texts, (list, tuple)):
        yield from filter(None, (str(text).strip() for text in texts))


def _is_finder(text: str) -> bool:
    scheme, _, name = text.partition(":")
    return scheme.lower() not in SCHEMES and name.isidentifier()


def _finder(request: Any) -> None:
    """Stands for the finder of an application."""
