"""Say what becomes of a run that stops: what it had reached, whether it went back, what stays and what to do.

The first error stays first; each of these follows it on a line of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Answer = Mapping[str, Any]  # what a module has returned; empty where it was not called


def changed(removed: int, built: bool, hosts: Mapping[str, tuple[Answer, Answer]]) -> str:
    """What a run had changed by its own account: another one that has taken it over reads the rest.

    ``removed`` counts rows, ``built`` is whether it has applied the migration; of each host there is what release_link
    and pm2_app have answered.
    """
    parts = [f"{removed} rows removed", f"indexes {'built' if built else 'not built'}"]
    for name, (link, reload) in hosts.items():
        parts.append(f"{name}: link {'moved' if link.get('changed') else 'not moved'}")
        if reload.get("changed"):
            parts += [f"instance {instance['pm_id']} reloaded" for instance in reload.get("instances") or ()]
        parts += (reload.get("details") or {}).get("changed") or ()
    return ", ".join(parts)


def later_run(failed: Answer) -> str:
    """The later run that a refusal names: by the journal, or by the number on a host; empty where it names none."""
    details = failed.get("details") or {}
    return str(details.get("taken_over_by") or details.get("overtaken_by") or "")


def unsettled(failed: Answer, changed_words: str) -> str:
    """The journal could not be written. A run that was taken over has nothing to take back any more."""
    if later_run(failed):
        return f"{failed.get('msg')} Nothing was taken back. This run had changed before: {changed_words}."
    return f"The journal stays open: {failed.get('msg', 'no reason given')}"


def went_back(way: Answer, done: Answer) -> str:
    """The run has taken itself back: ``way`` is of rollback_plan, ``done`` of database_rollback."""
    return f"Rolled back automatically: {way['sentence']}, {done['sentence']}"


def back_failed(
    error: str, later: str, phase: str, planned: int, reached: Answer, stays: Answer | None, paths: Sequence[Answer]
) -> str:
    """The way back has failed. ``stays`` is what is still there, None where it could not be read.

    ``paths`` is what stat says of the application's path, by host (``item``).
    """
    if later:
        following = (
            "leave it as it is, because the later run goes on from it: ansible-playbook history.yml -l <environment>"
        )
    else:
        following = "repair that, then ansible-playbook rollback.yml -l <environment>"
    now = [_rows_and_indexes(stays, "in the archive", "of the planned indexes") if stays else _UNKNOWN, *_served(paths)]
    return (
        f"The way back failed: {error}"
        f" Reached: {_rows_and_indexes(reached, 'removed', f'of {planned} indexes built')}, phase {phase} begun."
        f" Stays: {', '.join(now)}. Next: {following}"
    )


_UNKNOWN = "a database that could not be read"


def _rows_and_indexes(reached: Answer, rows: str, indexes: str) -> str:
    applied = "applied" if reached["applied"] else "not applied"
    return f"{reached['content']['pending']} rows {rows}, {len(reached['built'])} {indexes}, migration {applied}"


def _served(paths: Sequence[Answer]) -> Iterator[str]:
    for path in paths:
        stat = path.get("stat")
        seen = "unknown" if stat is None else stat.get("lnk_source", "what it did")
        yield f"{path['item']} serves {seen}"
