"""What people are told of a run, from its facts alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from at_most_one.notify.messages import Notice
from at_most_one.notify.notices import Event, notice

ROOT = Path(__file__).parents[2]
PLAN = yaml.safe_load((ROOT / "plans/one-active-inspection-session.yml").read_text())
WORDS = {
    language: yaml.safe_load((ROOT / f"roles/notify/files/words_{language}.yml").read_text())
    for language in ("en", "ko")
}
RUN = {
    **{"run_id": "20251110T053000Z-1a2b3c", "plan": PLAN, "plan_sha256": "397e", "report_path": "artifacts/1"},
    **{"commit_before": "f30ada37db1b3e57", "commit_after": "4f743598c1458746"},
}


def told(name: str, run: dict[str, Any] | None = None, language: str = "en", **more: Any) -> Notice:
    event = {
        **{"name": name, "environment": "staging", "application": "aedpics", "language": language, "at": "now"},
        "run": {**RUN, **run} if run is not None else {},
        **more,
    }
    return notice(Event.of_role(event), WORDS[language])


def test_a_run_that_begins_has_no_end_to_tell() -> None:
    begun = told("start", {})
    assert begun.title == "Deployment has begun: staging | aedpics"
    assert [name for name, _ in begun.facts] == ["Plan", "Commit", "By", "Run"]
    assert (begun.data["outcome"], begun.data["report"]) == (None, None)
    assert told("start", {}, front_door="rollback.yml").title.startswith("Rollback has begun")


def test_single_phases_are_not_told_as_a_deployment() -> None:
    partial = told("success", {"outcome": "deployed", "partial": True, "asked": ["verify"]})
    assert partial.title.startswith("Ended as asked after single phases")
    assert ("Asked for", "Verify") in partial.facts


def test_what_could_not_return_is_in_the_title() -> None:
    left = {"outcome": "rolled_back", "restored": 18, "left_count": 2, "error": "It fails. Expected: not. Next: look."}
    assert told("rollback", left).title == "Rolled back, without 2 rows: staging | aedpics"
    assert told("rollback", left, "ko").title == "롤백 완료(2행 제외): staging | aedpics"
    assert ("Rows that stay in the archive", "2") in told("rollback", left).facts
    assert "Some rows could not return" in told("rollback", left).error


def test_after_a_rollback_nobody_is_asked_for_one() -> None:
    stopped = {"outcome": "rolled_back", "error": "It fails. Expected: not. Next: read it; otherwise rollback.yml"}
    assert told("rollback", stopped).error == (
        "It fails. Expected: not. Next: It is already rolled back: do not run rollback.yml. read it."
    )
    assert told("stop", stopped).error == stopped["error"]


def test_lost_requests_and_the_indexes_of_a_verify_that_stopped_are_told() -> None:
    indexes = [{"name": index["name"], "verdict": "present"} for index in PLAN["indexes"]]
    indexes[0]["verdict"] = "different"
    facts = told(
        "stop",
        {
            **{
                "outcome": "stopped",
                "failed_phase": "verify",
                "removed": 20,
                "verified": {"details": {"indexes": indexes}},
            },
            "traffic": {"requests": 240, "failures": 1},
        },
    ).facts
    assert facts[4:] == (
        ("Stopped in", "Verify"),
        ("Rows removed", "20"),
        ("Planned indexes", "2 / 3"),
        ("Failed requests", "1 / 240 (0.42 %)"),
        ("Report", "artifacts/1/report.html"),
    )


def test_an_alert_says_what_its_caller_found() -> None:
    alert = told("alert", title="Over", facts=[{"name": "duplicates", "value": "since today"}], error="None.")
    assert (alert.title, alert.facts, alert.error) == (
        "Over: staging | aedpics",
        (("duplicates", "since today"),),
        "None.",
    )
    assert alert.data == {"environment": "staging", "application": "aedpics", "at": "now", "language": "en"}
    assert told("alert", {"error": "of the run"}, title="Bad", error="of the watch").error == "of the watch"


def test_both_languages_have_the_same_words() -> None:
    en, ko = WORDS["en"], WORDS["ko"]
    assert set(en) == set(ko)
    assert all(set(en[name]) == set(ko[name]) for name in en if isinstance(en[name], dict))
