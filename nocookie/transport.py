"""Whether a request came by HTTPS, where the answer matters.

The server knows how the last hop came. If that was a proxy which ends TLS, the proxy knows; what it
says is believed only if its address is one that the operator trusts, because a client can send
the same headers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["is_loopback", "is_secure"]

Networks = Sequence[IPv4Network | IPv6Network]

#: The parameter of RFC 7239, section 5.4.
_PROTO: Final = re.compile(
    r'(?:^|;)\s*proto\s*=\s*"?([A-Za-z][A-Za-z0-9+.-]*)"?\s*(?:;|$)', re.IGNORECASE
)


def is_secure(environ: WSGIEnvironment, proxies: Networks = ()) -> bool:
    """Whether the client came by HTTPS, to us or to the first of our trusted proxies."""
    if environ.get("wsgi.url_scheme") == "https":
        return True
    if not proxies or not _is_in(environ.get("REMOTE_ADDR", ""), proxies):
        return False
    # The last element is what the proxy nearest to us said; those before it, anybody may have.
    forwarded = environ.get("HTTP_FORWARDED", "").rpartition(",")[2]
    said = _PROTO.search(forwarded)
    if said is not None:
        return said[1].lower() == "https"
    proto: str = environ.get("HTTP_X_FORWARDED_PROTO", "").rpartition(",")[2]
    return proto.strip().lower() == "https"


def is_loopback(environ: WSGIEnvironment) -> bool:
    """Whether the request came from this host: from a developer, or a proxy beside us."""
    # By the text: a Unix socket has no address, nor has a test.
    address: str = environ.get("REMOTE_ADDR", "")
    return not address or address.startswith("127.") or address == "::1"


def _is_in(address: str, networks: Networks) -> bool:
    try:
        there = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(there, "ipv4_mapped", None)
    return any(one in network for one in (there, mapped) if one for network in networks)
