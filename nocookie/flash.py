"""Messages for the page that is shown next, as Pylons' `flash`: kept until they are shown.

Each message has a session key of its own, because two requests that change different keys lose
nothing: what is said while another page is being shown is not said in vain. A message goes out
of the session when the response that shows it is committed. A request that fails has shown
nothing, and the message stays.
"""

from __future__ import annotations

import html
import secrets
from collections.abc import Iterable
from typing import Final, NamedTuple

from nocookie.local import session

__all__ = ["Message", "flash", "pop_messages"]

#: What the session keys of messages begin with. Then come the number, by which messages are in
#: their order, and what tells apart two that got one number at once.
PREFIX: Final = "_flash."


class Message(NamedTuple):
    """What one call of `flash` said. As text it is the message; in a template that escapes, and
    knows `__html__`, it is the message escaped."""

    category: str
    message: str

    def __str__(self) -> str:
        return self.message

    def __html__(self) -> str:
        return html.escape(self.message)


def flash(message: object, category: str = "notice") -> None:
    """Have *message* shown by the next page that asks for messages, after a redirect too.

    The message is kept as text. It saves the session, with all that this request changes in it.
    Raises as `session.save`.
    """
    last = max(map(_number, _keys()), default=-1)
    session[f"{PREFIX}{last + 1:06}.{secrets.token_hex(4)}"] = [category, str(message)]
    session.save()


def pop_messages(category: str | None = None) -> list[Message]:
    """Return what is to be shown now, the oldest first, and let go of it; with *category*, that
    of this category alone. If there is anything, it saves the session, as `flash` does."""
    shown = []
    for key in sorted(_keys(), key=lambda key: (_number(key), key)):
        message = Message(*session[key])
        if category in (None, message.category):
            del session[key]
            shown.append(message)
    if shown:
        session.save()
    return shown


def _keys() -> list[str]:
    names = [name for name in _names_in_session() if name.startswith(PREFIX)]
    # Where one cannot be read the session is new, and there are no messages.
    return names if all(name in session for name in names) else []


def _number(key: str) -> int:
    return int(key.removeprefix(PREFIX).partition(".")[0])


def _names_in_session() -> Iterable[str]:
    """The keys of the session. To iterate over it would decode every value of the application's,
    on every page that only looks whether there is a message."""
    session.has_key(PREFIX)  # loads it, and reads no value
    real = session._get_current_obj()._session()
    assert real._values is not None
    return real._fields.keys() | real._values.keys()
