"""What the monitor keeps from one run to the next: what people know to be wrong, and one line for each run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import OperatorError
from ..findings import Finding, observed, say
from .findings import Change, Facts


def known(path: Path) -> dict[str, str]:
    """What people know to be wrong, since when. Raises OperatorError for a file that says nothing of the kind."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): str(since) for key, since in known.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as failure:
        raise OperatorError(
            observed("AMO-5114", "{path} is no state of the monitor; every finding counts as new.", path=path),
            expected=say("a JSON object of names and times."),
            next_step=say("nothing: it is written anew once people have been told."),
        ) from failure


def history(path: Path) -> list[dict[str, Any]]:
    """One entry for each run, oldest first."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    entries = []
    for line in lines:
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue  # a line that a full disk has cut
    return [entry for entry in entries if isinstance(entry, dict)]


def unkept(path: Path, failure: OSError) -> Finding:
    """A file of the monitor's own that could not be read or written."""
    return Finding(
        f"file:{path.name}",
        observed(
            "AMO-5120",
            "The monitor could not keep {path}: {reason}.",
            path=path,
            reason=failure.strerror or type(failure).__name__,
        ),
        say("a file that this account may write to, on a disk with free space."),
        say("free some space on that disk, or give the file to this account; the monitor has done the rest."),
    )


def entry(facts: Facts, change: Change, at: str) -> dict[str, Any]:
    """What is kept of this run."""
    database = facts["database"]
    return {
        "at": at,
        "duplicates": (database.get("verified") or {}).get("duplicates_left"),
        "findings": sorted(change.since),
        "indexes": {
            one["name"]: {"scans": one["scans"], "bytes": one["bytes"]}
            for one in (database.get("use") or {}).get("indexes") or []
        },
    }


def as_lines(entries: Sequence[dict[str, Any]]) -> str:
    """The history as it is written."""
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in entries)
