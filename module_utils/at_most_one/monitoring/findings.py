"""How the rule and the service stand today: findings from what the modules have read, what is new, what is over.

A part that could not be read is a finding of its own, and leaves the findings about it as they were. Nothing here
reads anything itself.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..findings import Finding, handed_over, joined, observed, of_answer, parse, say
from ..system.processes import is_within
from ..system.redaction import redact
from ..verdicts import word

Facts = Mapping[str, Any]
PURGE = "purge"  # the phase of a run that removes archived rows, as runs/undo.py names it
_STOPPED = ("stopped", "inactive")  # by a person, in the words of PM2 and of systemd


@dataclass(frozen=True)
class Change:
    """What people have to be told: what was not there the last time, and what is there no more."""

    new: list[Finding]
    recovered: list[dict[str, str]]  # name and since
    since: dict[str, str]  # the state to keep: name to the time of its first sight


# Each part of the database's state, what its module returns when it was read, and the findings that it decides on.
_PARTS = (
    ("verified", "indexes", ("duplicates", "index:")),
    ("fence", "state", ("fence",)),
    ("history", "verdict", ("history", "history:")),
    ("use", "indexes", ()),
    ("journal", "runs", ("run:", "fence", "fence:", "commit:")),
)


def findings(facts: Facts, before: Iterable[str] = ()) -> list[Finding]:
    """Everything that is not as it should be, the worst first.

    Of the findings ``before``, by their names, those stay that cannot be judged now.
    """
    found = [*_database(facts), *_service(facts)]
    for host, state in sorted(facts["hosts"].items()):
        found += _host(host, state, facts)
    names = {finding.name for finding in found}
    return found + [_kept(name) for name in before if name not in names and _cannot_be_judged(name, facts)]


def warnings(facts: Facts) -> list[Finding]:
    """What somebody should do some day, and what is no alarm: nobody is told of it, and the monitor does not fail."""
    archive = (facts["database"].get("journal") or {}).get("archive") or {}
    return [
        Finding(
            f"archive:{one['plan_id']}",
            observed(
                "AMO-5101",
                "The archive holds {rows} rows of {runs} runs of plan {plan_id} for longer than "
                "{keep_days} days; its oldest row is {oldest_days} days old.",
                rows=one["rows"],
                runs=one["runs"],
                plan_id=one["plan_id"],
                keep_days=archive["keep_days"],
                oldest_days=f"{archive['oldest_days']:.0f}",
            ),
            say(
                "no archived row, backup or clean-up plan that is older than archive_keep_days and that "
                "no rollback needs."
            ),
            (
                say(
                    "ansible-playbook purge.yml -l <environment> -e plan={plan_id} lists what would go.",
                    plan_id=shlex.quote(one["plan_id"]),
                )
                if one["plan_id"] != facts["plan"]
                else say("ansible-playbook purge.yml -l <environment> lists what would go.")
            ),
        )
        for one in archive.get("overdue") or []
        if not _is_of_another_tenant(one["plan_id"], facts)
    ]


def _kept(name: str) -> Finding:
    return Finding(
        name,
        observed("AMO-5102", "Finding {name} of an earlier run of the monitor cannot be judged now.", name=name),
        say("an answer about it."),
        say(
            "ansible-playbook monitor.yml -l <environment> once it can be read again; another "
            "finding names what cannot."
        ),
    )


def _cannot_be_judged(key: str, facts: Facts) -> bool:
    """Whether what decides on this finding could not be read, so that its absence proves nothing."""
    read = facts["database"]
    if any(_names(decides, key) for part, answer, decides in _PARTS if answer not in (read.get(part) or {})):
        return True
    if key == "duplicates" and read["verified"]["duplicates_left"] is None:
        return True
    kind, _, name = key.partition(":")
    if kind == "service":
        checks = facts["service"].get("checks")
        return checks is None or any(check["name"] == name and check["ok"] is None for check in checks)
    if kind not in ("commit", "release", "instances", "saved", "pm2"):
        return False
    state = facts["hosts"].get(name)
    if state is None:  # left out by the limit, or no host of the environment any more
        return name in facts.get("environment_hosts", ())
    if kind in ("commit", "release") and not state.get("commit"):
        return True
    instances_read = (state.get("pm2") or {}).get("instances") is not None
    return (kind != "release" and not instances_read) or (kind == "saved" and state.get("saved") is None)


def _names(decides: Sequence[str], key: str) -> bool:
    return any(key.startswith(name) if name.endswith(":") else key == name for name in decides)


def _database(facts: Facts) -> list[Finding]:
    read = facts["database"]
    unread = [part for part, answer, _ in _PARTS if answer not in (read.get(part) or {})]
    found = _unread_parts(read, unread)
    dead = [] if "journal" in unread else [run for run in _unfinished(facts) if run.get("dead_since")]
    found += [_dead_run(run, facts) for run in dead]
    found += map(Finding.of_data, (read.get("journal") or {}).get("fences") or ())
    if "verified" not in unread:
        found += _rule(read["verified"])
    # While a run is at work its fence is where it belongs; a dead run's fence is in the finding about that run.
    unfinished = [
        run
        for run in ([] if "journal" in unread else _unfinished(facts))
        if _is_of_plan(run, facts) and not is_purge(run)
    ]
    if not {"fence", "journal"} & {*unread} and read["fence"]["state"] != "lowered" and not unfinished:
        names = ", ".join(read["fence"].get("indexes") or [])
        by_hand = "; ".join(read["fence"].get("statements") or [])
        found.append(
            Finding(
                "fence",
                observed(
                    "AMO-5103",
                    "The write fence is {state}{named} and no run is at work.",
                    state=word(read["fence"]["state"]),
                    named=f" ({names})" if names else "",
                ),
                say("no fence: the index enforces the rule."),
                (
                    say(
                        "ansible-playbook deploy.yml -l <environment>, which drops it even when nothing else is "
                        "to be done; or take the run that left it back: ansible-playbook rollback.yml -l "
                        "<environment>; or, when it is taken back already, by hand: {by_hand};",
                        by_hand=by_hand,
                    )
                    if by_hand
                    else say(
                        "ansible-playbook deploy.yml -l <environment>, which drops it even when nothing else is "
                        "to be done; or take the run that left it back: ansible-playbook rollback.yml -l "
                        "<environment>."
                    )
                ),
            )
        )
    if "history" not in unread and read["history"]["verdict"] not in ("applied", "not_kept"):
        found.append(
            Finding(
                "history",
                observed("AMO-5104", "Prisma's history is {verdict}.", verdict=word(read["history"]["verdict"])),
                say("applied."),
                read["history"].get("repair") or say("read docs/prisma-history.md."),
            )
        )
    if "history" not in unread and read["history"].get("against"):
        found.append(
            Finding(
                "history:next",
                observed(
                    "AMO-5118",
                    "The next `prisma migrate deploy` would change what the plan builds: {against}.",
                    against=joined(
                        say("statement {number} of {migration} is about {name}", **one)
                        for one in read["history"]["against"]
                    ),
                ),
                say("no migration that drops, builds or renames a planned index, or drops what it is on."),
                say(
                    "take the statement out of that migration before it is applied; docs/prisma.md says how"
                    " schema.prisma keeps the index."
                ),
            )
        )
    return found


def _unread_parts(read: Facts, unread: Sequence[str]) -> list[Finding]:
    """One finding for the parts that failed for the same reason: a server that is down is one thing, not five."""
    by_reason: dict[str, list[str]] = {}
    for part in unread:
        by_reason.setdefault(str((read.get(part) or read).get("msg") or ""), []).append(part)
    found = []
    for reason, parts in by_reason.items():
        key = "database" if len(parts) == len(_PARTS) else f"database:{'+'.join(parts)}"
        finding = _unread(
            key, read.get(parts[0]) or read, say("The database ({parts}) could not be read.", parts=", ".join(parts))
        )
        seen = (
            finding.seen
            if not reason
            else say("Could not read {parts}: {seen}", parts=", ".join(parts), seen=finding.seen)
        )
        found.append(Finding(key, seen, finding.expected, finding.next_step))
    return found


def _parts_unread(key: str) -> set[str]:
    """The parts of the database that a finding of :func:`_unread_parts` is about; none for any other finding."""
    kind, _, parts = key.partition(":")
    if kind != "database":
        return set()
    return {*parts.split("+")} if parts else {part for part, _, _ in _PARTS}


def _unfinished(facts: Facts) -> list[Facts]:
    """The runs of this environment that were not closed, newest first."""
    runs = [run for run in facts["database"]["journal"]["runs"] if run.get("environment") == facts["environment"]]
    return [run for run in runs if run.get("outcome") is None and not _is_of_another_tenant(run.get("plan_id"), facts)]


def _is_of_plan(run: Facts, facts: Facts) -> bool:
    return run.get("plan_id") in (None, facts["plan"])


def _is_of_another_tenant(plan_id: str | None, facts: Facts) -> bool:
    """Whether this is the plan of another tenant of the plan that is monitored: the monitor of that tenant says so."""
    plan, _, tenant = facts["plan"].partition("@")
    return bool(tenant) and plan_id not in (None, facts["plan"]) and str(plan_id).startswith(f"{plan}@")


def is_purge(run: Facts) -> bool:
    """Whether the run has removed archived rows, and deployed nothing."""
    return any(phase["name"] == PURGE for phase in run.get("phases") or [])


def _dead_run(run: Facts, facts: Facts) -> Finding:
    """A run that nobody goes on with: what it has left, and the commands to go on or to take it back."""
    read = facts["database"]
    fence, verified = (read.get("fence") or {}).get("state"), read.get("verified") or {}
    missing = [index["name"] for index in verified.get("indexes") or [] if index["verdict"] != "present"]
    archived = (run.get("rows") or {}).get("archived") or 0
    same_plan = _is_of_plan(run, facts)
    left = [
        say("the write fence is {fence}", fence=word(fence)) if same_plan and fence not in (None, "lowered") else "",
        say("{archived} archived rows are not back", archived=archived) if archived else "",
        say("not there as planned: {missing}", missing=", ".join(missing)) if same_plan and missing else "",
    ]
    phases = run.get("phases") or []
    done = say("after {name}", name=word(phases[-1]["name"])) if phases else say("before its first phase ended")
    plan = "" if same_plan else f" -e plan={shlex.quote(run['plan_id'])}"
    if is_purge(run):
        return Finding(
            f"run:{run['run_id']}",
            observed(
                "AMO-5105",
                "Run {run_id} of {who}@{controller}, a purge of the archive, is dead since {dead_since}.",
                run_id=run["run_id"],
                who=run["who"],
                controller=run["controller"],
                dead_since=run["dead_since"],
            ),
            say("every run closed."),
            say(
                "ansible-playbook purge.yml -l <environment>{plan} -e purge_confirmed=true goes on from it.", plan=plan
            ),
        )
    back = run.get("commit_after") is None  # a rollback learns at its end what it goes back to
    commands = {name: f"ansible-playbook {name}.yml -l <environment>{plan}" for name in ("deploy", "rollback")}
    return Finding(
        f"run:{run['run_id']}",
        observed(
            "AMO-5117",
            "Run {run_id} of {who}@{controller} is dead since {dead_since}, {left}.",
            run_id=run["run_id"],
            who=run["who"],
            controller=run["controller"],
            dead_since=run["dead_since"],
            left=joined([done, *filter(None, left)]),
        ),
        say("every run closed, and nothing of it left half done."),
        (
            say("go on: {rollback}.", rollback=commands["rollback"])
            if back
            else say(
                "go on: {deploy}; or take it back: {rollback}.",
                deploy=commands["deploy"],
                rollback=commands["rollback"],
            )
        ),
    )


def _rule(verified: Facts) -> list[Finding]:
    found = []
    duplicates = verified["duplicates_left"]
    if duplicates:
        found.append(
            Finding(
                "duplicates",
                observed("AMO-5106", "{duplicates} duplicate groups are inside the rule.", duplicates=duplicates),
                say("none."),
                say(
                    "ansible-playbook deploy.yml -l <environment> cleans up behind a fence and builds what is missing."
                ),
            )
        )
    for index in verified["indexes"]:
        if index["verdict"] != "present":
            parts = joined(
                say(
                    "{part}: {seen} instead of {expected}",
                    part=word(p["part"]),
                    seen=_value(p["seen"]),
                    expected=_value(p["expected"]),
                )
                for p in index.get("parts") or []
            )
            found.append(
                Finding(
                    f"index:{index['name']}",
                    observed(
                        "AMO-5107",
                        "Index {name} is {verdict}{parts}.",
                        name=index["name"],
                        verdict=word(index["verdict"]),
                        parts=say(" ({parts})", parts=parts) if parts else "",
                    ),
                    say("exactly the planned indexes, valid and ready."),
                    say(
                        "find out who changed it; ansible-playbook deploy.yml -l <environment> builds what is missing."
                    ),
                )
            )
    return found


def _value(text: str) -> str:
    """A part of a definition: a name or SQL, or one of the words for what has neither."""
    return word(text) if text in ("yes", "no", "none") else text


def _unread(key: str, answer: Facts, otherwise: str) -> Finding:
    """Why there is no answer: a module of ours hands its phrases over; Ansible says what else may have happened."""
    if answer.get("findings"):
        said = Finding.of_data(answer["findings"][0])
    else:
        said = parse(redact(str(answer["msg"]))).findings[0] if answer.get("msg") else Finding("", otherwise, "", "")
    expected, next_step = said.expected or say("an answer."), said.next_step or say("run monitor.yml again with -v.")
    return Finding(key, said.seen, expected, next_step)


def _service(facts: Facts) -> list[Finding]:
    answer = facts["service"]
    if "checks" not in answer:
        return [_unread("service", answer, say("The service could not be asked."))]
    return [
        Finding(
            f"service:{check['name']}",
            observed(
                "AMO-5108", "{request} got {got}.", request=of_answer(check, "request"), got=of_answer(check, "got")
            ),
            say("{expected}.", expected=of_answer(check, "expected")),
            say("repeat the request by hand and read the application's log of that moment."),
        )
        for check in answer["checks"]
        if check["ok"] is False
    ]


def _host(host: str, state: Facts, facts: Facts) -> list[Finding]:
    found = []
    released, served = facts.get("released"), state.get("commit")
    by_systemd = state.get("under") == "systemd"
    instances = (state.get("pm2") or {}).get("instances")
    elsewhere = [
        str(one["pm_id"])
        for one in instances or []
        if state.get("real_path") and one["status"] == "online" and not is_within(one["cwd"], state["real_path"])
    ]
    if released and served != released:
        found.append(
            Finding(
                f"commit:{host}",
                observed("AMO-5109", "{host} serves {served}.", host=host, served=served or say("an unknown commit")),
                say("{released}, as the journal's last run has it.", released=released),
                say("find out who changed it by hand, or ansible-playbook deploy.yml -l <environment>."),
            )
        )
    elif elsewhere:
        found.append(
            Finding(
                f"commit:{host}",
                observed(
                    "AMO-5110",
                    "{host}: instances {elsewhere} run from another directory than {real_path}.",
                    host=host,
                    elsewhere=", ".join(elsewhere),
                    real_path=state["real_path"],
                ),
                say("every instance in the release that the path leads to."),
                say("ansible-playbook deploy.yml -l <environment> reloads what is not proven."),
            )
        )
    found += _changed_release(host, state)
    if instances is None:
        return [
            *found,
            _unread(
                f"pm2:{host}",
                state.get("pm2") or state,
                say("systemd of {host} could not be asked.", host=host)
                if by_systemd
                else say("PM2 of {host} could not be asked.", host=host),
            ),
        ]
    online = sum(one["status"] == "online" for one in instances)
    # Those that a person has stopped are missed by nobody while enough others serve; one that has crashed is.
    wanted = max(facts["min_instances"], sum(one["status"] not in _STOPPED for one in instances))
    if online < wanted:
        found.append(
            Finding(
                f"instances:{host}",
                observed(
                    "AMO-5111",
                    "{host}: {online} of {declared} instances are online.",
                    host=host,
                    online=online,
                    declared=len(instances),
                ),
                say("at least {min_instances}.", min_instances=wanted),
                say("read their error logs; `pm2 list` shows them.")
                if not by_systemd
                else say("read the log of {units}: journalctl --unit=<unit>.", units=_down(instances)),
            )
        )
    elif state.get("saved") is False and by_systemd:
        found.append(
            Finding(
                f"saved:{host}",
                observed("AMO-5119", "{host}: a reboot would not bring back every unit of the application.", host=host),
                say("each unit of app_units enabled."),
                say("ask systemctl is-enabled of each, then systemctl enable the one that is not."),
            )
        )
    elif state.get("saved") is False:
        found.append(
            Finding(
                f"saved:{host}",
                observed(
                    "AMO-5112", "{host}: PM2 would start something else after a reboot than what runs now.", host=host
                ),
                say("what runs is what is saved."),
                say("look at `pm2 list`, then `pm2 save` as the user that owns the daemon."),
            )
        )
    return found


def online_instances(state: Facts) -> int | None:
    """How many instances of the application are online on a host; None where they could not be read."""
    instances = (state.get("pm2") or {}).get("instances")
    return None if instances is None else sum(one["status"] == "online" for one in instances)


def _down(instances: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(str(one["pm_id"]) for one in instances if one["status"] != "online")


def _changed_release(host: str, state: Facts) -> list[Finding]:
    """What shows that something else than a deployment has changed the release that serves."""
    modified, changes = state.get("modified") or [], state.get("changes") or []
    seen = [
        *([handed_over(state["phrases"]["changes"])] if state.get("changes") and "phrases" in state else changes),
        *([say("changed by hand: {modified}", modified=", ".join(modified))] if modified else []),
    ]
    if not seen:
        return []
    return [
        Finding(
            f"release:{host}",
            observed("AMO-5113", "{host}: {seen}.", host=host, seen=joined(seen)),
            say("a release as the last deployment has left it."),
            say(
                "find out what deploys inside the application's path (docs/cutover.md, \"The "
                "application's own way of deploying\"), switch it off, and deploy again."
            ),
        )
    ]


def released(runs: Iterable[Facts], environment: str) -> str | None:
    """The commit that the newest completed run of this environment has left; None when no run says so."""
    for run in runs:
        if run.get("environment") != environment:
            continue
        phases = {phase["name"]: phase for phase in run.get("phases") or []}
        if is_purge(run):  # it has released nothing
            continue
        outcome = run.get("outcome")
        if outcome == "rolled_back":
            commit = ((phases.get("rollback") or {}).get("details") or {}).get("commit") or run.get("commit_before")
            return str(commit) if commit else None
        reloaded = outcome == "stopped" and not run.get("failed_phase") and "pm2_reload" in phases
        if outcome in ("deployed", "unchanged") or reloaded:
            return str(run["commit_after"]) if run.get("commit_after") else None
    return None


def compare(found: Sequence[Finding], before: Mapping[str, str], now: str) -> Change:
    """What has changed since the state ``before``, as of ``now``."""
    names = {finding.name for finding in found}
    still_unread = set().union(*map(_parts_unread, names))
    return Change(
        [finding for finding in found if finding.name not in before],
        [
            {"name": name, "since": since}
            for name, since in before.items()
            if name not in names and not _parts_unread(name) & still_unread  # by another name: more parts, or fewer
        ],
        {finding.name: before.get(finding.name, now) for finding in found},
    )


def as_text(found: Sequence[Finding]) -> str:
    """The findings as one error, in the shape that the core's own ``findings`` takes apart."""
    return " Seen: ".join(map(str, found))


def alerts(change: Change) -> list[dict[str, Any]]:
    """What people are told: once about what is new, once about what is over, and never about what they know."""
    new = {"kind": "monitor_new", "error": as_text(change.new)}
    over = {"kind": "monitor_over", "recovered": change.recovered}
    return [*([new] if change.new else []), *([over] if change.recovered else [])]
