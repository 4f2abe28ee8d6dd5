"""What the monitor finds in what was read, what it calls new and over, and what Prometheus gets."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import at_most_one_entry
import pytest
from at_most_one.catalogue import render
from at_most_one.errors import OperatorError
from at_most_one.findings import Finding
from at_most_one.monitoring import findings, prometheus
from prometheus_client.parser import text_string_to_metric_families

COMMIT, OLD = "b" * 40, "a" * 40
GOOD: dict[str, Any] = {
    "environment": "production",
    "plan": "one-active-inspection-session",
    "min_instances": 2,
    "released": COMMIT,
    "database": {
        "verified": {"duplicates_left": 0, "indexes": [{"name": "idx_a", "verdict": "present"}]},
        "fence": {"state": "lowered"},
        "history": {"verdict": "applied", "repair": "none"},
        "journal": {"runs": []},
        "use": {"indexes": [{"name": "idx_a", "scans": 7, "bytes": 8192, "hit_percent": 99.5, "bloat_percent": None}]},
    },
    "service": {
        "checks": [{"name": "health", "ok": True, "request": "GET /api/health", "expected": "200", "got": "200"}]
    },
    "hosts": {
        "web1": {
            "commit": COMMIT,
            "real_path": "/r/b",
            "saved": True,
            "pm2": {"instances": [{"pm_id": n, "status": "online", "cwd": "/r/b"} for n in range(2)]},
        }
    },
}
GONE = {"msg": "No connection to db. Expected: a server. Next: look."}


def keys(change: Callable[[dict[str, Any]], object]) -> list[str]:
    facts = copy.deepcopy(GOOD)
    change(facts)
    return [finding.name for finding in findings.findings(facts)]


def put(*path: str | int, value: Any) -> Callable[[dict[str, Any]], object]:
    def change(facts: Any) -> None:
        for key in path[:-1]:
            facts = facts[key]
        facts[path[-1]] = value

    return change


def one_more(status: str) -> Callable[[dict[str, Any]], object]:
    """A third instance, where two are enough, that does not run."""
    one = {"pm_id": 2, "status": status, "cwd": None}
    return lambda facts: facts["hosts"]["web1"]["pm2"]["instances"].append(one)


def stop_one(facts: dict[str, Any]) -> None:
    facts["hosts"]["web1"]["pm2"]["instances"][1].update(status="errored", cwd=None)


def elsewhere(facts: dict[str, Any]) -> None:
    facts["hosts"]["web1"]["pm2"]["instances"][1]["cwd"] = "/r/a"


def test_a_part_of_a_monorepo_runs_below_the_release() -> None:
    facts = copy.deepcopy(GOOD)
    for one in facts["hosts"]["web1"]["pm2"]["instances"]:
        one["cwd"] = "/r/b/apps/web"
    assert findings.findings(facts) == []


def sick(facts: dict[str, Any]) -> None:
    facts["service"]["checks"][0].update(ok=False, got="503")


def unfinished(**values: Any) -> dict[str, Any]:
    return {
        **{"run_id": "R1", "outcome": None, "environment": "production", "plan_id": GOOD["plan"], "dead_since": None},
        **{"who": "minsu", "controller": "gw", "phases": [], "commit_after": COMMIT, **values},
    }


def fence_of(*runs: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    def change(facts: dict[str, Any]) -> None:
        facts["database"]["fence"]["state"] = "raised"
        facts["database"]["journal"]["runs"] = [*runs]

    return change


DEAD = unfinished(dead_since="T0", phases=[{"name": "prepare"}], rows={"archived": 25, "restored": 0})


def test_a_fence_that_is_left_comes_with_the_statements_that_drop_it() -> None:
    facts = copy.deepcopy(GOOD)
    facts["database"]["fence"] = {"state": "raised", "statements": ["DROP INDEX CONCURRENTLY a", "DROP FUNCTION b()"]}
    (left,) = findings.findings(facts)
    assert left.next_step.endswith("by hand: DROP INDEX CONCURRENTLY a; DROP FUNCTION b();")
    facts["database"]["fence"]["statements"] = []
    (left,) = findings.findings(facts)
    assert left.next_step.endswith("rollback.yml -l <environment>."), "an empty command helps nobody"


def test_what_a_module_hands_over_is_not_taken_apart_again() -> None:
    stop = OperatorError("The answer says Expected: x. Next: y.", expected="this.", next_step="do that.")
    facts = copy.deepcopy(GOOD)
    # mypy knows the class by two names, by which tests and modules import it.
    facts["database"]["fence"] = facts["service"] = at_most_one_entry.refusal(stop)  # type: ignore[arg-type]
    fence, service = findings.findings(facts)
    assert fence == Finding("database:fence", f"Could not read fence: {stop.seen}", "this.", "do that.")
    assert service == Finding("service", stop.seen, "this.", "do that.")


LEFT = Finding("fence:aedpics.f", "The write fence aedpics.f is up.", "none.", "by hand: DROP INDEX aedpics.f;")

INVALID = [{"name": "idx_a", "verdict": "different", "parts": [{"part": "unique", "expected": "yes", "seen": "no"}]}]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda facts: None, []),
        (put("database", "verified", "duplicates_left", value=3), ["duplicates"]),
        (put("database", "verified", "indexes", value=INVALID), ["index:idx_a"]),
        (put("database", "fence", "state", value="raised"), ["fence"]),
        (put("database", "fence", "state", value="partial"), ["fence"]),
        (fence_of(unfinished()), []),
        (fence_of(unfinished(plan_id="another")), ["fence"]),
        (fence_of(DEAD), ["run:R1"]),
        (put("database", "journal", "fences", value=[LEFT.as_data()]), ["fence:aedpics.f"]),
        (put("database", "journal", "runs", value=[{**DEAD, "environment": "staging"}]), []),
        (put("database", "history", "verdict", value="failed"), ["history"]),
        (put("database", "history", value={"verdict": "not_kept", "repair": None}), []),
        (
            put("database", "history", "against", value=[{"number": 1, "migration": "m", "name": "idx_a"}]),
            ["history:next"],
        ),
        (lambda facts: facts.update(service={"checks": []}, hosts={}, released=None), []),
        (put("database", "verified", value=GONE), ["database:verified"]),
        (put("database", "use", value=GONE), ["database:use"]),
        (put("database", "history", value={}), ["database:history"]),
        (put("database", "journal", value=GONE), ["database:journal"]),
        (put("database", value=dict.fromkeys(GOOD["database"], GONE)), ["database"]),
        (sick, ["service:health"]),
        (put("service", value=GONE), ["service"]),
        (put("hosts", "web1", "commit", value=OLD), ["commit:web1"]),
        (put("released", value=None), []),
        (elsewhere, ["commit:web1"]),
        (put("hosts", "web1", "changes", value=["/r/b was built again"]), ["release:web1"]),
        (put("hosts", "web1", "modified", value=[" M file"]), ["release:web1"]),
        (stop_one, ["instances:web1"]),
        (one_more("errored"), ["instances:web1"]),
        (one_more("waiting restart"), ["instances:web1"]),
        (one_more("stopped"), []),
        (put("hosts", "web1", "pm2", value=GONE), ["pm2:web1"]),
        (put("hosts", "web1", "saved", value=False), ["saved:web1"]),
        (put("hosts", "web1", "saved", value=None), []),
    ],
)
def test_each_thing_that_can_be_wrong(change: Callable[[dict[str, Any]], object], expected: list[str]) -> None:
    assert keys(change) == expected


UNITS = ["shop@3001.service", "shop@3002.service"]


@pytest.mark.parametrize(
    ("status", "answer", "name", "next_step"),
    [
        ("failed", {}, "instances:web1", "read the log of shop@3002.service: journalctl --unit=<unit>."),
        ("online", {"saved": False}, "saved:web1", "ask systemctl is-enabled of each"),
        ("online", {"pm2": None}, "pm2:web1", "run monitor.yml again with -v."),
    ],
)
def test_what_is_wrong_with_units_is_not_said_of_pm2(
    status: str, answer: dict[str, Any], name: str, next_step: str
) -> None:
    facts = copy.deepcopy(GOOD)
    host = facts["hosts"]["web1"]
    host |= {"under": "systemd", "pm2": {"instances": [{"pm_id": unit, "status": "online"} for unit in UNITS]}}
    for one in host["pm2"]["instances"]:
        one["cwd"] = "/r/b"
    assert findings.findings(facts) == []
    host["pm2"]["instances"][1]["status"] = status
    host |= answer
    (found,) = findings.findings(facts)
    assert found.name == name
    assert found.next_step.startswith(next_step)
    assert "PM2" not in f"{found}"
    assert "pm2 " not in f"{found}"


EVERY = ["duplicates", "index:idx_a", "fence", "history", "history:next", "run:R0", "service:health"]
EVERY += ["commit:web1", "instances:web1", "saved:web1", "release:web1", "commit:web2", "pm2:web2", "instances:gone"]
LEFT_OUT = {"commit:web2", "pm2:web2"}  # by the limit; "gone" is no host any more


@pytest.mark.parametrize(
    ("change", "stay"),
    [
        (lambda facts: None, []),
        (put("database", "verified", value=GONE), ["duplicates", "index:idx_a"]),
        (put("database", "verified", "duplicates_left", value=None), ["duplicates"]),
        (put("database", "fence", value=GONE), ["fence"]),
        (put("database", "history", value=GONE), ["history", "history:next"]),
        (put("database", "use", value=GONE), []),
        (put("database", "journal", value=GONE), ["fence", "run:R0", "commit:web1"]),
        (put("service", value=GONE), ["service:health"]),
        (put("service", "checks", 0, "ok", value=None), ["service:health"]),
        (put("hosts", "web1", "pm2", value=GONE), ["commit:web1", "instances:web1", "saved:web1"]),
        (put("hosts", "web1", "saved", value=None), ["saved:web1"]),
        (put("hosts", "web1", "commit", value=""), ["commit:web1", "release:web1"]),
    ],
)
def test_what_cannot_be_judged_is_not_over(change: Callable[[dict[str, Any]], object], stay: list[str]) -> None:
    facts = {**copy.deepcopy(GOOD), "environment_hosts": ["web1", "web2"]}
    change(facts)
    before = dict.fromkeys(EVERY, "T1")
    compared = findings.compare(findings.findings(facts, before), before, "T2")
    assert {key for key, since in compared.since.items() if since == "T1"} == {*stay, *LEFT_OUT}
    assert not {one.name for one in compared.new} & {*before}
    assert {one["name"] for one in compared.recovered} == {*before} - {*stay, *LEFT_OUT}


def test_a_part_that_stays_unread_under_another_finding_is_not_over() -> None:
    def over(before: str, found: str) -> bool:
        return bool(findings.compare([Finding(found, "s.", "e.", "n.")], {before: "T1"}, "T2").recovered)

    assert not over("database:history", "database")
    assert not over("database", "database:use")
    assert not over("database:fence+history", "database:fence")
    assert over("database:history", "database:fence")
    assert over("database", "service")


def test_a_fence_that_is_left_is_named_with_the_ways_to_drop_it() -> None:
    facts = copy.deepcopy(GOOD)
    drop = 'DROP INDEX CONCURRENTLY IF EXISTS "aedpics"."at_most_one_fence_1a2b"'
    facts["database"]["fence"] = {"state": "partial", "indexes": ["at_most_one_fence_1a2b"], "statements": [drop]}
    (found,) = findings.findings(facts)
    assert found.seen == "The write fence is partial (at_most_one_fence_1a2b) and no run is at work."
    assert found.next_step.endswith(f"or, when it is taken back already, by hand: {drop};")


def test_a_dead_run_says_what_it_left_and_how_to_go_on_or_back() -> None:
    facts = copy.deepcopy(GOOD)
    fence_of(DEAD)(facts)
    facts["database"]["verified"]["indexes"][0]["verdict"] = "missing"
    (found,) = [one for one in findings.findings(facts) if one.name == "run:R1"]
    assert found.seen == (
        "Run R1 of minsu@gw is dead since T0, after prepare; the write fence is raised; 25 archived rows are not back; "
        "not there as planned: idx_a."
    )
    assert render(found.seen, "ko") == (
        "minsu@gw의 실행 R1: T0 이후 응답이 없습니다(준비 단계 이후; 쓰기 펜스 상태: 올라감; "
        "보관된 25행이 돌아오지 않음; 계획대로 있지 않은 것: idx_a)."
    )
    assert found.next_step == (
        "go on: ansible-playbook deploy.yml -l <environment>; "
        "or take it back: ansible-playbook rollback.yml -l <environment>."
    )
    facts["database"]["journal"]["runs"] = [{**DEAD, "plan_id": "another", "commit_after": None}]
    (found,) = [one for one in findings.findings(facts) if one.name == "run:R1"]
    assert found.next_step == "go on: ansible-playbook rollback.yml -l <environment> -e plan=another."
    assert "fence" not in found.seen


PURGE = {"phases": [{"name": "purge"}], "commit_after": None, "rows": None}


def test_a_dead_purge_is_gone_on_with_and_its_fence_is_another_runs() -> None:
    facts = copy.deepcopy(GOOD)
    fence_of({**DEAD, **PURGE})(facts)
    fence, dead = sorted(findings.findings(facts), key=lambda one: one.name)
    assert (fence.name, dead.name) == ("fence", "run:R1")
    assert dead.seen == "Run R1 of minsu@gw, a purge of the archive, is dead since T0."
    assert dead.next_step == ("ansible-playbook purge.yml -l <environment> -e purge_confirmed=true goes on from it.")


OVERDUE = {"plan_id": "one-active-inspection-session", "rows": 25, "runs": 2}
ARCHIVE = {"keep_days": 90, "bytes": 65_536, "rows": 50, "oldest_days": 300.5, "overdue": [OVERDUE]}


def test_an_archive_past_its_time_is_a_warning_and_no_finding() -> None:
    facts = copy.deepcopy(GOOD)
    facts["database"]["journal"]["archive"] = {**ARCHIVE, "overdue": [OVERDUE, {**OVERDUE, "plan_id": "another"}]}
    assert findings.findings(facts) == []
    ours, other = findings.warnings(facts)
    assert (ours.name, other.name) == ("archive:one-active-inspection-session", "archive:another")
    assert "25 rows of 2 runs of plan one-active-inspection-session for longer than 90 days" in ours.seen
    assert ours.next_step == "ansible-playbook purge.yml -l <environment> lists what would go."
    assert other.next_step == "ansible-playbook purge.yml -l <environment> -e plan=another lists what would go."


def test_what_is_of_another_tenant_its_own_monitor_says() -> None:
    facts = copy.deepcopy(GOOD)
    plans = ("rule@eu.shop", "rule@a$", "rule", "rules@a")
    facts["database"]["journal"] = {
        "runs": [unfinished(run_id=plan, plan_id=plan, dead_since="T0") for plan in plans],
        "archive": {**ARCHIVE, "overdue": [{**OVERDUE, "plan_id": plan} for plan in plans]},
    }
    told = [f"run:{plan}" for plan in plans], [f"archive:{plan}" for plan in plans]
    for plan, left_out in (("other", []), ("rule", []), ("rule@eu.shop", ["rule@a$"])):
        facts["plan"] = plan
        found = [finding.name for finding in findings.findings(facts)], [one.name for one in findings.warnings(facts)]
        assert found == tuple([name for name in names if name.partition(":")[2] not in left_out] for names in told)
    facts["plan"] = "other"
    assert "purge.yml -l <environment> -e plan='rule@a$' lists" in findings.warnings(facts)[1].next_step


@pytest.mark.parametrize("journal", [GONE, {"runs": []}, {"runs": [], "archive": None}])
def test_an_archive_that_was_not_read_is_no_warning(journal: dict[str, Any]) -> None:
    facts = copy.deepcopy(GOOD)
    facts["database"]["journal"] = journal
    assert findings.warnings(facts) == []


def test_prometheus_reads_the_archive() -> None:
    facts = copy.deepcopy(GOOD)
    facts["database"]["journal"]["archive"] = ARCHIVE
    read = samples(prometheus.metrics(facts, [], 1_762_752_600))
    named = {key.removeprefix("at_most_one_archive_"): value for (key, _), value in read.items() if "archive" in key}
    assert named == {"rows": 50, "size_bytes": 65_536, "oldest_days": 300.5, "overdue_rows": 25}


def run(outcome: str | None, phases: Mapping[str, dict[str, Any]] | None = None, **values: Any) -> dict[str, Any]:
    named = [{"name": name, "details": details} for name, details in (phases or {}).items()]
    return {
        **{"environment": "production", "outcome": outcome, "phases": named, "failed_phase": None},
        **{"commit_before": OLD, "commit_after": COMMIT, **values},
    }


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([], None),
        ([run("deployed")], COMMIT),
        ([run("deployed", environment="staging")], None),
        ([run(None), run("deployed")], COMMIT),
        ([run("stopped", failed_phase="verify"), run("unchanged")], COMMIT),
        ([run("rolled_back", {"rollback": {"commit": OLD}}), run("deployed")], OLD),
        ([run("rolled_back", failed_phase="verify")], OLD),
        ([run("stopped", {"pm2_reload": {}})], COMMIT),
        ([run("stopped", {"verify": {}}), run("abandoned")], None),
        ([run("unchanged", {"purge": {}}, commit_after=None), run("deployed")], COMMIT),
        ([run("deployed", {"healthcheck": {}, "purged": {}})], COMMIT),
    ],
)
def test_what_was_released_last(runs: list[dict[str, Any]], expected: str | None) -> None:
    assert findings.released(runs, "production") == expected


def test_people_are_told_of_a_change_and_of_nothing_else() -> None:
    def found(*names: str) -> list[Finding]:
        return [Finding(name, "s.", "e.", "n.") for name in names]

    first = findings.compare(found("duplicates"), {}, "T1")
    assert ([one.name for one in first.new], first.recovered, first.since) == (["duplicates"], [], {"duplicates": "T1"})

    second = findings.compare(found("duplicates"), first.since, "T2")
    assert (second.new, second.recovered, second.since) == ([], [], {"duplicates": "T1"})

    third = findings.compare(found("duplicates", "fence"), second.since, "T3")
    assert ([one.name for one in third.new], third.since) == (["fence"], {"duplicates": "T1", "fence": "T3"})

    fourth = findings.compare([], third.since, "T4")
    assert fourth.recovered == [{"name": "duplicates", "since": "T1"}, {"name": "fence", "since": "T3"}]
    assert fourth.since == {}


def test_the_text_of_several_findings_is_taken_apart_again() -> None:
    from at_most_one.findings import parse

    found = findings.findings({**GOOD, "service": GONE, "hosts": {}, "database": {**GOOD["database"], "use": {}}})
    assert [one.seen for one in parse(findings.as_text(found)).findings] == [one.seen for one in found]


def samples(text: str) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("index") or sample.labels.get("host") or sample.labels.get("key", "")): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_reads_every_figure() -> None:
    text = prometheus.metrics(GOOD, [], 1_762_752_600.25)

    assert samples(text) == {
        ("at_most_one_last_run_timestamp_seconds", ""): 1_762_752_600.25,
        ("at_most_one_findings", ""): 0,
        ("at_most_one_duplicate_groups", ""): 0,
        ("at_most_one_index_as_planned", "idx_a"): 1,
        ("at_most_one_fence_up", ""): 0,
        ("at_most_one_index_scans_total", "idx_a"): 7,
        ("at_most_one_index_size_bytes", "idx_a"): 8192,
        ("at_most_one_index_hit_percent", "idx_a"): 99.5,
        ("at_most_one_instances_online", "web1"): 2,
    }
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["at_most_one_index_scans"].type == "counter"
    assert all(
        sample.labels["environment"] == "production" for family in families.values() for sample in family.samples
    )


def test_what_was_not_read_or_is_not_planned_alarms_nobody_at_night() -> None:
    """monitor/alerts.yml pages for a 0 of these: instances that nobody has seen, and an index beyond the plan."""
    facts = copy.deepcopy(GOOD)
    facts["hosts"] |= {"web2": {"unreachable": True, "msg": "ssh"}, "web3": {"pm2": {"instances": []}}}
    facts["database"]["verified"]["indexes"].append({"name": "idx_b", "verdict": "unexpected"})
    read = samples(prometheus.metrics(facts, findings.findings(facts), 1.0))
    assert read[("at_most_one_instances_online", "web3")] == 0
    assert ("at_most_one_instances_online", "web2") not in read
    assert ("at_most_one_index_as_planned", "idx_b") not in read
    assert {("at_most_one_finding", key) for key in ("pm2:web2", "index:idx_b")} <= {*read}, "they are findings"


def test_prometheus_reads_hostile_labels_and_a_database_that_is_gone() -> None:
    key = 'index:"\\\n{x}'
    text = prometheus.metrics({**GOOD, "database": {"verified": GONE}}, [Finding(key, "s.", "e.", "n.")], 1_762_752_600)

    assert samples(text)[("at_most_one_finding", key)] == 1
    assert "at_most_one_duplicate_groups" not in text, "unknown is not 0"


def test_what_a_foreign_error_says_of_a_secret_is_not_repeated() -> None:
    """It stands on the page and on the screen: neither is cleaned, as a message to people is."""
    facts = copy.deepcopy(GOOD)
    facts["hosts"]["web1"] = {"unreachable": True, "msg": "ssh: ProxyCommand at https://deploy:hunter2@jump:22 failed"}
    (found,) = (one for one in findings.findings(facts) if one.name == "pm2:web1")
    assert "ssh: ProxyCommand" in found.seen
    assert "hunter2" not in found.seen


def test_a_fence_of_another_plan_is_not_over_as_long_as_the_journal_cannot_be_read() -> None:
    facts = copy.deepcopy(GOOD)
    assert findings.findings(facts, ["fence:aedpics.f"]) == []
    facts["database"]["journal"] = GONE
    assert "fence:aedpics.f" in [one.name for one in findings.findings(facts, ["fence:aedpics.f"])]
