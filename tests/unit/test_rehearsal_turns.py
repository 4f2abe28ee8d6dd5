"""A rehearsal's evidence grows turn by turn: each run has to end as its turn wants, and each difference is named."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible.plugins.loader import action_loader
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan, parse
from at_most_one.rehearsal import evidence, turns

from tests.conftest import ROOT

action_loader.add_directory(str(ROOT / "action_plugins"))
BEGINNING = turns.Beginning(
    environment="staging",
    hosts=["web1", "web2"],
    who="kim",
    controller="gateway-1",
    tool="8f3a1b2c4d5e",
    commit_before="a" * 40,
    commit_after="b" * 40,
    clone={},
)
NOW = "2025-11-10T05:30:00Z"


@pytest.fixture(scope="module")
def plan() -> Plan:
    return parse(yaml.safe_load((ROOT / "plans/one-active-inspection-session.yml").read_text()))


def state(*indexes: str) -> dict[str, Any]:
    return {"schema": {"usable_indexes": list(indexes)}, "schema_sha256": "0" * 64, "content_sha256": "1" * 64}


def begun(plan: Plan) -> dict[str, Any]:
    return turns.begin(plan, BEGINNING, state(), NOW)


def after(document: dict[str, Any], outcome: str, *differences: str, **changes: Any) -> dict[str, Any]:
    """The evidence after a run that ended so."""
    phases = [{"name": "cleanup", "status": "ok", "seconds": 1.5, "details": {"removed": 25}}]
    run = {"run_id": f"r{len(document['turns']) + 1}", "outcome": outcome, "seconds": 20.5, "phases": phases}
    turn = turns.next_turn(document, str(run["run_id"]), outcome)
    return turns.with_turn(document, turn, {**run, "commit_after": "c" * 40, **changes}, state(), differences, NOW)


def test_three_turns_without_a_difference_pass(plan: Plan) -> None:
    document = begun(plan)
    assert (document["outcome"], document["turns"], list(document["states"])) == ("unfinished", [], ["before"])
    assert document["rehearsal_id"] == f"{NOW}-staging"
    assert document["plan"] == {"id": plan.id, "sha256": plan.sha256}
    for outcome in ("deployed", "rolled_back", "deployed"):
        assert document["outcome"] == "unfinished"
        document = after(document, outcome)
    assert document["outcome"] == "passed"
    assert list(document["states"]) == ["before", "forward", "back", "again"]
    assert [(turn["name"], turn["run_id"]) for turn in document["turns"]] == [
        ("forward", "r1"),
        ("back", "r2"),
        ("again", "r3"),
    ]
    assert document["turns"][0]["phases"] == [{"name": "cleanup", "status": "ok", "seconds": 1.5}]
    assert evidence.seal(document)["sha256"]
    turns.require_no_difference(document)
    with pytest.raises(OperatorError, match="has had its 3 turns"):
        after(document, "rolled_back")


def test_the_recovery_time_is_that_of_the_way_back_and_the_commit_that_of_the_last_deployment(plan: Plan) -> None:
    document = after(begun(plan), "deployed", seconds=61.5)
    assert document["recovery_seconds"] == 0
    document = after(document, "rolled_back", seconds=12.25, commit_after="a" * 40)
    assert document["recovery_seconds"] == 12.25
    assert document["commit"] == {"before": "a" * 40, "after": "c" * 40}
    assert after(document, "deployed", seconds=30.0)["recovery_seconds"] == 12.25
    without_application = after(document, "deployed", commit_after=None)
    assert without_application["commit"]["after"] == "", "as the deployment that asks for it has it"


def test_a_difference_is_named_with_its_turn_and_fails_the_rehearsal_at_its_end(plan: Plan) -> None:
    document = after(after(begun(plan), "deployed"), "rolled_back", "- index x", "+ trigger y")
    assert document["outcome"] == "unfinished", "the way goes on: the second way forward is of use too"
    turns.require_no_difference(document)
    document = after(document, "deployed", "content of t: 1 rows then, 2 now")
    assert document["differences"] == [
        "back is not as before: - index x",
        "back is not as before: + trigger y",
        "again is not as forward: content of t: 1 rows then, 2 now",
    ]
    with pytest.raises(OperatorError, match="something is different: back is not as before: - index x; ") as refused:
        turns.require_no_difference(document)
    assert "if somebody works in staging meanwhile" in refused.value.next_step


@pytest.mark.parametrize(("outcome", "said"), [("unchanged", "unchanged"), (None, "no closed run")])
def test_a_run_that_ended_otherwise_is_no_turn(plan: Plan, outcome: str | None, said: str) -> None:
    with pytest.raises(OperatorError, match=rf"The turn back ended as {said} \(run r9\)") as refused:
        turns.next_turn(after(begun(plan), "deployed"), "r9", outcome)
    assert refused.value.expected == "rolled_back."
    assert "artifacts/staging/r9/report.html" in refused.value.next_step


def test_where_the_rule_holds_already_there_is_nothing_to_rehearse(plan: Plan) -> None:
    there = state(*(index.name for index in plan.indexes))
    with pytest.raises(OperatorError, match=r"staging has every planned index: there is nothing"):
        turns.begin(plan, BEGINNING, there, NOW)
    cloned = turns.Beginning(**{**vars(BEGINNING), "clone": {"source": "db:5432/app"}})
    with pytest.raises(OperatorError, match="because the source of the clone has"):
        turns.begin(plan, cloned, there, NOW)


def acted(document: dict[str, Any], path: Path, *, check: bool = False, **result: Any) -> dict[str, Any]:
    """What the action makes of what the module returns."""
    task = SimpleNamespace(args={"path": str(path)}, check_mode=check, async_val=0, action="rehearsal_evidence")
    connection = SimpleNamespace(transport="local", become=None, _shell=SimpleNamespace(tmpdir=None))
    action = action_loader.get(
        "rehearsal_evidence",
        **{"task": task, "connection": connection, "play_context": None, "loader": None},
        **{"templar": None, "shared_loader_obj": None},
    )
    given = {}

    def execute(module_args: dict[str, Any], task_vars: object) -> dict[str, Any]:
        given.update(module_args)
        return {"changed": False, "document": evidence.seal(document), **result}

    action._execute_module = execute
    answer: dict[str, Any] = action.run(task_vars={})
    assert given["tool"] != "unknown", "a checkout has a commit"
    return answer


def test_the_action_writes_what_the_module_returned_and_then_stops_at_a_difference(plan: Plan, tmp_path: Path) -> None:
    path = tmp_path / "rehearsal/rule.json"
    document = begun(plan)
    assert not acted(document, path, check=True).get("failed")
    assert not path.parent.exists()
    assert acted(document, path)["document"] == evidence.read(str(path), "") == evidence.seal(document)

    bad = after(after(after(document, "deployed"), "rolled_back", "- index x"), "deployed")
    stopped = acted(bad, path)
    assert stopped["failed"]
    assert "back is not as before: - index x" in stopped["msg"]
    assert json.loads(path.read_text())["outcome"] == "failed"


def test_the_action_writes_nothing_after_a_refusal_and_says_what_it_cannot_write(plan: Plan, tmp_path: Path) -> None:
    path = tmp_path / "rule.json"
    assert acted(begun(plan), path, failed=True, msg="no.")["msg"] == "no."
    assert not path.exists()
    (tmp_path / "file").touch()
    stopped = acted(begun(plan), tmp_path / "file/rule.json")
    assert stopped["expected"] == "files and directories that the account of this task may read and write."
