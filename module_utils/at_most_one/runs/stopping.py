"""Say what becomes of a run that stops: what it had reached, whether it went back, what stays and what to do.

The first error stays first; each of these phrases follows it on a line of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..findings import Phrase, handed_over, joined, of_answer, reason, say
from ..verdicts import word

Answer = Mapping[str, Any]  # what a module has returned; empty where it was not called


def changed(removed: int, built: bool, hosts: Mapping[str, tuple[Answer, Answer]]) -> Phrase:
    """What a run had changed by its own account: another one that has taken it over reads the rest.

    ``removed`` counts rows, ``built`` is whether it has applied the migration; of each host there is what release_link
    and pm2_app have answered.
    """
    parts: list[str] = [
        say("{rows} rows removed", rows=removed),
        say("indexes built") if built else say("indexes not built"),
    ]
    for name, (link, reload) in hosts.items():
        moved = say("link moved") if link.get("changed") else say("link not moved")
        parts.append(joined([name, moved], ": "))
        if reload.get("changed"):
            reloaded = reload.get("instances") or ()
            parts += [say("instance {pm_id} reloaded", pm_id=instance["pm_id"]) for instance in reloaded]
        parts += _begun(reload.get("details") or {})
    return joined(parts, ", ")


def _begun(details: Answer) -> Sequence[str]:
    """What a reload that failed had changed until then, as the host hands it over."""
    if details.get("changed_words"):
        return [handed_over(details["changed_words"])]
    return details.get("changed") or ()


def later_run(failed: Answer) -> str:
    """The later run that a refusal names: by the journal, or by the number on a host; empty where it names none."""
    details = failed.get("details") or {}
    return str(details.get("taken_over_by") or details.get("overtaken_by") or "")


def unsettled(failed: Answer, changed_words: str) -> Phrase:
    """The journal could not be written. A run that was taken over has nothing to take back any more."""
    if later_run(failed):
        return say(
            "{error} Nothing was taken back. This run had changed before: {changed}.",
            error=reason(failed),
            changed=changed_words,
        )
    return say("The journal stays open: {error}", error=reason(failed))


def went_back(way: Answer, done: Answer) -> Phrase:
    """The run has taken itself back: ``way`` is of rollback_plan, ``done`` of database_rollback."""
    return say(
        "Rolled back automatically: {application}, {database}",
        application=of_answer(way, "sentence"),
        database=of_answer(done, "sentence"),
    )


def fence_stays(failed: Answer) -> Phrase:
    """The write fence could not be lowered."""
    return say("The write fence stays up: {error}", error=reason(failed))


def back_failed(
    error: str, later: str, phase: str, planned: int, reached: Answer, stays: Answer | None, paths: Sequence[Answer]
) -> Phrase:
    """The way back has failed. ``stays`` is what is still there, None where it could not be read.

    ``paths`` is what stat says of the application's path, by host (``item``).
    """
    return say(
        "The way back failed: {error} Reached: {reached}. Stays: {stays}. Next: {following}",
        error=error,
        reached=say(
            "{rows} rows removed, {built} of {planned} indexes built, {migration}, phase {phase} begun",
            rows=reached["content"]["pending"],
            built=len(reached["built"]),
            planned=planned,
            migration=_migration(reached),
            phase=word(phase),
        ),
        stays=joined([_stays(stays), *_leading(paths)], ", "),
        following=(
            say(
                "leave it as it is, because the later run goes on from it: "
                "ansible-playbook history.yml -l <environment>"
            )
            if later
            else say("repair that, then ansible-playbook rollback.yml -l <environment>")
        ),
    )


def _stays(stays: Answer | None) -> Phrase:
    if not stays:
        return say("a database that could not be read")
    return say(
        "{rows} rows in the archive, {built} of the planned indexes, {migration}",
        rows=stays["content"]["pending"],
        built=len(stays["built"]),
        migration=_migration(stays),
    )


def _migration(reached: Answer) -> Phrase:
    return say("migration applied") if reached["applied"] else say("migration not applied")


def _leading(paths: Sequence[Answer]) -> Iterator[Phrase]:
    """Where the paths lead. Whether anything serves from there nobody has asked: PM2 may be what has failed."""
    for path in paths:
        stat = path.get("stat")
        seen = say("unknown") if stat is None else stat.get("lnk_source") or say("no link")
        yield say("the path of {host}: {release}", host=path["item"], release=seen)
