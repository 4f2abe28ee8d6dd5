"""What a command asks for, checked on the control node before anything is connected: target, plan, values, hosts.

Only the control node calls this: it needs the project's files and the options with which ansible-playbook was started.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from ..errors import OperatorError
from ..findings import Finding, observed, say
from ..plan import filled, for_tenant, is_tenant, tenant_place
from ..prisma import files
from ..system import command_line
from ..system.project import COLLECTION
from ..verdicts import PHASES
from . import parts, plan_source

# What every environment has to say. The vault's names come first (required): these may be made of them.
_BASE = ("app_name", "app_path", "app_url", "database_host", "database_name", "database_user", "database_password")
_OF_APPLICATION = ("app_path", "app_url")
# Prefixes of what describes the service, beside the roles' own.
_SERVICE = ("app", "archive", "database", "pm2", "release")
EACH = "each"  # of a plan's tenants: see Asked.tenants
# What tenants.yml does in all tenants in the place of a playbook that is about one.
_FOR_ALL = {"deploy.yml": "", **{f"{action}.yml": f" -e tenants_action={action}" for action in ("rollback", "monitor")}}
GUARDS = ("target.guard", "target_guard.yml")  # the second name is what Ansible's own plugin `auto` reads
# What the roles themselves leave for each other (docs/architecture.md); a second run of the same playbook finds it.
FACTS = frozenset(
    {"run_inputs", "run_host", "run_facts", "run_end", "run_token", "run_traffic"}
    | {"rollback_plan", "rollback_done", "rollback_instances"}
    | {"prepare_backup", "prepare_instances", "prepare_made", "cleanup_removed", "cleanup_reported"}
    | {"migrate_indexes", "verify_indexes", "pm2_reload_ended_at", "pm2_reload_instances", "pm2_reload_link"}
    | {"healthcheck_log", "healthcheck_proven_at", "healthcheck_service", "healthcheck_traffic", "notify_sent"}
)
HOOKED_PHASES = (*PHASES, "rollback")
_OF_ALL_HOSTS = ("deploy.yml", "rollback.yml")  # what they change in the database holds for each host that serves
_PHASES_OF = {"deploy.yml": PHASES, "rollback.yml": ("rollback",)}  # what their tags name
_BATCH = re.compile(r"([1-9][0-9]*|[1-9][0-9]?%|100%)")


@dataclass(frozen=True)
class Asked:
    """What a command asks for. ``options`` are those of ansible-playbook, as ``ansible.context.CLIARGS`` has them."""

    project: Path  # of plans/ and artifacts/
    home: Path  # of the roles
    base: Path  # which commands and inventories are named from
    options: Mapping[str, Any]
    playbook: str
    inventory: str  # the directory
    host: str  # any one
    environment: str | None
    limit: str | None
    plan: str | None
    names: Sequence[str]  # every variable that is set
    required: Sequence[str]  # those without which nothing starts, beside those of every environment
    is_set: Callable[[str], bool]  # whether a variable has a value; which one nobody asks
    reviewed_plan: str  # the path of the reviewed file, empty without
    needs_plan: bool = True  # false: the command comes before any plan
    settings: Mapping[str, Any] = field(default_factory=dict)  # parts.SETTINGS, where they are set
    run_tags: Sequence[str] = ("all",)
    skip_tags: Sequence[str] = ()
    tenants: str = "one"  # which tenants of a plan that has some the command is about: one, each, or any
    tenant: str = ""  # the one, where the plan's name does not say it: <plan>@<tenant>
    listed: Sequence[str] = ()  # the inventory's list of tenants, which counts before the plan's
    database: str = ""  # that of database_login, as this command has it; empty where it is not known
    artifacts: str = ""  # the directory of the reports of all environments

    @property
    def file(self) -> str:
        """The name of the plan's file."""
        return (self.plan or "").partition("@")[0]

    @property
    def named(self) -> str:
        """The one tenant that the command is about; empty for a plan without, and for all of them."""
        return self.tenant or (self.plan or "").partition("@")[2]

    @property
    def parts(self) -> parts.Parts:
        """What takes part, where nothing is wrong with the settings."""
        return parts.decide(self.settings)

    @property
    def phases(self) -> list[str]:
        """The phases that the tags ask for and that take part."""
        return [phase for phase in asked_phases(self.run_tags, self.skip_tags) if phase not in self.parts.left_out]

    def command(
        self, *, limit: str | None = None, without: Sequence[str] = (), inventory: str = "", vault: bool = False
    ) -> str:
        """The command to copy. With ``vault`` it asks for the vault's password, unless it was told where that is."""
        options = dict(self.options)
        if inventory:
            options["inventory"] = [inventory]
        if vault and not options.get("vault_ids") and not options.get("vault_password_files"):
            options["ask_vault_pass"] = True
        return command_line.command(self.playbook, options, str(self.base), limit=limit, without=without)


@dataclass(frozen=True)
class Hosts:
    """What is asked of the hosts of the environment: ``addresses`` is where each answers by itself."""

    gateway: str
    played: Sequence[str]
    addresses: Mapping[str, str]
    app_url: str
    batch: str


def plan_of(asked: Asked, hosts: Hosts | None = None) -> dict[str, Any]:
    """The plan's content, where one is needed, once all that was asked for is right.

    Raises OperatorError with every finding otherwise. ``hosts``: what to check of them too, for a playbook that changes
    them.
    """
    findings = [*_target(asked)] or [
        *(_plan(asked) if asked.needs_plan else ()),
        *_tags(asked),
        *_names(asked),
        *_parts(asked),
        *_values(asked),
        *_hooks(asked),
        *_artifacts(asked),
        *(_hosts(asked, hosts) if hosts else ()),
    ]
    if findings:
        raise OperatorError.of(findings)
    if not asked.needs_plan:
        return {}
    content = filled(plan_source.read(_path(asked)).content)
    return for_tenant(content, asked.named) if asked.named and asked.tenants != EACH else content


def migration_sql(asked: Asked, plan: Mapping[str, Any]) -> str:
    """The plan's migration where no Prisma runs it, as discover.yml writes it beside the plan; empty without a file.

    That file is of one schema: for a tenant the plan's own definitions are built.
    """
    if asked.parts.prisma or asked.named or not plan:
        return ""
    path = _path(asked).with_suffix("") / "prisma/migrations" / str(plan["migration"]) / "migration.sql"
    return files.decode(path.read_bytes(), str(plan["migration"])) if path.is_file() else ""


def is_whole(run_tags: Sequence[str], skip_tags: Sequence[str]) -> bool:
    """Whether tags leave out none of the phases: only such a run is a deployment, and may take itself back."""
    return list(run_tags) == ["all"] and not {"always", *PHASES, *map(_hyphened, PHASES)} & set(skip_tags)


def asked_phases(run_tags: Sequence[str], skip_tags: Sequence[str]) -> list[str]:
    """The phases that the tags ask for, in their order."""
    run, skip = ({tag.replace("-", "_") for tag in tags} for tags in (run_tags, skip_tags))
    return [phase for phase in PHASES if (phase in run or "all" in run) and phase not in skip]


def _hyphened(phase: str) -> str:
    return phase.replace("_", "-")


def role_options(home: Path) -> dict[str, list[str]]:
    """Every option of every role, by role: the union over the role's entry points."""
    options: dict[str, list[str]] = {}
    for spec in sorted(home.glob("roles/*/meta/argument_specs.yml")):
        entry_points = _read(spec)["argument_specs"].values()
        options[spec.parent.parent.name] = sorted({name for entry in entry_points for name in entry.get("options", {})})
    return options


def _target(asked: Asked) -> Iterator[Finding]:
    """Without an inventory's common values, or a limit, nothing else can be judged."""
    if asked.plan is None:
        missing = not any((Path(asked.inventory) / name).exists() for name in GUARDS)
        guard = f"{shlex.quote(command_line.inventory(asked.inventory, str(asked.base)))}/{GUARDS[1]}"
        copy = f"cp inventories/production/target.guard {shlex.quote(asked.inventory)}/, then "
        if COLLECTION:
            copy = f"echo 'plugin: {COLLECTION}.target_guard' > {guard}, then "
        yield Finding(
            "inventory",
            observed(
                "AMO-2305",
                "The inventory of {host} lacks plan, and what else inventories/all.yml gives every environment.",
                host=asked.host,
            ),
            say("a directory with {guards} in it, named as a directory.", guards=GUARDS[bool(COLLECTION)]),
            say("{copy}{command}", copy=copy if missing else "", command=asked.command(inventory=asked.inventory)),
        )
    elif not (asked.limit or "").strip(" ,:"):  # with an empty one Ansible takes every host
        yield Finding(
            "limit",
            observed("AMO-2306", "No target: --limit is missing."),
            say("one environment, named on the command line."),
            asked.command(limit=asked.environment or "all"),
        )


def _plan(asked: Asked) -> Iterator[Finding]:
    path = _path(asked)
    shown = command_line.inventory(str(path), str(asked.base))
    if not path.is_file():
        known = sorted(file.stem for file in path.parent.glob("*.yml"))
        # Never a rule that nobody named: the command is copied, and may take a deployment back.
        meant = known if len(known) == 1 and not asked.plan else difflib.get_close_matches(asked.file, known, n=1)
        yield Finding(
            "plan",
            (
                observed("AMO-2307", "There is no plan {plan}: {shown} does not exist.", plan=asked.plan, shown=shown)
                if asked.plan
                else observed("AMO-2308", "plan is empty.")
            ),
            (say("one of {known}.", known=", ".join(known)) if known else say("a plan there.")),
            (
                say(
                    "{command} -e plan={plan}",
                    command=asked.command(without=["plan"]),
                    plan=meant[0] if meant else "<its name>",
                )
                if known
                else say(
                    "write it as {home}/plans/README.md explains; the plans beside that are examples.", home=asked.home
                )
            ),
        )
        return
    source = plan_source.read(path)
    if not source.faults:
        yield from _tenants(asked, source.content, shown)
    for fault in source.faults:
        yield Finding(
            "plan",
            observed("AMO-2309", "{shown}:{line}: {seen}", shown=shown, line=fault.line, seen=fault.seen),
            fault.expected,
            say("correct it, then {command}", command=asked.command()),
        )


def _tenants(asked: Asked, content: Mapping[str, Any], shown: str) -> Iterator[Finding]:
    """Whether the plan has tenants, and the command is about them as its playbook is."""
    known = list(asked.listed) or list((content.get("tenants") or {}).get("schemas") or ())
    if "tenants" not in content:
        if asked.named or asked.tenants == EACH:
            yield Finding(
                "tenants",
                observed(
                    "AMO-2382", "Plan {plan} has no tenants, and the command is about tenants of it.", plan=asked.file
                ),
                say("a plan with the key tenants, as docs/tenants.md describes it."),
                say(
                    "add it to {shown}, then {command}; for the one schema of the plan deploy.yml and the others do.",
                    shown=shown,
                    command=asked.command(),
                ),
            )
    elif asked.tenants == EACH and not is_whole(asked.run_tags, asked.skip_tags):
        yield Finding(
            "tags",
            observed(
                "AMO-2383", "Only a part is asked for ({tags}).", tags=", ".join([*asked.run_tags, *asked.skip_tags])
            ),
            say("all phases, in every tenant that the command is about."),
            say("the same command without --tags and --skip-tags."),
        )
    elif asked.tenants == "one" and not asked.named:
        one, every = _about(asked, known[0] if known else "<schema>"), _FOR_ALL.get(asked.playbook)
        all_of_them = replace(asked, playbook="tenants.yml").command() + (every or "")
        yield Finding(
            "tenants",
            observed("AMO-2384", "Plan {plan} has tenants, and the command names none of them.", plan=asked.file),
            (
                say("one of them with this playbook.")
                if every is None
                else say("tenants.yml, which goes through all of them, or one of them with this playbook.")
            ),
            one if every is None else say("{all}; or {one}", all=all_of_them, one=one),
        )
    elif asked.named and (not is_tenant(asked.named) or (known and asked.named not in known)):
        yield Finding(
            "tenants",
            observed("AMO-2385", "{schema} is no tenant of plan {plan}.", schema=asked.named, plan=asked.file),
            (
                say("one of {known}.", known=", ".join(known))
                if known
                else say("a schema, or <database>.<schema> in another database, of letters, digits, _, $ and -.")
            ),
            _about(asked, (difflib.get_close_matches(asked.named, known, n=1) or known or ["<schema>"])[0]),
        )
    elif asked.named:
        yield from _database(asked)


def _database(asked: Asked) -> Iterator[Finding]:
    """Whether the tenant's name is its only one, and leads to the database in which the command would be at work."""
    (database, schema), own = tenant_place(asked.named), str(asked.settings.get("database_name") or "")
    if database and database == own:
        yield Finding(
            "tenants",
            observed(
                "AMO-2391",
                "{tenant} names database_name of {environment}, which is meant without being named.",
                tenant=asked.named,
                environment=asked.environment,
            ),
            say("{schema}: by another name the tenant would have another history of runs.", schema=schema),
            _about(asked, schema),
        )
    elif asked.database and asked.database != (database or own or asked.database):
        yield Finding(
            "tenants",
            observed(
                "AMO-2390",
                "database_login leads to database {database}, and {tenant} is not there.",
                database=asked.database,
                tenant=asked.named,
            ),
            say("database {wanted}, as database_of_tenant names it.", wanted=database or own),
            say(
                "take database_login and database_of_tenant out of the inventory and the command, where they are set;"
                " docs/tenants.md shows how a tenant gets a login of its own. Then {command}",
                command=asked.command(),
            ),
        )


def _about(asked: Asked, tenant: str) -> str:
    """The command about this tenant. Its name may have a $, which the shell would read."""
    return f"{asked.command(without=['plan'])} -e {shlex.quote(f'plan={asked.file}@{tenant}')}"


def _tags(asked: Asked) -> Iterator[Finding]:
    """Whether the tags name phases. With a mistyped one nothing is skipped, or everything, and the run would end well.

    Beside a phase, a project's hooks may have tags of their own.
    """
    phases = _PHASES_OF.get(asked.playbook, ())
    given = {tag: tag.replace("-", "_") for tag in (*asked.run_tags, *asked.skip_tags)}
    wrong = [tag for tag, name in given.items() if any(0 < _edits(name, phase) <= 2 for phase in phases)]
    if not {"all", "always", *phases} & {given[tag] for tag in asked.run_tags}:
        wrong = list(asked.run_tags)
    if phases and wrong:
        yield Finding(
            "tags",
            observed("AMO-2392", "{playbook} has no phase {tags}.", playbook=asked.playbook, tags=", ".join(wrong)),
            say("one of {known}.", known=", ".join(phases)),
            say("correct --tags or --skip-tags, then the same command."),
        )


def _names(asked: Asked) -> Iterator[Finding]:
    """What starts with a role's prefix and is no option of any role is a mistake.

    In somebody else's project it may be theirs: there only what -e sets for this very run, and what nearly is an
    option's name.
    """
    known = role_options(asked.home)
    options = {name for names in known.values() for name in names}
    ours = re.compile(rf"({'|'.join((*known, *_SERVICE))})_[a-z]")
    given = command_line.given_names(asked.options)
    unknown = sorted(
        name
        for name in asked.names
        if ours.match(name)
        and name not in options
        and (name not in FACTS or name in given)
        and (asked.home == asked.base or name in given or any(_edits(name, option) <= 2 for option in options))
    )
    if unknown:
        every = sorted(options)
        alike = sorted({match for name in unknown for match in difflib.get_close_matches(name, every, n=3, cutoff=0.4)})
        yield Finding(
            "variable",
            observed("AMO-2310", "No role knows {unknown}.", unknown=", ".join(unknown)),
            say("a name from roles/*/meta/argument_specs.yml, such as {alike}.", alike=", ".join(alike)),
            say("correct the name, or take it out: {command}", command=asked.command(without=unknown)),
        )


def _parts(asked: Asked) -> Iterator[Finding]:
    phases = asked_phases(asked.run_tags, asked.skip_tags) if asked.playbook == "deploy.yml" else ()
    about_tenants = asked.tenants == EACH or bool(asked.named)
    return parts.findings(asked.settings, asked.playbook, phases, asked.command(), tenants=about_tenants)


def _values(asked: Asked) -> Iterator[Finding]:
    if asked.reviewed_plan and not Path(asked.reviewed_plan).expanduser().is_file():
        yield Finding(
            "reviewed plan",
            observed("AMO-2311", "{reviewed_plan} is not a file.", reviewed_plan=asked.reviewed_plan),
            say("a cleanup_plan.json that --check wrote below artifacts/."),
            say("{command} --check", command=asked.command(without=["cleanup_reviewed_plan"])),
        )
    missing = [name for name in asked.required if not asked.is_set(name)]
    missing = missing or [name for name in _needed(asked) if not asked.is_set(name)]
    if missing:
        inventory = command_line.inventory(asked.inventory, str(asked.base))
        example = Path(asked.inventory) / f"group_vars/{asked.environment}/vault.example.yml"
        shown = say(" (vault.example.yml there shows them)") if example.is_file() else ""
        yield Finding(
            "value",
            observed(
                "AMO-2312", "{environment} lacks {missing}.", environment=asked.environment, missing=", ".join(missing)
            ),
            say(
                "a value for each, vault_ names in {inventory}/group_vars/{environment}/vault.yml{shown}.",
                inventory=inventory,
                environment=asked.environment,
                shown=shown,
            ),
            say("ansible-vault create that file, then {command}", command=asked.command(vault=True)),
        )


def _needed(asked: Asked) -> Sequence[str]:
    if asked.parts.application:
        return _BASE
    backs_up = str(asked.settings.get("prepare_backup_keep", 1)) != "0" and asked.playbook == "deploy.yml"
    without = ("app_path",) if asked.parts.commands else _OF_APPLICATION
    return [
        *(name for name in _BASE if name not in without),
        *(["prepare_backup_path"] if backs_up else []),  # elsewhere it is beside the application
    ]


def _hooks(asked: Asked) -> Iterator[Finding]:
    """A hook of another name would never be included, and nobody would know."""
    known = [f"{moment}_{phase}.yml" for phase in HOOKED_PHASES for moment in ("before", "after")]
    for path in sorted((asked.project / "hooks").glob("*")):
        if path.name.startswith(("before_", "after_")) and path.name not in known:
            alike = difflib.get_close_matches(path.name, known, n=1) or known[:1]
            shown = command_line.inventory(str(path), str(asked.base))
            yield Finding(
                "hook",
                observed("AMO-2313", "No phase includes {shown}.", shown=shown),
                say("one of {known}.", known=", ".join(known)),
                say(
                    "mv {found} {wanted}, then {command}",
                    found=shlex.quote(shown),
                    wanted=shlex.quote(str(Path(shown).with_name(alike[0]))),
                    command=asked.command(),
                ),
            )


def _artifacts(asked: Asked) -> Iterator[Finding]:
    """Whether the reports of a run can be written: a run that stops there has opened, and says nothing."""
    if not asked.artifacts or asked.playbook == "discover.yml":  # which writes a plan, and no report
        return
    place = Path(asked.artifacts) / (asked.environment or "")
    nearest = next((path for path in (place, *place.parents) if os.path.exists(path)), place)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        yield Finding(
            "artifacts",
            observed(
                "AMO-2389",
                "{nearest} cannot be written to, and reports go to {place}.",
                nearest=nearest,
                place=place,
            ),
            say("a directory that this account may write to, and that stays when the checkout goes."),
            say(
                "{command} -e at_most_one_artifacts=<directory>",
                command=asked.command(without=["at_most_one_artifacts"]),
            ),
        )


def _hosts(asked: Asked, hosts: Hosts) -> Iterator[Finding]:
    if hosts.gateway not in hosts.played:
        yield Finding(
            "gateway",
            observed(
                "AMO-2314",
                "-l {limit} leaves out {gateway}, from which the database of {environment} is changed.",
                limit=asked.limit,
                gateway=hosts.gateway,
                environment=asked.environment,
            ),
            say("a limit with it in."),
            asked.command(limit=asked.environment),
        )
    left_out = [name for name in hosts.addresses if name not in (*hosts.played, hosts.gateway)]
    if left_out and asked.parts.application and asked.playbook in _OF_ALL_HOSTS:
        yield Finding(
            "left out",
            observed(
                "AMO-2372",
                "-l {limit} leaves out {left_out}: what serves there would stay as it is, and the database would not.",
                limit=asked.limit,
                left_out=", ".join(left_out),
            ),
            say(
                "every host of {environment}: one build, and one state of the rule for it.",
                environment=asked.environment,
            ),
            say(
                "{command}; where a host is away for long, take it out of the inventory until it is back.",
                command=asked.command(limit=asked.environment),
            ),
        )
    if not _BATCH.fullmatch(hosts.batch):
        yield Finding(
            "batch",
            observed("AMO-2315", "pm2_reload_batch is {batch}.", batch=hosts.batch),
            say("a number of hosts such as 2, or a share of them such as 25%."),
            say(
                "correct it where it stands (group_vars of {environment}, or -e pm2_reload_batch=1).",
                environment=asked.environment,
            ),
        )
    shared = [name for name, address in hosts.addresses.items() if address == hosts.app_url]
    if shared and len(hosts.addresses) > 1 and asked.parts.application:
        yield Finding(
            "address",
            observed(
                "AMO-2316",
                "{shared} of {environment} lack app_instance_url: behind {app_url} any of the {count} "
                "hosts may answer, so that nothing proves this one.",
                shared=", ".join(shared),
                environment=asked.environment,
                app_url=hosts.app_url,
                count=len(hosts.addresses),
            ),
            say("where each host answers by itself, asked from that host."),
            say(
                "set it, for all of them in group_vars/{environment}/main.yml (app_instance_url: "
                "http://127.0.0.1:3000) or for each in hosts.yml.",
                environment=asked.environment,
            ),
        )


def _edits(one: str, other: str) -> int:
    """How many letters have to be put in, taken out or replaced to make one name of the other."""
    row = list(range(len(other) + 1))
    for number, letter in enumerate(one, 1):
        before, row = row, [number]
        for place, wanted in enumerate(other, 1):
            row.append(min(row[-1] + 1, before[place] + 1, before[place - 1] + (letter != wanted)))
    return row[-1]


def _path(asked: Asked) -> Path:
    return asked.project / "plans" / f"{asked.file}.yml"


def _read(path: Path) -> Any:
    return yaml.load(path.read_text(encoding="utf-8"), Loader=plan_source.LOADER)  # noqa: S506 (both are safe loaders)
