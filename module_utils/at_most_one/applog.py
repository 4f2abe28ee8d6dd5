"""The application's own log files: how long they are now, and what was written to them since."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .redaction import redact

_TERMINAL_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_TAIL_BYTES = 256 * 1024
_LINE_SHOWN = 300
_LINES_SHOWN = 10


@dataclass
class Scan:
    """What one log says since an offset. ``shown`` are the first lines with errors, without secrets."""

    path: str
    errors: int = 0
    warnings: int = 0
    shown: list[str] = field(default_factory=list)


def without_colour(text: str) -> str:
    """``text`` without terminal colours."""
    return _TERMINAL_COLOUR.sub("", text)


def log_sizes(paths: Iterable[str]) -> dict[str, int]:
    """The length of each log in bytes; 0 for one that does not exist yet."""
    return {path: os.path.getsize(path) if os.path.exists(path) else 0 for path in dict.fromkeys(paths) if path}


def log_tail(path: str, offset: int, lines: int) -> list[str]:
    """The last ``lines`` lines written after ``offset`` (bytes), without secrets; none when the log cannot be read."""
    try:
        written = list(_written(path, offset, _TAIL_BYTES))
    except OSError:
        return []
    kept = [line for line in written if line.strip()][-lines:]
    return [line[:_LINE_SHOWN] for line in redact("\n".join(kept)).splitlines()]


def scan_log(path: str, offset: int, errors: str, warnings: str) -> Scan:
    """Count the lines written after ``offset`` that match the regular expressions. Raises OSError when unreadable.

    A log that did not exist at the offset 0 and still does not has no lines.
    """
    found, is_error, is_warning = Scan(path), re.compile(errors), re.compile(warnings)
    if offset == 0 and not os.path.exists(path):
        return found
    for line in _written(path, offset, None):
        if is_error.search(line):
            found.errors += 1
            if len(found.shown) < _LINES_SHOWN:
                found.shown.append(redact(line)[:_LINE_SHOWN])
        elif is_warning.search(line):
            found.warnings += 1
    return found


def _written(path: str, offset: int, most_bytes: int | None) -> Iterator[str]:
    """The lines after ``offset``, or the last ``most_bytes`` of them. A log shorter than its offset was rotated."""
    with open(path, "rb") as log:
        size = log.seek(0, os.SEEK_END)
        begin = offset if offset <= size else 0
        log.seek(begin if most_bytes is None else max(begin, size - most_bytes))
        for line in log:
            yield without_colour(line.decode("utf-8", "replace").rstrip("\r\n"))
