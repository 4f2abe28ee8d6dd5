"""Rows to and from the server by COPY: both sides work at the same time, and neither holds the rows.

In COPY's text format tabs stand between the fields, and a backslash before what is special.
https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TextIO, cast

import psycopg2
import psycopg2.extensions
from psycopg2 import sql

Cursor = psycopg2.extensions.cursor

_BLOCK = 1 << 16  # characters that go to the server at once
_LINES = 1_000  # made or understood at once
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_LETTERS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}  # the others stand for themselves


def write(cursor: Cursor, table: sql.Composable, rows: Iterable[Sequence[str]]) -> None:
    """Stream ``rows``, none of whose fields is NULL, into ``table``. What ``rows`` raises comes out as it was."""
    stream = _Outgoing(map(_line, rows))
    try:
        cursor.copy_expert(sql.SQL("COPY {} FROM STDIN").format(table), cast(TextIO, stream), size=_BLOCK)
    except psycopg2.Error as failure:
        raise stream.failure or failure from failure


def read(cursor: Cursor, query: sql.Composable, take: Callable[[Iterator[list[str]]], object]) -> None:
    """Hand the rows of ``query`` to ``take``, a block of them at a time, each as its fields, none of which is NULL."""
    text = cursor.mogrify(query, ()).decode()  # COPY has no parameters; this turns doubled percent signs back
    stream = _Incoming(take)
    cursor.copy_expert(f"COPY ({text}) TO STDOUT", cast(TextIO, stream))
    stream.hand_over()


def _line(row: Sequence[str]) -> str:
    line = "\t".join(row)
    if "\\" in line or "\n" in line or "\r" in line or line.count("\t") >= len(row):
        line = "\t".join([field.translate(_ESCAPES) for field in row])
    return line + "\n"


def _plain(field: str) -> str:
    return re.sub(r"\\(.)", lambda found: _LETTERS.get(found[1], found[1]), field)


class _Outgoing(io.TextIOBase):
    """Lines as the file that COPY wants. psycopg2 tells only the text of an error in read: ``failure`` is the error."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._rest = ""
        self.failure: Exception | None = None

    def read(self, size: int | None = -1) -> str:
        wanted = _BLOCK if size is None or size < 0 else size
        try:
            while len(self._rest) < wanted and (block := "".join(itertools.islice(self._lines, _LINES))):
                self._rest += block
        except Exception as failure:
            self.failure = failure
            raise
        text, self._rest = self._rest[:wanted], self._rest[wanted:]
        return text


class _Incoming(io.TextIOBase):
    """The file that COPY fills, today by one line at a time, which nothing promises."""

    def __init__(self, take: Callable[[Iterator[list[str]]], object]) -> None:
        self._take = take
        self._texts: list[str] = []

    def write(self, text: str) -> int:
        self._texts.append(text)
        if len(self._texts) >= _LINES:
            self.hand_over()
        return len(text)

    def hand_over(self) -> None:
        block = "".join(self._texts)
        end = block.rfind("\n") + 1
        self._texts = [block[end:]]
        rows = (line.split("\t") for line in block[:end].split("\n")[:-1])
        self._take(([_plain(field) for field in row] for row in rows) if "\\" in block else rows)
