"""The clean-up plan as a file: written and read as a stream, because it may name millions of rows.

It is JSON, laid out in lines: a header of some keys, then the line ``"rows": [`` and one row per line: its primary key,
and the hash of its content behind it. Reading goes by these lines and holds one row at a time.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import OperatorError
from ..findings import observed, say
from ..system import files

_encode = json.JSONEncoder(ensure_ascii=False).encode
_quote = json.encoder.encode_basestring  # what _encode calls for a text, without its preparations
_decode = json.JSONDecoder().raw_decode  # what json.loads calls, without its preparations
_ROWS = '"rows": ['
_LONGEST_LINE = 1 << 20  # characters; a key that an index can hold needs far less
_LONGEST_HEADER = 1 << 26  # characters; so do a plan's groups


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
    """Write the document: ``fill`` hands its rows over, each as a Digest's line, and returns the header's keys.

    The rows wait in a file beside the document until the header is known. The document appears at ``path`` whole or not
    at all, readable by its owner and group.
    """
    with tempfile.TemporaryFile(dir=Path(path).parent) as waiting, files.replacing(path, 0o640) as document:
        separator = "\n"

        def hand_over(line: str) -> None:
            nonlocal separator
            waiting.write(f"{separator}{line}".encode())
            separator = ",\n"

        keys = fill(hand_over)
        lines = [f"{_encode(key)}: {json.dumps(value, ensure_ascii=False, indent=1)},\n" for key, value in keys.items()]
        document.write(f"{{\n{''.join(lines)}{_ROWS}".encode())
        waiting.seek(0)
        shutil.copyfileobj(waiting, document)
        document.write(b"\n]\n}\n")


class RowsFile:
    """A clean-up plan to read from. Raises OperatorError with file and line for what is not laid out as one."""

    def __init__(self, path: str) -> None:
        self.path = path

    def digest(self) -> str:
        """The header's ``digest``."""
        found = self.header().get("digest")
        if not isinstance(found, str):
            raise self._fault(say("its header has no digest"), 1)
        return found

    def header(self) -> dict[str, Any]:
        """The keys before the rows."""
        return self._header(self._lines())

    def rows(self) -> Iterator[list[str]]:
        """The rows, one at a time, in the document's order. Numbers become text; anything else is a fault."""
        lines = self._lines()
        self._header(lines)
        number = 0
        for number, line in lines:
            if line == "]":
                break
            yield self._row(line, number)
        if [line for _, line in itertools.islice(lines, 2)] != ["}"]:
            raise self._fault(say("it does not end behind its rows"), number)

    def _lines(self) -> Iterator[tuple[int, str]]:
        """Each line with its number, without white space behind it. An indented one belongs to the header."""
        number = 1
        with open(self.path, encoding="utf-8") as file:
            try:
                while line := file.readline(_LONGEST_LINE):
                    if len(line) == _LONGEST_LINE:
                        raise self._fault(say("a line does not end"), number)
                    yield number, line.rstrip()
                    number += 1
            except UnicodeDecodeError as broken:
                raise self._fault(say("it is not UTF-8 ({reason})", reason=broken.reason), number) from broken

    def _header(self, lines: Iterator[tuple[int, str]]) -> dict[str, Any]:
        """The keys before the rows; ``lines`` go on with the first row."""
        number, size, header = 0, 0, []
        for number, line in lines:
            if line == _ROWS:
                break
            header.append(line)
            size += len(line)
            if size > _LONGEST_HEADER:
                raise self._fault(say("its header does not end"), number)
        else:
            raise self._fault(say("it has no line {rows}", rows=_ROWS), number)
        try:
            found = json.loads("".join(header).removesuffix(",") + "}")
        except (ValueError, RecursionError) as broken:
            raise self._fault(say("its header is no JSON"), number) from broken
        return found if isinstance(found, dict) else {}

    def _row(self, line: str, number: int) -> list[str]:
        try:
            value, end = _decode(line)
        except (ValueError, RecursionError) as broken:
            raise self._fault(say("a row is no JSON"), number) from broken
        if line[end:] not in ("", ","):
            raise self._fault(say("a row is no JSON"), number)
        if isinstance(value, list) and value and set(map(type, value)) <= {str, int}:
            return list(map(str, value))
        raise self._fault(say("a row is no list of texts"), number)

    def _fault(self, seen: str, line: int) -> OperatorError:
        return OperatorError(
            observed(
                "AMO-3205", "{path} is no clean-up plan: {seen}, at line {line}.", path=self.path, seen=seen, line=line
            ),
            expected=say('JSON in lines as --check writes it: a header with "digest", then "rows", one row per line.'),
            next_step=say("give the cleanup_plan.json of a --check run as it was written, or make a new one."),
            path=self.path,
            line=line,
        )
