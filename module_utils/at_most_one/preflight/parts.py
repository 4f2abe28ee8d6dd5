"""Which phases and parts take part in a run: decided once, from app_adapter and migrate_adapter, for every role.

``pm2`` and ``systemd`` serve an application of releases that are built here, ``command`` one whose version its own
commands change, ``none`` is the database alone. ``prisma`` keeps the migration in Prisma's history, ``sql`` needs no
Node, ``command`` has another tool's history kept by commands of that tool.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..findings import Finding, joined, observed, say
from ..service.version import is_version

# The first is the default.
ADAPTERS = {"app_adapter": ("pm2", "systemd", "none", "command"), "migrate_adapter": ("prisma", "sql", "command")}
OF_APPLICATION = ("pm2_reload", "healthcheck")  # phases that have nothing to do without one
# What an inventory or -e may say that decides, or does not go with a decision.
SETTINGS = (
    *(*ADAPTERS, "app_commands", "app_units", "app_version", "app_commit", "migrate_strategy", "migrate_history"),
    *("watch_minutes", "rollback_commit", "prepare_backup_keep", "database_name"),
)
_OF_HISTORY = ("status", "applied", "not_applied", "path")  # what migrate_history must have
_OF_COMMANDS = ("status", "apply", "back", "path")  # what app_commands must have
_UNIT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9:_.@\\-]*[A-Za-z0-9:_.\\-])?\.service")  # no option, pattern or template
_DEPLOYS = ("deploy.yml", "rehearse.yml")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_OF_PRISMA, _OF_SQL = "prisma", "locked"  # the strategies that only one of the adapters has


@dataclass(frozen=True)
class Parts:
    """What takes part."""

    application: bool = True  # its release, its processes and what it answers
    prisma: bool = True  # its command line and its history
    tool: bool = False  # another tool's history, kept by its commands
    commands: bool = False  # in the place of the first: what an application answers, whose version its commands change
    systemd: bool = False  # its processes are units of systemd, and not instances of PM2

    @property
    def left_out(self) -> tuple[str, ...]:
        """The phases of a deployment that have nothing to do."""
        return () if self.application or self.commands else OF_APPLICATION


def decide(settings: Mapping[str, Any]) -> Parts:
    """What takes part by the ``settings``, of which :func:`findings` has found none wrong."""
    serves, migrates = _of(settings, "app_adapter"), _of(settings, "migrate_adapter")
    return Parts(
        application=serves in ("pm2", "systemd"),
        prisma=migrates == "prisma",
        tool=migrates == "command",
        commands=serves == "command",
        systemd=serves == "systemd",
    )


def findings(
    settings: Mapping[str, Any], playbook: str, phases: Sequence[str], command: str, *, tenants: bool = False
) -> Iterator[Finding]:
    """What is unknown, and what does not go together. ``phases``: those that the tags ask for.

    ``tenants``: the command is about tenants of a plan.
    """
    unknown = [name for name, known in ADAPTERS.items() if _of(settings, name) not in known]
    for name in unknown:
        yield Finding(
            "adapter",
            observed("AMO-2360", "{name} is {value}.", name=name, value=settings[name]),
            say("one of {known}.", known=", ".join(ADAPTERS[name])),
            say("correct it in the inventory, then {command}", command=command),
        )
    if unknown:
        return
    parts, strategy = decide(settings), str(settings.get("migrate_strategy") or "")
    if tenants and parts.prisma:
        yield Finding(
            "adapter",
            observed(
                "AMO-2380",
                "migrate_adapter is prisma, and the plan has tenants: Prisma applies a migration once, to one schema.",
            ),
            say("migrate_adapter: sql, or command where another tool keeps a history of each tenant."),
            say("set it in the inventory, or: {command} -e migrate_adapter=sql", command=command),
        )
        return
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
    if parts.application and (commit := settings.get("app_commit")) and not _COMMIT.fullmatch(str(commit)):
        # The release of it would have that name: a tag that moves would never be built again, and no rollback find it.
        yield Finding(
            "commit",
            observed("AMO-2371", "app_commit is {commit}.", commit=commit),
            say("one commit by all of its 40 digits, in small letters; no tag, no branch, no beginning of one."),
            say(
                "git rev-parse {commit} in a checkout of the application prints them; then the same command with "
                "-e app_commit=<commit>. A branch is named by app_branch.",
                commit=commit,
            ),
        )
    if parts.tool:
        yield from _history(settings, command, tenants)
    if parts.prisma and not parts.application:
        yield Finding(
            "adapter",
            observed(
                "AMO-2362",
                "app_adapter is {adapter} and migrate_adapter is prisma: Prisma runs in a release that is built here,"
                " and with {adapter} there is none.",
                adapter=_of(settings, "app_adapter"),
            ),
            say("migrate_adapter: sql, which builds the planned indexes without Node."),
            say("set it in the inventory, or: {command} -e migrate_adapter=sql", command=command),
        )
    if parts.commands:
        yield from _commands(settings, playbook, command)
    elif parts.systemd:
        yield from _units(settings, playbook, command)
    elif not parts.application:
        yield from _without_application(settings, playbook, phases)


def _history(settings: Mapping[str, Any], command: str, tenants: bool) -> Iterator[Finding]:
    given = settings.get("migrate_history")
    given = given if isinstance(given, Mapping) else {}
    missing = [name for name in _OF_HISTORY if not given.get(name)]
    # What names one migration alone would be asked about the next plan's as well.
    fixed = [name for name in ("status", "applied") if name not in missing and "{migration}" not in str(given[name])]
    if missing or fixed:
        yield Finding(
            "history",
            observed(
                "AMO-2365",
                "migrate_adapter is command, and migrate_history lacks {missing}.",
                missing=", ".join([*missing, *("{migration} in " + name for name in fixed)]),
            ),
            say(
                "{needed}; the first two name the plan's migration as {migration}.",
                needed=", ".join(_OF_HISTORY),
                migration="{migration}",
            ),
            say("complete it in the inventory as docs/adapters.md shows, then {command}", command=command),
        )
        return
    # What names no schema would be asked about the history of the same tenant for each of them.
    everywhere = str(given.get("environment") or "")
    same = [name for name in _OF_HISTORY[:3] if "{schema}" not in f"{given[name]}{everywhere}"]
    if tenants and same:
        yield Finding(
            "history",
            observed(
                "AMO-2381",
                "The plan has tenants, and {same} of migrate_history names no schema.",
                same=", ".join(same),
            ),
            say("{schema} in each of the three, or in a value of its environment.", schema="{schema}"),
            say("complete it in the inventory as docs/tenants.md shows, then {command}", command=command),
        )


def _commands(settings: Mapping[str, Any], playbook: str, command: str) -> Iterator[Finding]:
    given = settings.get("app_commands")
    given = given if isinstance(given, Mapping) else {}
    missing = [name for name in _OF_COMMANDS if not given.get(name)]
    # What names no version would be asked, and do the same, whatever the version.
    everywhere = str(given.get("environment") or "")
    named = [name for name in _OF_COMMANDS[:3] if "{version}" in f"{given.get(name)}{everywhere}"]
    fixed = [name for name in _OF_COMMANDS[:3] if name not in (*missing, *named)]
    if missing or fixed:
        yield Finding(
            "commands",
            observed(
                "AMO-2366",
                "app_adapter is command, and app_commands lacks {missing}.",
                missing=", ".join([*missing, *("{version} in " + name for name in fixed)]),
            ),
            say(
                "{needed}; the first three name the version as {version}.",
                needed=", ".join(_OF_COMMANDS),
                version="{version}",
            ),
            say("complete it in the inventory as docs/command.md shows, then {command}", command=command),
        )
    yield from _versions(settings, playbook, command)
    yield from _watch(settings, playbook)


def _watches(settings: Mapping[str, Any], playbook: str) -> bool:
    return playbook == "watch.yml" or float(settings.get("watch_minutes") or 0) > 0


def _watch(settings: Mapping[str, Any], playbook: str) -> Iterator[Finding]:
    """The watch knows no other instances than PM2's."""
    if _watches(settings, playbook):
        yield Finding(
            "adapter",
            observed(
                "AMO-2369",
                "app_adapter is {adapter}, and the watch asks PM2 for the instances.",
                adapter=_of(settings, "app_adapter"),
            ),
            say("a run without a watch."),
            say(
                "leave it out; ansible-playbook monitor.yml -l <environment> asks the service, and reads how the rule"
                " stands in the database."
            ),
        )


def _units(settings: Mapping[str, Any], playbook: str, command: str) -> Iterator[Finding]:
    """How many units there have to be, the phases ask: that depends on app_min_instances."""
    given = settings.get("app_units")
    given = given if isinstance(given, Sequence) and not isinstance(given, str) else []
    units = [one if isinstance(one, Mapping) else {} for one in given]
    names = [str(one.get("name") or "") for one in units]
    urls = [str(one.get("url") or "") for one in units]
    wrong = [name for name in names if not _UNIT.fullmatch(name) or names.count(name) > 1]
    wrong += [url for url in urls if not url.startswith(("http://", "https://")) or urls.count(url) > 1]
    if wrong or not units:
        yield Finding(
            "units",
            observed(
                "AMO-2370",
                "app_adapter is systemd, and app_units has {wrong}.",
                wrong=joined(dict.fromkeys(one or say("an entry without name or url") for one in wrong), ", ")
                if wrong
                else say("no unit"),
            ),
            say(
                "each unit once: its name, such as shop@3001.service, and as its url the address at which its process"
                " answers, and no other."
            ),
            say("correct it in the inventory as docs/systemd.md shows, then {command}", command=command),
        )
    yield from _watch(settings, playbook)


def _versions(settings: Mapping[str, Any], playbook: str, command: str) -> Iterator[Finding]:
    """The versions that the command is about: the wanted one, and the one that a rollback is to go to."""
    needed = ["app_version"] if playbook in _DEPLOYS else []
    given = ["rollback_commit"] if settings.get("rollback_commit") else []
    for name in (*needed, *given):
        value = settings.get(name)
        if not is_version(value):
            yield Finding(
                "version",
                observed("AMO-2367", "{name} is {value}.", name=name, value=value or say("not set")),
                say(
                    "a version as a text of one word, such as 1.4.2: letters, digits and . _ : / @ + -, the first one a"
                    " letter or a digit. YAML makes a number of 1.10, unless it stands in quotation marks."
                ),
                say("{command} -e {name}=<version>", command=command, name=name),
            )


def _without_application(settings: Mapping[str, Any], playbook: str, phases: Sequence[str]) -> Iterator[Finding]:
    watches = _watches(settings, playbook)
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
