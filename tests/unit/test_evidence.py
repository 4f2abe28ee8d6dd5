"""The evidence of a rehearsal: sealed when it is written, and refused for each reason that makes it none."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from at_most_one.errors import OperatorError
from at_most_one.plan import for_tenant, parse
from at_most_one.rehearsal import evidence

NOW = datetime(2025, 11, 10, 12, 0, tzinfo=UTC)
WANTED = evidence.Wanted(
    plan_id="one-active",
    plan_sha256="a" * 64,
    commit="c" * 40,
    environment="production",
    max_age_hours=168,
    how="ansible-playbook rehearse.yml -i inventories/staging -l staging",
)


def rehearsed(**changes: Any) -> dict[str, Any]:
    turn = {"run_id": "r1", "outcome": "deployed", "phases": [{"name": "cleanup", "status": "ok", "seconds": 3.5}]}
    return {
        "plan": {"id": "one-active", "sha256": "a" * 64},
        "commit": {"before": "b" * 40, "after": "c" * 40},
        "environment": "staging",
        "who": "kim",
        "outcome": "passed",
        "ended_at": "2025-11-09T12:00:00Z",
        "turns": [
            {**turn, "name": "forward", "seconds": 61.5},
            {**turn, "name": "back", "run_id": "r2", "seconds": 20.0},
            {**turn, "name": "again", "run_id": "r3", "seconds": 40.0},
        ],
        "recovery_seconds": 20.0,
        "differences": [],
        **changes,
    }


def test_what_was_written_is_read_again_and_accepted(tmp_path: Path) -> None:
    path = str(tmp_path / "evidence.json")
    written = evidence.write(path, rehearsed(who="김철수"))

    read = evidence.read(path, WANTED.how)
    evidence.judge(read, WANTED, NOW)

    assert read == written
    assert Path(path).stat().st_mode & 0o777 == 0o640
    assert [entry.name for entry in tmp_path.iterdir()] == ["evidence.json"]
    summary = evidence.summary(read)
    assert (summary["seconds"], summary["recovery_seconds"]) == (61.5, 20.0)
    assert summary["phases"] == [{"name": "cleanup", "seconds": 3.5}]
    assert summary["runs"] == ["r1", "r2", "r3"]


def test_a_sealed_document_sealed_once_more_is_the_same() -> None:
    """The file has the first, the journal the second."""
    sealed = evidence.seal(rehearsed())
    assert evidence.seal(sealed) == sealed


def test_another_layout_of_the_same_content_keeps_the_seal(tmp_path: Path) -> None:
    path = tmp_path / "evidence.json"
    written = evidence.write(str(path), rehearsed())
    path.write_text(json.dumps(dict(reversed(written.items()))))

    assert evidence.read(str(path), WANTED.how) == written


EDITS = {
    "the outcome": lambda d: d.update(outcome="passed", ended_at="2025-11-09T12:00:01Z"),
    "a phase's seconds": lambda d: d["turns"][0]["phases"][0].update(seconds=0.1),
    "a key more": lambda d: d.update(note="fine"),
    "a key less": lambda d: d.pop("differences"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_file_is_refused(tmp_path: Path, edit: str) -> None:
    path = tmp_path / "evidence.json"
    document = evidence.write(str(path), rehearsed())
    EDITS[edit](document)
    path.write_text(json.dumps(document))

    with pytest.raises(OperatorError, match="was changed after the rehearsal wrote it") as refused:
        evidence.read(str(path), WANTED.how)
    assert "rehearse.yml" in refused.value.next_step


FILES = {
    "no file": (None, "does not exist"),
    "an empty file": ("", "it is not JSON"),
    "a cut file": ('{"format": 1, "plan": {', "it is not JSON"),
    "a list": ("[]", "is no evidence of a rehearsal"),
    "another document": ('{"run_id": "x"}', "is no evidence of a rehearsal"),
    "a sealed document of something else": (json.dumps(evidence.seal({"plan": {}})), "it lacks commit"),
}


@pytest.mark.parametrize("file", FILES)
def test_what_is_no_evidence_is_refused_by_name(tmp_path: Path, file: str) -> None:
    path = tmp_path / "evidence.json"
    content, message = FILES[file]
    if content is not None:
        path.write_text(content)

    with pytest.raises(OperatorError, match=message) as refused:
        evidence.read(str(path), WANTED.how)
    assert str(path) in refused.value.seen


JUDGED: dict[str, tuple[dict[str, Any], str]] = {
    "another plan": ({"plan": {"id": "other", "sha256": "a" * 64}}, "was of plan other, and one-active is deployed"),
    "the plan changed": ({"plan": {"id": "one-active", "sha256": "d" * 64}}, "then dddddddddddd, now aaaaaaaaaaaa"),
    "another commit": ({"commit": {"after": "e" * 40}}, "was of commit eeeeeeeeeeee, and cccccccccccc is deployed"),
    "too old": ({"ended_at": "2025-11-03T11:59:00Z"}, "168.0 hours ago"),
    "in the future": ({"ended_at": "2025-11-10T12:06:00Z"}, "in the future"),
    "the same environment": ({"environment": "production"}, "in production itself"),
    "killed": ({"outcome": "unfinished", "turns": []}, "is not finished (turns that ended well: none)"),
    "failed": ({"outcome": "failed", "differences": ["- index x"]}, "ended as failed"),
}


@pytest.mark.parametrize("case", JUDGED)
def test_a_rehearsal_of_something_else_does_not_count(case: str) -> None:
    changes, message = JUDGED[case]
    with pytest.raises(OperatorError) as refused:
        evidence.judge(evidence.seal(rehearsed(**changes)), WANTED, NOW)
    assert message in refused.value.seen
    assert refused.value.expected
    assert "rehearse.yml -i inventories/staging -l staging" in refused.value.next_step


@pytest.mark.parametrize("hours", [0.5, 24.0])
def test_the_age_is_counted_from_its_end(hours: float) -> None:
    document = evidence.seal(rehearsed(ended_at=(NOW - timedelta(hours=hours)).isoformat()))
    evidence.judge(document, replace(WANTED, max_age_hours=hours), NOW)
    with pytest.raises(OperatorError, match="hours ago"):
        evidence.judge(document, replace(WANTED, max_age_hours=hours - 0.1), NOW)


PLAN: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "plans/good.yml").read_text())
SHOP_A, SHOP_B, SHOP_C = (for_tenant({**PLAN, "tenants": {}}, name) for name in ("shop_a", "eu.shop_b", "shop_c"))
OF_A = replace(WANTED, plan_id=SHOP_A["id"], plan_sha256=parse(SHOP_A).sha256, plan=SHOP_A)


def with_tenant(plan: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return rehearsed(plan={"id": plan["id"], "sha256": parse(plan).sha256}, **changes)


@pytest.mark.parametrize("plan", [SHOP_A, SHOP_B])
def test_a_rehearsal_with_any_tenant_is_one_of_the_plan(plan: dict[str, Any]) -> None:
    evidence.judge(evidence.seal(with_tenant(plan)), OF_A, NOW)


@pytest.mark.parametrize(
    ("plan", "wanted", "message"),
    [
        ({**SHOP_B, "ceiling": 9_999}, OF_A, "The plan good@eu.shop_b was changed since the rehearsal"),
        ({**SHOP_B, "schema": "shop_z"}, OF_A, "The plan good@eu.shop_b was changed since the rehearsal"),
        ({**SHOP_B, "id": "other@eu.shop_b"}, OF_A, "was of plan other@eu.shop_b, and good@shop_a is deployed"),
        (PLAN, OF_A, "was of plan good, and good@shop_a is deployed"),
        (SHOP_B, replace(OF_A, plan={}), "was of plan good@eu.shop_b, and good@shop_a is deployed"),
        (SHOP_B, replace(OF_A, plan_id="good", plan_sha256=parse(PLAN).sha256), "and good is deployed"),
    ],
)
def test_a_rehearsal_of_another_plan_or_of_other_words_is_none(
    plan: dict[str, Any], wanted: evidence.Wanted, message: str
) -> None:
    with pytest.raises(OperatorError) as refused:
        evidence.judge(evidence.seal(with_tenant(plan)), wanted, NOW)
    assert message in refused.value.seen


def test_without_evidence_of_its_own_a_tenant_has_that_of_the_one_rehearsed_last(tmp_path: Path) -> None:
    own, last = tmp_path / "good@shop_a.json", tmp_path / "good@shop_c.json"
    assert evidence.of_any_tenant(str(tmp_path / "nowhere/good@shop_a.json"), OF_A).endswith("nowhere/good@shop_a.json")
    assert evidence.of_any_tenant(str(own), OF_A) == str(own), "no tenant was rehearsed"
    evidence.write(str(tmp_path / "good@eu.shop_b.json"), with_tenant(SHOP_B, ended_at="2025-11-08T12:00:00Z"))
    evidence.write(str(tmp_path / "good.json"), with_tenant(PLAN, ended_at="2025-11-10T11:00:00Z"))
    (tmp_path / "good@z.json").write_text("{}")
    assert evidence.of_any_tenant(str(own), OF_A) == str(tmp_path / "good@eu.shop_b.json")
    evidence.write(str(last), with_tenant(SHOP_C, outcome="failed"))
    assert evidence.of_any_tenant(str(own), OF_A) == str(last), "a later one, however it has ended"
    assert evidence.of_any_tenant(str(tmp_path / "given.json"), OF_A) == str(tmp_path / "given.json")
    of_the_plan = replace(OF_A, plan_id="good")
    assert evidence.of_any_tenant(str(tmp_path / "x/good.json"), of_the_plan) == str(tmp_path / "x/good.json")
    evidence.write(str(own), with_tenant(SHOP_A, outcome="unfinished"))
    assert evidence.of_any_tenant(str(own), OF_A) == str(own), "its own counts, however it has ended"
