"""Commands to a memcached server on one connection, in memcached's text protocol.

1. A command ends at its deadline.
2. Nothing is sent twice. Whether a write whose answer was lost took effect, nobody knows.
3. A connection on which a command did not come to its end is closed, and so is one on which there
   is more than an answer: a late answer is never read as the answer to the next command.
4. What is raised is a `StoreError` and carries no data.

Spoken here, because no driver for memcached keeps these promises: docs/decisions has what was
tried. A command is one line out, with or without an item, and what comes back is mostly one piece.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Final

from nocookie.errors import StoreError, StoreTimeout
from nocookie.stores.pool import Places, Pool
from nocookie.stores.timed import TimedSocket

__all__ = ["Connection", "store_error"]

#: How many bytes are received at once, at most. A line is shorter.
PIECE: Final = 65536
#: What comes after an item.
AFTER_ITEM: Final = b"\r\nEND\r\n"

#: The words with which memcached refuses a command; behind them comes a text.
REFUSALS: Final = (b"ERROR", b"CLIENT_ERROR", b"SERVER_ERROR")
#: memcached's words for what can be helped, and how.
ADVICE: Final = {
    b"too large": "the record is larger than an item may be (memcached's option -I)",
    b"out of memory": "it has no memory left, and may not evict (memcached's option -M)",
}


class Connection:
    """The commands. A thread has it for itself."""

    def __init__(
        self, sock: TimedSocket, pool: Pool[Connection], places: Places[Connection]
    ) -> None:
        self.sock = sock
        #: What it belongs to.
        self.pool, self.places = pool, places
        #: Connections are numbered as they are opened.
        self.number = next(_numbers)
        #: False from the beginning of a command until its answer is read to the end.
        self.usable = True

    def gets(self, name: bytes) -> tuple[bytes | None, bytes]:
        """Return the item, and the token for `cas`; without an item, the token is empty."""
        item, token = self._command(self._gets, name)
        if token == b"0":
            raise StoreError("memcached runs without cas (its option -C): sessions need it")
        return item, token

    def cas(self, name: bytes, item: bytes, token: bytes, exptime: int) -> bool:
        """Replace the item, if it is still the one that came with *token*."""
        line = b"cas %b 0 %d %d %b\r\n%b\r\n" % (name, exptime, len(item), token, item)
        return self._done(line, b"STORED\r\n", b"EXISTS\r\n", b"NOT_FOUND\r\n")

    def add(self, name: bytes, item: bytes, exptime: int) -> bool:
        """Store the item, if there is none."""
        line = b"add %b 0 %d %d\r\n%b\r\n" % (name, exptime, len(item), item)
        return self._done(line, b"STORED\r\n", b"NOT_STORED\r\n")

    def put(self, name: bytes, item: bytes, exptime: int, token: bytes = b"") -> bytes:
        """As `cas` with a token, as `add` without; return the token of the item for a later `cas`,
        or an empty one if it was not stored."""
        mode = b"C%b" % token if token else b"ME"
        line = b"ms %b %d T%d %b c\r\n%b\r\n" % (name, len(item), exptime, mode, item)
        stored: bytes = self._command(self._put, line)
        return stored

    def delete(self, name: bytes) -> bool:
        """Return whether there was an item."""
        return self._done(b"delete %b\r\n" % name, b"DELETED\r\n", b"NOT_FOUND\r\n")

    def delete_if(self, name: bytes, token: bytes) -> bool:
        """Delete the item, if it is still the one that came with *token*. This takes no memory,
        which replacing it by one that is over would."""
        return self._done(b"md %b C%b\r\n" % (name, token), b"HD\r\n", b"EX\r\n", b"NF\r\n")

    def close(self) -> None:
        self.sock.close()

    def _done(self, line: bytes, yes: bytes, *no: bytes) -> bool:
        """Send what asks for one line; return whether that is *yes*."""
        done: bool = self._command(self._ask, line, yes, no)
        return done

    def _command(self, speak: Callable[..., Any], *arguments: Any) -> Any:
        self.usable = False
        try:
            answer = speak(*arguments)
        except OSError as error:
            raise store_error(error) from error
        except Exception as error:
            # Not `from error`: its text may be what was received.
            raise store_error(error) from None
        self.usable = True
        return answer

    def _ask(self, line: bytes, yes: bytes, no: tuple[bytes, ...]) -> bool:
        self.sock.sendall(line)
        answer = self.sock.recv(PIECE)
        while b"\r\n" not in answer:
            answer = self._longer(answer)
        if answer == yes:
            return True
        if answer in no:
            return False
        raise _UnexpectedAnswer(answer)

    def _put(self, line: bytes) -> bytes:
        self.sock.sendall(line)
        answer = self.sock.recv(PIECE)
        while b"\r\n" not in answer:
            answer = self._longer(answer)
        line, _, rest = answer.partition(b"\r\n")
        word, _, token = line.partition(b" c")
        if not rest and word == b"HD" and token.isdigit():
            return token
        if not rest and word in (b"NS", b"EX", b"NF"):
            return b""
        raise _UnexpectedAnswer(answer)

    def _gets(self, name: bytes) -> tuple[bytes | None, bytes]:
        self.sock.sendall(b"gets %b\r\n" % name)
        answer = self.sock.recv(PIECE)
        while (line_end := answer.find(b"\r\n")) < 0:
            answer = self._longer(answer)
        if answer == b"END\r\n":
            return None, b""
        words = answer[:line_end].split(b" ")
        if len(words) != 5 or words[0] != b"VALUE" or words[1] != name:
            raise _UnexpectedAnswer(answer[:line_end])
        begin = line_end + 2
        end = begin + int(words[3])
        if len(answer) < end + len(AFTER_ITEM):
            answer = self._whole(answer, end + len(AFTER_ITEM))
        if end < begin or answer[end:] != AFTER_ITEM:
            raise _UnexpectedAnswer
        return answer[begin:end], words[4]

    def _longer(self, line: bytes) -> bytes:
        """Return the beginning of a line with more of it."""
        if len(line) > PIECE:
            raise _UnexpectedAnswer
        return line + self._more()

    def _whole(self, answer: bytes, size: int) -> bytes:
        """Return *answer* with what is missing to *size* bytes."""
        pieces = [answer]
        missing = size - len(answer)
        while missing > 0:
            pieces.append(self._more(missing))
            missing -= len(pieces[-1])
        return b"".join(pieces)

    def _more(self, size: int = PIECE) -> bytes:
        piece = self.sock.recv(size)
        if not piece:
            raise ConnectionResetError
        return piece


class _UnexpectedAnswer(Exception):
    """An answer that refuses, or is none; with it, if it may be a refusal."""


def store_error(error: Exception) -> StoreError:
    """What happened, without data and without the address."""
    if isinstance(error, TimeoutError):
        return StoreTimeout("memcached did not answer in time")
    if isinstance(error, OSError):
        return StoreError(f"memcached failed: {error.strerror or type(error).__name__}")
    said = error.args[0] if error.args and isinstance(error.args[0], bytes) else b""
    for words, advice in ADVICE.items():
        if words in said:
            return StoreError(f"memcached refused: {advice}")
    for word in REFUSALS:
        if said.split(None, 1)[:1] == [word]:
            return StoreError(f"memcached refused: {word.decode()}")
    return StoreError("memcached failed: what came is no answer to what was asked")


_numbers: Final = itertools.count()
