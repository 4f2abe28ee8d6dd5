"""What people are told of a run, from its facts alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from at_most_one.notify.messages import Allowance, Notice
from at_most_one.notify.notices import Event, notice
from at_most_one.report.document import document
from at_most_one.report.facts import RunFacts

ROOT = Path(__file__).parents[2]
PLAN = yaml.safe_load((ROOT / "plans/one-active-inspection-session.yml").read_text())
WORDS = {
    language: yaml.safe_load((ROOT / f"roles/notify/files/words_{language}.yml").read_text())
    for language in ("en", "ko")
}
RUN: dict[str, Any] = {
    **{"run_id": "20251110T053000Z-1a2b3c", "environment": "staging", "application": "aedpics", "language": "en"},
    **{
        "check_mode": False,
        "outcome": "running",
        "plan": PLAN,
        "plan_sha256": "397e",
        "report_path": "",
        "commands": {},
    },
    **{"commit_before": "f30ada37db1b".ljust(40, "0"), "commit_after": "4f743598c145".ljust(40, "0")},
    "opened": {"run": {"who": "minsu"}},
}


def told(name: str, run: dict[str, Any] | None = None, language: str = "en", **more: Any) -> Notice:
    """The message about a run with these facts, as its report says them."""
    about: dict[str, Any] = {}
    if run is not None:
        report = document(RunFacts.of_role({**RUN, **run}))
        about = {"plan": PLAN, "report": json.loads(json.dumps(report)), "report_path": "artifacts/1"}
    return notice(Event(name, "staging", "aedpics", language, "now", **about, **more), WORDS[language])


def test_a_run_that_begins_has_no_end_to_tell() -> None:
    begun = told("start", {})
    assert begun.title == "Deployment has begun: staging | aedpics"
    assert [name for name, _ in begun.facts] == ["Plan", "Commit", "By", "Run"]
    assert ("By", "minsu") in begun.facts
    assert (begun.data["outcome"], begun.data["report"]) == (None, None)
    assert told("start", {}, front_door="rollback.yml").title.startswith("Rollback has begun")


def test_who_is_waited_for_is_told_how_to_let_it_go_on() -> None:
    told_of = told("hold", {})
    assert told_of.title == "Deployment waits before the cutover: staging | aedpics"
    named = "-e plan=one-active-inspection-session -e control_action=continue"
    assert ("To go on", f"ansible-playbook control.yml -l staging {named}") in told_of.facts
    assert ("By", "minsu") in told_of.facts
    assert told("hold", {}, language="ko").title.startswith("전환 전에 대기 중")


def test_single_phases_are_not_told_as_a_deployment() -> None:
    partial = told("success", {"outcome": "deployed", "partial": True, "asked": ["verify"]})
    assert partial.title.startswith("Ended as asked after single phases")
    assert ("Asked for", "Verify") in partial.facts


def test_what_could_not_return_is_in_the_title() -> None:
    left = {
        "outcome": "rolled_back",
        "rollback": {"done": {"restored": 18, "left_count": 2}},
        "error": "It fails. Expected: not. Next: look.",
    }
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


def test_a_message_is_in_one_language_with_its_identifier() -> None:
    found = {"identifier": "AMO-3210", "seen": "8행.", "expected": "최대 4행.", "next_step": "보고서.", "english": {}}
    error = "8 rows. Expected: at most 4. Next: look.\nThe write fence stays up: no answer"
    stopped = {"outcome": "stopped", "error": error, "findings": [found, {**found, "identifier": ""}]}
    assert told("stop", stopped, "ko").error == (
        "8행. [AMO-3210] Expected: 최대 4행. Next: 보고서. Seen: 8행. Expected: 최대 4행. Next: 보고서."
        "\nThe write fence stays up: no answer"
    )
    behind = {"text": "쓰기 펜스가 남아 있습니다: 응답 없음", "english": "The write fence stays up: no answer"}
    assert told("stop", {**stopped, "afterwards": [behind]}, "ko").error.endswith(f" Next: 보고서.\n{behind['text']}")


def test_lost_requests_and_the_indexes_of_a_verify_that_stopped_are_told() -> None:
    indexes = [{"name": index["name"], "verdict": "present"} for index in PLAN["indexes"]]
    indexes[0]["verdict"] = "different"
    facts = told(
        "stop",
        {
            **{
                "outcome": "stopped",
                "failed_phase": "verify",
                "cleanup": {"removed": 20},
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
    over = {"kind": "monitor_over", "recovered": [{"name": "duplicates", "since": "today"}]}
    alert = told("alert", alert=over)
    assert (alert.title, alert.facts, alert.error) == (
        "Over, as the monitor sees it: staging | aedpics",
        (("duplicates", "known since today"),),
        "",
    )
    assert alert.data == {"environment": "staging", "application": "aedpics", "at": "now", "language": "en"}
    of_tenant = {"id": "rule@shop", "title": {"en": "The rule [shop]", "ko": "규칙 [shop]"}}
    named = told("alert", alert=over, plan=of_tenant)
    assert named.facts == (("Plan", "The rule [shop]"), ("duplicates", "known since today"))
    assert named.data["plan"] == {"id": "rule@shop"}
    new = told("alert", alert={"kind": "monitor_new", "error": "None."}, language="ko")
    assert (new.title, new.error) == ("정기 점검에서 새로운 이상 발견: staging | aedpics", "None.")
    watched = told("alert", {"error": "of the run"}, alert={"kind": "watch", "error": "of the watch"})
    assert (watched.error, watched.data["run_id"]) == ("of the watch", RUN["run_id"])


def test_the_messages_of_a_run_share_their_time() -> None:
    assert not Allowance(4.0).is_used_up
    assert (Allowance(4.0, 2.5).left_s, Allowance(4.0, 2.5).is_used_up) == (1.5, False)
    assert Allowance(4.0, 3.1).is_used_up


def test_both_languages_have_the_same_words() -> None:
    en, ko = WORDS["en"], WORDS["ko"]
    assert set(en) == set(ko)
    assert all(set(en[name]) == set(ko[name]) for name in en if isinstance(en[name], dict))
