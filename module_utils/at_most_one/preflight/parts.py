"""Which phases and parts take part in a run: decided once, from app_adapter and migrate_adapter, for every role.

``pm2`` serves an application, ``none`` is the database alone. ``prisma`` keeps the migration in Prisma's history,
``sql`` needs no Node.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..findings import Finding, observed, say

ADAPTERS = {"app_adapter": ("pm2", "none"), "migrate_adapter": ("prisma", "sql")}  # the first is the default
OF_APPLICATION = ("pm2_reload", "healthcheck")  # phases that have nothing to do without one
# What an inventory or -e may say that decides, or does not go with a decision.
SETTINGS = (*ADAPTERS, "migrate_strategy", "watch_minutes", "rollback_commit", "prepare_backup_keep")
_OF_PRISMA, _OF_SQL = "prisma", "locked"  # the strategies that only one of the adapters has


@dataclass(frozen=True)
class Parts:
    """What takes part."""

    application: bool = True  # its release, its processes and what it answers
    prisma: bool = True  # its command line and its history

    @property
    def left_out(self) -> tuple[str, ...]:
        """The phases of a deployment that have nothing to do."""
        return () if self.application else OF_APPLICATION


def decide(settings: Mapping[str, Any]) -> Parts:
    """What takes part by the ``settings``, of which :func:`findings` has found none wrong."""
    return Parts(_of(settings, "app_adapter") == "pm2", _of(settings, "migrate_adapter") == "prisma")


def findings(settings: Mapping[str, Any], playbook: str, phases: Sequence[str], command: str) -> Iterator[Finding]:
    """What is unknown, and what does not go together. ``phases``: those that the tags ask for."""
    unknown = [name for name, known in ADAPTERS.items() if _of(settings, name) not in known]
    for name in unknown:
        yield Finding(
            "adapter",
            observed("AMO-2360", "{name} is {value}.", name=name, value=settings[name]),
            say("{first} or {second}.", first=ADAPTERS[name][0], second=ADAPTERS[name][1]),
            say("correct it in the inventory, then {command}", command=command),
        )
    if unknown:
        return
    parts, strategy = decide(settings), str(settings.get("migrate_strategy") or "")
    own, foreign = (_OF_PRISMA, _OF_SQL) if parts.prisma else (_OF_SQL, _OF_PRISMA)
    if strategy == foreign:
        yield Finding(
            "strategy",
            observed(
                "AMO-2361",
                "migrate_strategy is {strategy} and migrate_adapter is {adapter}.",
                strategy=strategy,
                adapter=_of(settings, "migrate_adapter"),
            ),
            say("{own}, concurrent or auto with that adapter.", own=own),
            say("correct it in the inventory, then {command}", command=command),
        )
    if not parts.application:
        yield from _without_application(settings, parts, playbook, phases, command)


def _without_application(
    settings: Mapping[str, Any], parts: Parts, playbook: str, phases: Sequence[str], command: str
) -> Iterator[Finding]:
    if parts.prisma:
        yield Finding(
            "adapter",
            observed(
                "AMO-2362",
                "app_adapter is none and migrate_adapter is prisma: Prisma runs in a release, and without an"
                " application there is none.",
            ),
            say("migrate_adapter: sql, which builds the planned indexes without Node."),
            say("set it in the inventory, or: {command} -e migrate_adapter=sql", command=command),
        )
    watches = playbook == "watch.yml" or float(settings.get("watch_minutes") or 0) > 0
    if watches or settings.get("rollback_commit"):
        yield Finding(
            "adapter",
            observed(
                "AMO-2363",
                "app_adapter is none, and {what} is about an application.",
                what="watch" if watches else "rollback_commit",
            ),
            say("nothing that asks an application or goes to a release of it."),
            say(
                "leave it out; ansible-playbook monitor.yml -l <environment> reads how the rule stands in the database."
            ),
        )
    if phases and not set(phases) - set(OF_APPLICATION):
        yield Finding(
            "phase",
            observed(
                "AMO-2364",
                "{phases}: not part of this run, because app_adapter is none, and nothing else is asked for.",
                phases=", ".join(phases),
            ),
            say("a phase that has something to do: prepare, cleanup, migrate or verify."),
            say("name one of those with --tags, or leave --tags out."),
        )


def _of(settings: Mapping[str, Any], name: str) -> str:
    return str(settings.get(name) or ADAPTERS[name][0])
