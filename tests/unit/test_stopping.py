"""What is said of a run that stops, behind its first error."""

from __future__ import annotations

from typing import Any

import pytest
from at_most_one.catalogue import render
from at_most_one.findings import Finding, handed_over, reason, say
from at_most_one.runs import stopping

REACHED = {"content": {"pending": 25}, "built": ["a", "b"], "applied": True}
SERVES = {"item": "web1", "stat": {"islnk": True, "lnk_source": "/srv/app.releases/1"}}


def said(later: str = "", stays: dict[str, Any] | None = None, *paths: dict[str, Any]) -> str:
    return stopping.back_failed("It is held.", later, "verify", 3, REACHED, stays, paths)


def test_a_way_back_that_failed_names_what_was_reached_what_stays_and_what_to_do() -> None:
    assert said("", {**REACHED, "built": []}, SERVES, {"item": "web2", "stat": {"islnk": False}}) == (
        "The way back failed: It is held. Reached: 25 rows removed, 2 of 3 indexes built, migration applied, phase"
        " verify begun. Stays: 25 rows in the archive, 0 of the planned indexes, migration applied, the path of web1:"
        " /srv/app.releases/1, the path of web2: no link. Next: repair that, then ansible-playbook rollback.yml -l"
        " <environment>"
    )


def test_it_is_said_in_the_reader_s_language_with_what_a_module_has_said() -> None:
    found = Finding("", say("{path}: {reason}.", path="/a", reason="full"), say("1 or more."), say("correct it."))
    failed = {"msg": str(found), "next_step": "correct it.", "findings": [found.as_data()]}
    for words in (
        stopping.back_failed(reason(failed), "", "verify", 3, REACHED, {**REACHED, "built": []}, [SERVES]),
        stopping.unsettled(failed, ""),
        stopping.unsettled(
            {**failed, "details": {"overtaken_by": "run-42"}}, stopping.changed(3, False, {"web1": ({}, {})})
        ),
        stopping.fence_stays(failed),
        stopping.went_back({"sentence": "no host was switched", "phrases": {}}, {"sentence": "3 indexes dropped."}),
    ):
        assert str(found) in words or words.startswith("Rolled back automatically: no host was switched, 3 indexes")
        korean = render(handed_over(words.as_data()), "ko")
        assert "Expected:" not in korean
        assert "/a: full. 기대: 1 이상이어야 합니다. 다음: " in korean or korean.startswith("자동으로 롤백했습니다: ")
        assert not [word for word in ("Next:", "Reached", "Stays", "rows", "applied", "path") if word in korean], korean


def test_what_cannot_be_read_is_said_to_be_unknown() -> None:
    assert "Stays: a database that could not be read, the path of web1: unknown. " in said("", None, {"item": "web1"})


def test_a_later_run_is_left_alone() -> None:
    assert said("run-42").endswith("the later run goes on from it: ansible-playbook history.yml -l <environment>")


@pytest.mark.parametrize(
    ("details", "later"),
    [({"taken_over_by": "run-42"}, "run-42"), ({"overtaken_by": "run-43"}, "run-43"), ({}, ""), (None, "")],
)
def test_only_a_refusal_names_a_later_run(details: dict[str, str] | None, later: str) -> None:
    assert stopping.later_run({"msg": "No.", "details": details}) == later
    words = stopping.unsettled({"msg": "No.", "details": details}, "3 rows removed, indexes not built")
    assert words.startswith("No. Nothing was taken back." if later else "The journal stays open: No.")


def test_what_a_run_had_changed_is_counted_by_host() -> None:
    hosts: dict[str, Any] = {
        "web1": ({"changed": True}, {"changed": True, "instances": [{"pm_id": 0}]}),
        "web2": ({}, {"changed": False, "instances": [{"pm_id": 1}], "details": {"changed": ["instance 1 begun"]}}),
    }
    assert stopping.changed(0, False, hosts) == (
        "0 rows removed, indexes not built, web1: link moved, instance 0 reloaded,"
        " web2: link not moved, instance 1 begun"
    )


def test_what_a_reload_had_changed_is_a_phrase_where_the_host_hands_it_over() -> None:
    begun = say("instance {pm_id} begun and not proven ({cause})", pm_id=1, cause="timeout")
    details = {"changed": [str(begun)], "changed_words": begun.as_data()}
    said = stopping.changed(0, False, {"web1": ({}, {"details": details})})
    assert said == f"0 rows removed, indexes not built, web1: link not moved, {begun}"
    assert "인스턴스 1 시작했으나 증명되지 않음(timeout)" in render(said, "ko")
