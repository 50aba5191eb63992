"""Character references of HTML in text, as browsers read them."""

from __future__ import annotations

import html
import re
from typing import Final

__all__ = ["unescaped"]

_decimal: Final = re.compile(r"&#([0-9]{8,}+)")
#: Beyond Unicode: what it stands for is U+FFFD, as for any greater number.
_TOO_GREAT: Final = "1114112"


def unescaped(text: str) -> str:
    """As `html.unescape`, which raises ValueError for a reference of more digits than `int` takes.
    Whoever writes a page, or a part of one, may write that."""
    return html.unescape(_decimal.sub(_shortened, text))


def _shortened(found: re.Match[str]) -> str:
    digits = found[1].lstrip("0") or "0"
    return f"&#{digits if len(digits) < 8 else _TOO_GREAT}"
