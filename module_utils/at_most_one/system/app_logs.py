"""The application's own log files: how long they are now, and the lines in them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence

from .redaction import redact

_TERMINAL_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_TAIL_BYTES = 256 * 1024
_LINE_SHOWN = 300
_ROTATION = r"(?:\.1|-\d{8}(?:-\d+)?|__\d[\d_-]*)"  # of logrotate, without and with dateext, and of pm2-logrotate


def without_colour(text: str) -> str:
    """``text`` without terminal colours."""
    return _TERMINAL_COLOUR.sub("", text)


def log_sizes(paths: Iterable[str]) -> dict[str, int]:
    """The length of each log in bytes; 0 for one that does not exist yet."""
    return {path: os.path.getsize(path) if os.path.exists(path) else 0 for path in dict.fromkeys(paths) if path}


def log_tail(path: str, offset: int, lines: int) -> list[str]:
    """The last ``lines`` lines written after ``offset`` (bytes), without secrets; none when the log cannot be read."""
    try:
        size = os.path.getsize(path)
        begin = offset if offset <= size else 0  # a log shorter than its offset was rotated
        written = [line for _offset, line in lines_from(path, max(begin, size - _TAIL_BYTES))]
    except OSError:
        return []
    return last_lines(written, lines)


def last_lines(written: Iterable[str], lines: int) -> list[str]:
    """The last ``lines`` of them that say something, without secrets and each of a length that can be shown."""
    kept = [line for line in written if line.strip()][-lines:]
    return [line[:_LINE_SHOWN] for line in redact("\n".join(kept)).splitlines()]


def rotated_file(path: str, least: int, at: float) -> str | None:
    """The file that a log has become that was ``least`` bytes long at a Unix time; None unless just one can be it."""
    directory, name = os.path.split(path)
    stem, ending = os.path.splitext(name)
    named = re.compile(f"{re.escape(stem)}{_ROTATION}{re.escape(ending)}|{re.escape(name)}{_ROTATION}")
    found = []
    for entry in os.scandir(directory or "."):
        if named.fullmatch(entry.name) and entry.is_file():
            seen = entry.stat()
            if seen.st_size == least or (seen.st_size > least and seen.st_mtime >= at):
                found.append(entry.path)
    return found[0] if len(found) == 1 else None


def telling(lines: Sequence[str]) -> str:
    """The line to show when there is room for one: the last that names an error, or the last. There must be one."""
    errors = [line for line in lines if "Error" in line and not line.lstrip().startswith("at ")]
    return (errors or list(lines))[-1].strip()


def lines_from(path: str, begin: int) -> Iterator[tuple[int, str]]:
    """Each line from the offset ``begin`` on, without terminal colours, and the offset at which it begins."""
    with open(path, "rb") as log:
        offset = log.seek(begin)
        for line in log:
            yield offset, without_colour(line.decode("utf-8", "replace").rstrip("\r\n"))
            offset += len(line)
