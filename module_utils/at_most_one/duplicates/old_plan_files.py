"""The clean-up plans that runs have left on the control node: which of them are past their time, and still ours.

A check has no run in the journal, and its plan holds the same keys and columns as a run's: it goes by the time in its
directory's name.
"""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import OperatorError
from ..system import recorded_files
from ..system.recorded_files import RecordedFile
from .plan_file import Digest, RowsFile

NAME = "cleanup_plan.json"
_RUN_ID = re.compile(r"[0-9A-Za-z][\w-]*", re.ASCII)
_CHECK = re.compile(r"(\d{8}T\d{6}Z)-check")


def of_runs(directory: Path, plan_id: str, run_ids: Iterable[str], keep_days: int) -> list[RecordedFile]:
    """The clean-up plans below ``directory`` of these runs, and those of the plan's checks that are older than
    ``keep_days``; 0 keeps those of all checks."""
    names = [name for name in run_ids if _RUN_ID.fullmatch(name)]
    names += _old_checks(directory, plan_id, keep_days) if keep_days else []
    found = (
        recorded_files.examine(name, directory / name / NAME, lambda path: _is_as_written(path, plan_id))
        for name in names
    )
    return [one for one in found if one]


def _old_checks(directory: Path, plan_id: str, keep_days: int) -> Iterator[str]:
    for path in sorted(directory.glob(f"*-check/{NAME}")):
        named = _CHECK.fullmatch(path.parent.name)
        if named and _age_days(named[1]) >= keep_days and _plan_of(path) in (plan_id, None):
            yield path.parent.name


def _age_days(stamp: str) -> float:
    """How old the check is; 0 for digits that no time has, as in a directory that somebody else has made."""
    try:
        began = calendar.timegm(time.strptime(stamp, "%Y%m%dT%H%M%SZ"))
    except ValueError:
        return 0.0
    return (time.time() - began) / 86_400


def _plan_of(path: Path) -> str | None:
    """The plan that the file names; None where it cannot be read as one."""
    try:
        return str(RowsFile(str(path)).header()["plan"]["id"])
    except (OperatorError, OSError, KeyError, TypeError):
        return None


def _is_as_written(path: Path, plan_id: str) -> bool:
    """Whether the file is that run's plan, with the rows that its own digest names."""
    file, digest = RowsFile(str(path)), Digest()
    try:
        header = file.header()
        for row in file.rows():
            digest.add(row)
        named = (header["run_id"], header["plan"]["id"], header["digest"])
    except (OperatorError, KeyError, TypeError):
        return False
    return named == (path.parent.name, plan_id, digest.hexdigest())
