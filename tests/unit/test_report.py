"""What a run's report says, from its facts alone: report.json, and what the page derives from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from at_most_one.report.document import document
from at_most_one.report.facts import RunFacts
from at_most_one.report.page import Page, page
from jinja2 import Environment, FileSystemLoader

ROOT = Path(__file__).parents[2]
PLAN = yaml.safe_load((ROOT / "plans/one-active-inspection-session.yml").read_text())
WORDS = yaml.safe_load((ROOT / "roles/report/files/words_en.yml").read_text())
RUN, EARLIER = "20251110T053000Z-1a2b3c", "20251110T043000Z-000000"
NAMES = [index["name"] for index in PLAN["indexes"]]
REACHED = {"reached": {"runs": [RUN, EARLIER], "built": NAMES}}


def facts(outcome: str, **more: Any) -> RunFacts:
    return RunFacts.of_role(
        {
            **{"run_id": RUN, "environment": "staging", "application": "aedpics", "language": "en"},
            **{"check_mode": False, "outcome": outcome, "plan": PLAN, "plan_sha256": "397e"},
            **{"commit_before": "f30ada37db1b".ljust(40, "0"), "commit_after": "4f743598c145".ljust(40, "0")},
            "report_path": "artifacts/staging/latest/report.html",
            "commands": {"deploy": "deploy it", "again": "do it again", "rollback": "roll it back"},
            **more,
        }
    )


def written(run: RunFacts) -> Page:
    return page(run, document(run), WORDS)


def verdicts(*verdicts: str) -> dict[str, Any]:
    return {"indexes": [{"name": name, "verdict": one} for name, one in zip(NAMES, verdicts, strict=True)]}


def test_nothing_is_claimed_of_a_run_that_left_nothing() -> None:
    report = document(facts("stopped", error="No answer.", failed_phase="prepare"))
    assert report["cleanup"] == {"groups": 0, "planned": 0, "removed": 0, "archived": 0, "unarchived": []}
    assert (report["duplicates_left"], report["indexes"], report["instances"], report["phases"]) == (None, [], [], [])


FOUND = {
    "name": "",
    "identifier": "AMO-3210",
    **{
        "seen": "8행이 떠나야 합니다.",
        "expected": "최대 4행.",
        "next_step": "보고서를 보십시오; rollback.yml 로 되돌리십시오.",
    },
    "english": {"seen": "8 rows are to leave.", "expected": "at most 4.", "next_step": "look; or roll it back."},
}
ERROR = "8 rows are to leave. Expected: at most 4. Next: look; or roll it back."


def test_the_report_is_in_one_language_and_keeps_the_english_beside_it() -> None:
    run = facts("stopped", error=ERROR, failed_phase="cleanup", findings=[FOUND])
    assert document(run)["findings"] == [{name: text for name, text in FOUND.items() if name != "name"}]
    assert document(run)["error"] == ERROR
    (shown,) = written(run).findings
    assert shown == {name: FOUND[name] for name in ("identifier", "seen", "expected", "next_step")}
    (taken_back,) = written(facts("rolled_back", error=ERROR, failed_phase="cleanup", findings=[FOUND])).findings
    assert taken_back["next_step"] == "보고서를 보십시오."


def test_what_came_after_the_first_error_is_in_the_reader_s_language() -> None:
    behind = {"text": "쓰기 펜스가 남아 있습니다: 없음", "english": "The write fence stays up: none"}
    run = facts("stopped", error=f"{ERROR}\n{behind['english']}", findings=[FOUND], afterwards=[behind])
    assert document(run)["afterwards"] == [behind]
    assert written(run).afterwards == behind["text"]
    assert written(facts("stopped", error=f"{ERROR}\n{behind['english']}")).afterwards == behind["english"]


def test_checks_are_in_the_reader_s_language_on_the_page_and_in_english_in_the_report() -> None:
    check = {"name": "session", "ok": None, "request": "POST /x", "expected": "", "got": "not run in check mode"}
    handed = {**check, "phrases": {"got": {"template": "not run in check mode", "values": {}}}}
    run = facts("deployed", language="ko", service={"before": False, "checks": [handed], "found": [handed]})
    assert document(run)["checks"] == document(run)["known_faults"] == [check]
    shown = written(run)
    assert [one["got"] for one in (*shown.checks, *shown.known_faults)] == ["점검 모드에서는 실행하지 않음"] * 2


def test_the_error_of_a_role_is_taken_apart() -> None:
    report = document(facts("stopped", error=ERROR, failed_phase="cleanup"))
    assert report["findings"] == [{"identifier": "", **FOUND["english"], "english": FOUND["english"]}]  # type: ignore[dict-item]  # a mapping in it
    assert document(facts("deployed"))["findings"] == []


def test_check_mode_has_removed_nothing() -> None:
    found = document(facts("unchanged", check_mode=True, cleanup={"groups": 2, "planned": 5, "removed": 5}))["cleanup"]
    assert (found["planned"], found["removed"]) == (5, 0)
    shown = written(facts("unchanged", check_mode=True, cleanup={"groups": 2, "planned": 5, "removed": 5}))
    assert shown.headline == "Checked: nothing was changed"
    assert shown.figures == ["surplus rows 5"]


def test_the_verdicts_of_a_verify_that_stopped_are_those_of_its_error() -> None:
    stopped = facts(
        "stopped",
        error="One is different.",
        verified={"msg": "", "details": verdicts("different", "present", "present")},
    )
    assert [index["verdict"] for index in document(stopped)["indexes"]] == ["different", "present", "present"]
    assert [index["is_good"] for index in written(stopped).indexes] == [False, True, True]
    assert "indexes 2/3" in written(stopped).figures


def test_a_rollback_counts_the_indexes_that_are_gone_and_that_were_built() -> None:
    rolled_back = facts(
        "rolled_back",
        rollback={
            "plan": {"commit": "f30a", "found": REACHED["reached"]},
            "done": {**verdicts("missing", "missing", "present"), "restored": 4},
        },
    )
    assert written(rolled_back).taken_back.startswith("2 of the planned indexes dropped, 4 rows restored")
    assert document(rolled_back)["commit"]["after"] == "f30a"
    assert [run["run_id"] for run in written(rolled_back).earlier] == [EARLIER], "its own report is written whole"


def test_a_run_that_took_itself_back_reads_where_it_had_stopped() -> None:
    taken_back = facts("rolled_back", error="It fails. Expected: not. Next: roll it back.", ended=REACHED)
    assert [run["data"] for run in written(taken_back).earlier] == [{"taken_back_by": RUN}]
    assert [found["next_step"] for found in written(taken_back).findings] == [""], "it is rolled back already"


def test_a_run_that_took_another_over_says_so_in_that_ones_report_once() -> None:
    opened = {"run": {"phases": []}, "took_over": {"run_id": EARLIER}}
    assert [run["data"] for run in written(facts("running", opened=opened)).earlier] == [{"outcome": "abandoned"}]
    assert written(facts("deployed", opened=opened)).earlier == []
    assert written(facts("running", opened=opened, check_mode=True)).earlier == []


@pytest.mark.parametrize("runs", [[], [EARLIER]])
def test_no_rollback_is_offered_that_would_take_back_something_else(runs: list[str]) -> None:
    back = {"runs": runs, "commit_before": "a" * 40, "commit_after": "b" * 40}
    assert written(facts("stopped", error="No.", ended={"rollback": back})).rollback_takes == ""
    assert written(facts("stopped", error="No.", ended={"rollback": {**back, "runs": [*runs, RUN]}})).rollback_takes


def test_only_the_gates_that_this_environment_asks_for_are_shown() -> None:
    answers = {"backup": {"passed": True}, "notice": {"passed": False}}
    closed = {"run": {"phases": [{"name": "prepare", "status": "ok", "details": {"checklist": answers}}]}}
    assert list(written(facts("deployed", ended=closed)).gates) == ["backup", "notice"]
    assert list(written(facts("deployed", ended=closed, gates=["backup"])).gates) == ["backup"]
    assert "checklist" not in written(facts("deployed", ended=closed, gates=[])).sections


def test_the_last_line_cuts_a_long_cause_and_leaves_out_what_is_empty() -> None:
    stopped = written(facts("stopped", error=f"{'x' * 300}. Expected: y. Next: z.", failed_phase="verify"))
    assert stopped.last_line == "✖ Stopped   staging | aedpics f30ada37db1b -> 4f743598c145"
    labels = [label for label, _ in stopped.last_facts]
    assert labels == ["Rule", "Cause", "To do", "Go on", "Report"]
    assert dict(stopped.last_facts)["Cause"] == f"Verify: {'x' * 199}…"


def test_a_version_that_commands_have_switched_is_shown_whole_and_no_instance_is_claimed() -> None:
    served = {"commit_before": "1.4.1", "commit_after": "2025-11-30.1234"}
    parts = {"application": False, "prisma": False, "commands": True}
    ended = {"run": {"phases": []}, "phases": [], "rollback": {"runs": [RUN], **served}}
    shown = written(facts("deployed", ended=ended, parts=parts, **served))
    assert shown.sentence == WORDS["sentences_commands"]["deployed"]
    assert shown.rollback_takes == f"It takes back run {RUN}: 1.4.1 serves again instead of 2025-11-30.1234."
    assert shown.last_line == "✔ Deployed   staging | aedpics 1.4.1 -> 2025-11-30.1234"
    assert WORDS["traffic"] in shown.empty
    assert WORDS["instances"] not in shown.empty


def test_of_the_database_alone_nothing_of_an_application_is_claimed() -> None:
    race = {"verdict": "proven", "index": NAMES[0], "answers": [], "why": ""}
    phases = [{"name": "verify", "status": "ok", "seconds": 1.0, "details": {"race": race}}]
    ended = {"run": {"phases": phases}, "phases": phases, "rollback": {"runs": [RUN], "commit_before": None}}
    bare = {"commit_before": "", "commit_after": "", "parts": {"application": False, "prisma": False}}
    verified = verdicts("present", "present", "present")
    shown = written(facts("deployed", ended=ended, verified=verified, **bare))
    assert shown.sentence == WORDS["sentences_database"]["deployed"]
    assert shown.proven.endswith(
        f"write fence lowered; two inserts of one key at once, both refused by {NAMES[0]} (23505) and rolled back"
    )
    assert "Prisma" not in shown.proven
    assert shown.rollback_takes == f"It takes back run {RUN}, in the database alone."
    assert shown.last_line == "✔ Deployed   staging | aedpics"
    assert not {WORDS[name] for name in ("traffic", "instances", "checks")} & {*shown.empty}
    race.update(verdict="not tried", why="no row is inside the rule, so that there is none to copy")
    assert (
        "; no race of two inserts: no row is inside the rule"
        in written(facts("unchanged", ended=ended, verified=verified, **bare)).proven
    )
    race["phrases"] = {"why": {"template": race["why"], "values": {}}}
    korean = facts("unchanged", ended=ended, verified=verified, language="ko", **bare)
    assert "; no race of two inserts: 규칙 안에 행이 없어" in written(korean).proven
    whole = written(facts("deployed", ended={**ended, "rollback": {}}, verified=verified))
    assert "Prisma's history" in whole.proven


def test_a_check_that_was_not_run_is_not_called_bad() -> None:
    """As those that open a session are not in check mode."""
    check = {"name": "race", "request": "POST /x", "expected": "", "got": "not run in check mode", "known": False}
    templates = Environment(loader=FileSystemLoader(ROOT / "roles/report/templates"), autoescape=False)
    for ok, word in ((None, "skipped"), (True, "good"), (False, "bad")):
        checks = [{**check, "ok": ok}]
        shown = templates.get_template("page/checks.j2").render(
            words=WORDS, report={"checks": checks, "known_faults": []}, page={"checks": checks, "known_faults": []}
        )
        assert f">{word}</td>" in shown
