"""What a response should do after a logout."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["Farewell"]

#: What a browser may still hold of the visitor (W3C, Clear Site Data). Not "cookies": those of
#: every other application on the site would go too, and ours goes by itself.
CLEAR_SITE_DATA: Final = '"cache", "storage"'


class Farewell(NamedTuple):
    """The advice of `session.logout()`: send these headers, and send the client to this URL.

    ::

        farewell = session.logout("/bye")
        start_response("303 See Other", farewell.headers)
    """

    #: A URL without an id: the page asked for, or the front page below the mount.
    location: str

    @property
    def headers(self) -> list[tuple[str, str]]:
        """`Location`; `Clear-Site-Data`, which has a browser forget what pages stored, an id that
        a script kept among it; `Cache-Control: no-store`."""
        return [
            ("Location", self.location),
            ("Clear-Site-Data", CLEAR_SITE_DATA),
            ("Cache-Control", "no-store"),
        ]
