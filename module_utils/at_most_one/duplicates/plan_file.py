"""The clean-up plan as a file: written and read as a stream, because it may name millions of rows.

It is JSON with one row per line in its last key, ``rows``: its primary key, and the hash of its content behind it.
Reading takes any JSON object with ``rows`` and ``digest``, whatever its order of keys and its white space, and holds
one row at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ..errors import OperatorError

_encode = json.JSONEncoder(ensure_ascii=False).encode
_quote = json.encoder.encode_basestring  # what _encode calls for a text, without its preparations
_decode = json.JSONDecoder().raw_decode
_SPACE = " \t\r\n"
_CHUNK = 1 << 16  # characters
_LONGEST_VALUE = 1 << 26  # characters; a plan's groups need far less


class Digest:
    """Names one exact set of rows, in whatever order they come, without holding them.

    The SHA-256 hashes of the rows are added up modulo 2**256; the sum is hashed again together with their number.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum = 0

    def add(self, row: Sequence[str]) -> str:
        """Take one row in. Returns the line that was hashed: the row as JSON."""
        line = f"[{', '.join(map(_quote, row))}]"
        self._sum += int.from_bytes(hashlib.sha256(line.encode()).digest(), "big")
        self.count += 1
        return line

    def hexdigest(self) -> str:
        """64 hexadecimal digits."""
        total = (self._sum % (1 << 256)).to_bytes(32, "big")
        return hashlib.sha256(b"%d rows " % self.count + total).hexdigest()


def digest(rows: Iterable[Sequence[str]]) -> str:
    """The :class:`Digest` of these rows."""
    made = Digest()
    for row in rows:
        made.add(row)
    return made.hexdigest()


def write(path: str, fill: Callable[[Callable[[str], None]], Mapping[str, Any]]) -> None:
    """Write the document: ``fill`` hands its rows over, each as a Digest's line, and returns the other keys.

    The rows wait in a file beside the document until the other keys are known. The document appears at ``path`` whole
    or not at all, readable by its owner and group.
    """
    directory = Path(path).parent
    with contextlib.ExitStack() as stack:
        waiting = stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", dir=directory))
        number, name = tempfile.mkstemp(dir=directory, prefix=f".{Path(path).name}.")
        stack.callback(lambda: Path(name).unlink(missing_ok=True))
        document = stack.enter_context(open(number, "w", encoding="utf-8"))
        separator = "\n"

        def hand_over(line: str) -> None:
            nonlocal separator
            waiting.write(separator + line)
            separator = ",\n"

        keys = fill(hand_over)
        document.write("{\n")
        for key, value in keys.items():
            document.write(f"{_encode(key)}: {json.dumps(value, ensure_ascii=False, indent=1)},\n")
        document.write('"rows": [')
        waiting.seek(0)
        while chunk := waiting.read(_CHUNK):
            document.write(chunk)
        document.write("\n]\n}\n")
        document.flush()
        os.fsync(document.fileno())
        os.fchmod(document.fileno(), 0o640)
        os.replace(name, path)


class RowsFile:
    """A clean-up plan to read from. Raises OperatorError with file and position for what is no such document."""

    def __init__(self, path: str) -> None:
        self.path = path

    def digest(self) -> str:
        """The document's ``digest``; read by itself, since it may stand before or after the rows."""
        for key, value in self._walk(rows=False):
            if key == "digest":
                if not isinstance(value, str):
                    raise self._fault(f"its digest is {_kind(value)}", 0)
                return value
        raise self._fault('it has no key "digest"', 0)

    def rows(self) -> Iterator[list[str]]:
        """The rows, one at a time, in the document's order. Numbers become text; anything else is a fault."""
        found = False
        for key, value in self._walk(rows=True):
            if key == "rows":
                found = True
                if value is not None:
                    yield value
        if not found:
            raise self._fault('it has no key "rows"', 0)

    def _walk(self, *, rows: bool) -> Iterator[tuple[str, Any]]:
        """Every key with its value; with ``rows``, those of that key one by one, after a None; without, they are read
        over. Other values are held only one at a time."""
        with open(self.path, encoding="utf-8", newline="") as stream:
            text = _Text(stream, self._fault)
            text.expect("{", "an object")
            more = not text.take("}")
            while more:
                key = text.string()
                text.expect(":", 'a ":"')
                if key == "rows":
                    yield key, None
                    for row in text.elements():
                        if rows:
                            yield key, self._row(row, text.position())
                else:
                    yield key, text.value()
                more = text.next_or("}")
            text.end()

    def _row(self, value: Any, position: int) -> list[str]:
        if isinstance(value, list) and value:
            row = [part if isinstance(part, str) else str(part) for part in value if _is_key_part(part)]
            if len(row) == len(value):
                return row
        raise self._fault(f"a row is {_kind(value)}", position)

    def _fault(self, seen: str, position: int) -> OperatorError:
        return OperatorError(
            f"{self.path} is no clean-up plan: {seen}, at character {position}.",
            expected='a JSON object with "digest" and with "rows", a list of rows, each a list of texts.',
            next_step="give the cleanup_plan.json of a --check run as it was written, or make a new one.",
            path=self.path,
            position=position,
        )


def _is_key_part(part: Any) -> bool:
    return isinstance(part, (str, int)) and not isinstance(part, bool)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {dict: "an object", list: "a list that is no primary key", str: "a text", bool: "true or false"}
    return names.get(type(value), "a number")


class _Text:
    """A window over the stream: what was read is dropped as soon as it is understood."""

    def __init__(self, stream: IO[str], fault: Callable[[str, int], OperatorError]) -> None:
        self._stream, self._fault = stream, fault
        self._window, self._at, self._dropped = "", 0, 0

    def position(self) -> int:
        return self._dropped + self._at

    def _grow(self) -> bool:
        """Read on; the window at least doubles, so that one long value is not parsed over and over."""
        kept = self._window[self._at :]
        if len(kept) > _LONGEST_VALUE:
            raise self._fault(f"{self._seen()} begins a value that does not end", self.position())
        try:
            more = self._stream.read(max(_CHUNK, len(kept)))
        except UnicodeDecodeError as broken:
            raise self._fault(f"it is not UTF-8 ({broken.reason})", self.position()) from broken
        self._dropped += self._at
        self._window, self._at = kept + more, 0
        return bool(more)

    def _peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            window, at = self._window, self._at
            while at < len(window) and window[at] in _SPACE:
                at += 1
            self._at = at
            if at < len(window):
                return window[at]
            if not self._grow():
                return ""

    def take(self, wanted: str) -> bool:
        if self._peek() != wanted:
            return False
        self._at += 1
        return True

    def expect(self, wanted: str, called: str) -> None:
        if not self.take(wanted):
            raise self._fault(f"{self._seen()} stands where {called} should", self.position())

    def _seen(self) -> str:
        return repr(self._peek()) if self._peek() else "the end"

    def string(self) -> str:
        if self._peek() != '"':
            raise self._fault(f"{self._seen()} stands where a key should", self.position())
        value = self.value()
        assert isinstance(value, str)  # noqa: S101  (it began with a quotation mark)
        return value

    def value(self) -> Any:
        """One whole JSON value."""
        self._peek()
        while True:
            try:
                value, end = _decode(self._window, self._at)
            except (ValueError, RecursionError) as broken:
                if not self._grow():
                    raise self._fault(f"{self._seen()} begins no whole JSON value", self.position()) from broken
                continue
            # A number at the window's end may go on behind it.
            if end == len(self._window) and self._grow():
                continue
            self._at = min(end, len(self._window))
            return value

    def elements(self) -> Iterator[Any]:
        self.expect("[", "a list of rows")
        more = not self.take("]")
        while more:
            yield from self._many()
            yield self.value()
            more = self.next_or("]")

    def _many(self) -> list[Any]:
        """The elements that can be parsed at once: those up to the last ``],`` of the window, if that is JSON.

        A cut inside a text, a nested list or behind the list's end leaves no JSON; then they come one by one.
        """
        cut = self._window.rfind("],", self._at)
        if cut < 0:
            return []
        try:
            found: list[Any] = json.loads(f"[{self._window[self._at : cut + 1]}]")
        except (ValueError, RecursionError):
            return []
        self._at = cut + 2
        return found

    def next_or(self, end: str) -> bool:
        """Whether a comma comes and so one more; False when ``end`` does."""
        if self.take(","):
            return True
        self.expect(end, f'a "," or "{end}"')
        return False

    def end(self) -> None:
        if self._peek():
            raise self._fault(f"{self._seen()} stands behind its end", self.position())
