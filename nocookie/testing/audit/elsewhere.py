"""URLs that lead away from an origin, as a browser reads them, and who tells them apart.

Written beside `nocookie.rewriting` and not with it: a rig that judged links by the code under test
would agree with its mistakes. What is followed is the WHATWG's URL standard, as far as it decides
the origin.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote, urlsplit

__all__ = ["leads_elsewhere", "ways_elsewhere"]

#: The schemes whose URLs browsers read with either slash, and with as many as one likes.
_SPECIAL: Final = {"http": "80", "https": "443", "ws": "80", "wss": "443", "ftp": "21"}

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)
_TO_STRIP: Final = "".join(map(chr, range(0x21)))


def leads_elsewhere(url: str, page: str) -> bool:
    """Whether *url*, on the page with the absolute URL *page*, leads to another origin, or to
    something that is no page at all. What cannot be read leads elsewhere."""
    url = url.strip(_TO_STRIP).translate({9: None, 10: None, 13: None})
    here = urlsplit(page)
    scheme, rest = here.scheme.lower(), url
    named = _SCHEME.fullmatch(url)
    if named is not None:
        scheme, rest = named[1].lower(), named[2]
        if scheme not in _SPECIAL:
            return True
    rest = rest.replace("\\", "/")
    if not rest.startswith("//") and (named is None or scheme == here.scheme.lower()):
        return False
    authority = re.split(r"[/?#]", rest.lstrip("/"), maxsplit=1)[0]
    ours = _host_and_port(here.netloc, here.scheme.lower())
    return (scheme, _host_and_port(authority, scheme)) != (here.scheme.lower(), ours)


def _host_and_port(authority: str, scheme: str) -> tuple[str, str]:
    host, colon, port = authority.rpartition("@")[2].partition(":")
    host = unicodedata.normalize("NFKC", unquote(host)).lower()
    return host, port.lstrip("0") if colon and port else _SPECIAL.get(scheme, "")


def ways_elsewhere(page: str) -> Iterator[str]:
    """Yield URLs that lead away from the page with the absolute URL *page*: what attackers write
    so that a check believes otherwise."""
    here = urlsplit(page)
    origin, host = f"{here.scheme}://{here.netloc}", here.netloc
    other = "elsewhere.example"
    tls = "http" if here.scheme == "https" else "https"
    yield from (f"http://{other}/", f"https://{other}", f"HTTP://{other.upper()}/", f"//{other}/")
    yield from (f"///{other}/", f"////{other}/", rf"\\{other}/", rf"/\{other}/", rf"\/{other}/")
    yield from (f"{tls}:{other}/", f"{tls}:/{other}/", rf"{tls}:\{other}/", f"{tls}:///{other}/")
    yield from (f"\t//{other}/", f"/\t/{other}/", f"\n//{other}/", f"/\r/{other}/", f" //{other}/")
    yield from (f"ht\ttp://{other}/", f"\x00//{other}/", f"\x1f//{other}/", f"http:\\\\{other}\\")
    yield from (f"{here.scheme}://{host}@{other}/", f"{here.scheme}://{host}:x@{other}/")
    yield from (f"//{host}@{other}/", f"{here.scheme}://{other}\\@{host}/")
    yield from (f"{here.scheme}://{other}#{host}", f"{here.scheme}://{other}?{host}")
    yield from (f"{here.scheme}://{other}/{origin}/", f"//{other}/{host}", f"//{other}?{origin}")
    yield from (f"{here.scheme}://{here.hostname}.{other}/", f"//{other}.{here.hostname}/")
    yield from (f"{here.scheme}://{here.hostname}:1/", f"//{here.hostname}:1/")
    yield from (
        f"{tls}://{host}/",
        f"{tls.upper()}://{host}/get",
        f"ftp://{host}/",
        f"ws://{host}/",
    )
    yield from ("//b\u00fccher.example/", "http://xn--bcher-kva.example/", "//\uff45vil.example/")
    yield from ("//elsewhere%2eexample/", "//elsewhere\u3002example/", "//[2001:db8::1]/")
    yield from (
        "javascript:void(0)",
        "JavaScript:void(0)",
        "java\nscript:void(0)",
        "data:text/html,",
    )
    yield from ("mailto:ada@elsewhere.example", "tel:1", "blob:" + origin, "file:///etc/passwd")
    yield from (
        "view-source:" + origin,
        "about:blank",
        "vbscript:x",
        "intent://x",
        "custom+x.y-z:1",
    )
