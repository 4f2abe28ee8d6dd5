"""How the rule and the service stand today: findings from what the modules have read, what is new, what is over.

And the same for Prometheus. Nothing here reads anything itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .findings import parse

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be. ``key`` is the same for as long as it is the same finding."""

    key: str
    seen: str
    expected: str
    next_step: str


@dataclass(frozen=True)
class Change:
    """What people have to be told: what was not there the last time, and what is there no more."""

    new: list[Finding]
    recovered: list[dict[str, str]]  # key and since
    since: dict[str, str]  # the state to keep: key to the time of its first sight


def findings(facts: Facts) -> list[Finding]:
    """Everything that is not as it should be, the worst first."""
    found = [*_database(facts), *_service(facts)]
    for host, state in sorted(facts["hosts"].items()):
        found += _host(host, state, facts)
    return found


def _database(facts: Facts) -> list[Finding]:
    read = facts["database"]
    for part, key in (("verified", "indexes"), ("fence", "state"), ("history", "verdict"), ("use", "indexes")):
        answer = read.get(part) or {}
        if key not in answer:
            return [_unread("database", answer, f"The database ({part}) could not be read.")]
    found = []
    duplicates = read["verified"]["duplicates_left"]
    if duplicates:
        found.append(
            Finding(
                "duplicates",
                f"{duplicates} duplicate groups are inside the rule.",
                "none.",
                "deploy again: it cleans up behind a fence and builds what is missing.",
            )
        )
    for index in read["verified"]["indexes"]:
        if index["verdict"] != "present":
            parts = "; ".join(f"{p['part']}: {p['seen']} instead of {p['expected']}" for p in index.get("parts") or [])
            found.append(
                Finding(
                    f"index:{index['name']}",
                    f"Index {index['name']} is {index['verdict']}{f' ({parts})' if parts else ''}.",
                    "exactly the planned indexes, valid and ready.",
                    "find out who changed it; deploying again builds what is missing.",
                )
            )
    if read["fence"]["state"] != "lowered" and not facts.get("run_open"):
        found.append(
            Finding(
                "fence",
                f"The write fence is {read['fence']['state']} and no run is at work.",
                "no fence: the index enforces the rule.",
                "deploy again, or take the run that left it back with rollback.yml.",
            )
        )
    verdict = read["history"].get("verdict")
    if verdict != "applied":
        found.append(
            Finding(
                "history",
                f"Prisma's history is {verdict}.",
                "applied.",
                str(read["history"].get("repair") or "read docs/prisma-history.md."),
            )
        )
    return found


def _unread(key: str, answer: Facts, otherwise: str) -> Finding:
    """A module that has failed said why, in three phrases; what else may have happened has none."""
    first = parse(str(answer.get("msg") or otherwise)).findings[0]
    return Finding(key, first.seen, first.expected or "an answer.", first.next_step or "run monitor.yml again with -v.")


def _service(facts: Facts) -> list[Finding]:
    answer = facts["service"]
    if "checks" not in answer:
        return [_unread("service", answer, "The service could not be asked.")]
    return [
        Finding(
            f"service:{check['name']}",
            f"{check['request']} got {check['got']}.",
            f"{check['expected']}.",
            "repeat the request by hand and read the application's log of that moment.",
        )
        for check in answer["checks"]
        if check["ok"] is False
    ]


def _host(host: str, state: Facts, facts: Facts) -> list[Finding]:
    found = []
    released, served = facts.get("released"), state.get("commit")
    instances = (state.get("pm2") or {}).get("instances")
    elsewhere = [
        str(one["pm_id"]) for one in instances or [] if state.get("real_path") and one["cwd"] != state["real_path"]
    ]
    if released and served != released:
        found.append(
            Finding(
                f"commit:{host}",
                f"{host} serves {served or 'an unknown commit'}.",
                f"{released}, as the journal's last run has it.",
                "find out who changed it by hand, or deploy again.",
            )
        )
    elif elsewhere:
        found.append(
            Finding(
                f"commit:{host}",
                f"{host}: instances {', '.join(elsewhere)} run from another directory than {state['real_path']}.",
                "every instance in the release that the path leads to.",
                "deploy again: it reloads what is not proven.",
            )
        )
    found += _changed_release(host, state)
    if instances is None:
        return [*found, _unread(f"instances:{host}", state.get("pm2") or {}, f"PM2 of {host} could not be asked.")]
    online = sum(one["status"] == "online" for one in instances)
    if online < facts["min_instances"]:
        found.append(
            Finding(
                f"instances:{host}",
                f"{host}: {online} of {len(instances)} instances are online.",
                f"at least {facts['min_instances']}.",
                "read their error logs; `pm2 list` shows them.",
            )
        )
    elif state.get("saved") is False:
        found.append(
            Finding(
                f"saved:{host}",
                f"{host}: PM2 would start something else after a reboot than what runs now.",
                "what runs is what is saved.",
                "look at `pm2 list`, then `pm2 save` as the user that owns the daemon.",
            )
        )
    return found


def _changed_release(host: str, state: Facts) -> list[Finding]:
    """What shows that something else than a deployment has changed the release that serves."""
    modified = state.get("modified") or []
    seen = [*(state.get("changes") or []), *([f"changed by hand: {', '.join(modified)}"] if modified else [])]
    if not seen:
        return []
    return [
        Finding(
            f"release:{host}",
            f"{host}: {'; '.join(seen)}.",
            "a release as the last deployment has left it.",
            "find out what deploys inside the application's path (docs/cutover.md, \"The application's own way of "
            'deploying"), switch it off, and deploy again.',
        )
    ]


def released(runs: Iterable[Facts], environment: str) -> str | None:
    """The commit that the newest completed run of this environment has left; None when no run says so."""
    for run in runs:
        if run.get("environment") != environment:
            continue
        phases = {phase["name"]: phase for phase in run.get("phases") or []}
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
    keys = {finding.key for finding in found}
    return Change(
        [finding for finding in found if finding.key not in before],
        [{"key": key, "since": since} for key, since in before.items() if key not in keys],
        {finding.key: before.get(finding.key, now) for finding in found},
    )


def as_text(found: Sequence[Finding]) -> str:
    """The findings as one error, in the shape that :mod:`.findings` takes apart."""
    texts = [f"{one.seen} Expected: {one.expected} Next: {one.next_step}" for one in found]
    return " Seen: ".join(texts)


def metrics(facts: Facts, found: Sequence[Finding], now: float) -> str:
    """The state in Prometheus' text format: https://prometheus.io/docs/instrumenting/exposition_formats/"""
    database = facts["database"]
    verified, fence = database.get("verified") or {}, database.get("fence") or {}
    base = {"environment": facts["environment"], "plan": facts["plan"]}
    families: list[tuple[str, str, list[tuple[Mapping[str, str], float]]]] = [
        ("last_run_timestamp_seconds", "When the monitor ran.", [({}, round(now, 3))]),
        ("findings", "How many things are not as they should be.", [({}, len(found))]),
        ("finding", "Each of them.", [({"key": one.key}, 1) for one in found]),
    ]
    if "duplicates_left" in verified:
        families += [
            ("duplicate_groups", "Groups of rows that break the rule.", [({}, verified["duplicates_left"])]),
            (
                "index_as_planned",
                "Whether a planned index is there by definition, valid and ready.",
                [({"index": one["name"]}, float(one["verdict"] == "present")) for one in verified["indexes"]],
            ),
        ]
    if "state" in fence:
        up = fence["state"] != "lowered"
        families.append(("fence_up", "Whether the write fence stands.", [({}, float(up))]))
    use = (database.get("use") or {}).get("indexes") or []
    for name, key, description in (
        ("index_scans_total", "scans", "Scans of an index since the statistics were reset."),
        ("index_size_bytes", "bytes", "Size of an index."),
        ("index_hit_percent", "hit_percent", "Percent of an index's blocks that were found in memory."),
        ("index_bloat_percent", "bloat_percent", "Estimated percent of an index's pages that its rows do not need."),
    ):
        samples: list[tuple[Mapping[str, str], float]] = [
            ({"index": one["name"]}, float(one[key])) for one in use if one[key] is not None
        ]
        families.append((name, description, samples))
    online = {
        host: sum(one["status"] == "online" for one in (state.get("pm2") or {}).get("instances") or [])
        for host, state in sorted(facts["hosts"].items())
    }
    per_host: list[tuple[Mapping[str, str], float]] = [({"host": host}, count) for host, count in online.items()]
    families.append(("instances_online", "Instances of the application.", per_host))
    return "".join(_family(f"at_most_one_{name}", text, samples, base) for name, text, samples in families)


def _family(name: str, text: str, samples: Sequence[tuple[Mapping[str, str], float]], base: Mapping[str, str]) -> str:
    if not samples:
        return ""
    kind = "counter" if name.endswith("_total") else "gauge"
    lines = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        shown = ",".join(f'{key}="{_label(str(item))}"' for key, item in {**base, **labels}.items())
        lines.append(f"{name}{{{shown}}} {value:.17g}")
    return "\n".join(lines) + "\n"


def _label(text: str) -> str:
    return re.sub(r'[\\"]', r"\\\g<0>", text).replace("\n", "\\n")
