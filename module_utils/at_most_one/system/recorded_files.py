"""Files that a run has left, removed later: only where they still are the run's own.

A path in a journal is no proof of what is there today. A file goes only when it is a regular file of this account, when
nobody else could have put it there, and when its caller says that its content is what was recorded.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RecordedFile:
    """A file of a run. ``why`` it stays is empty where it goes, or has gone."""

    run_id: str
    path: str
    bytes: int
    age_days: float
    why: str  # not_a_file, owner, writable, changed

    def public(self) -> dict[str, Any]:
        """As a module returns it."""
        return {**asdict(self), "age_days": round(self.age_days, 1)}


def examine(run_id: str, path: Path, is_as_recorded: Callable[[Path], bool]) -> RecordedFile | None:
    """What is at ``path`` and whether it may go; ``None`` when nothing is there."""
    try:
        seen = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    age_days = (time.time() - seen.st_mtime) / 86_400
    return RecordedFile(run_id, str(path), seen.st_size, age_days, _foreign(path, seen, is_as_recorded))


def _foreign(path: Path, seen: os.stat_result, is_as_recorded: Callable[[Path], bool]) -> str:
    if not stat.S_ISREG(seen.st_mode):
        return "not_a_file"
    if seen.st_uid != os.geteuid():
        return "owner"
    if _others_write(seen) or _others_write(path.parent.stat()):
        return "writable"
    return "" if is_as_recorded(path) else "changed"


def _others_write(seen: os.stat_result) -> bool:
    """Whether another account than the owner may have written it. The owner's group may read."""
    return bool(seen.st_mode & (stat.S_IWGRP | stat.S_IWOTH)) or seen.st_uid not in (0, os.geteuid())


def remove(found: RecordedFile) -> None:
    """Remove a file that may go. One that is gone already is no error."""
    if not found.why:
        Path(found.path).unlink(missing_ok=True)
