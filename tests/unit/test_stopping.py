"""What is said of a run that stops, behind its first error."""

from __future__ import annotations

from typing import Any

import pytest
from at_most_one.runs import stopping

REACHED = {"content": {"pending": 25}, "built": ["a", "b"], "applied": True}
SERVES = {"item": "web1", "stat": {"islnk": True, "lnk_source": "/srv/app.releases/1"}}


def said(later: str = "", stays: dict[str, Any] | None = None, *paths: dict[str, Any]) -> str:
    return stopping.back_failed("It is held.", later, "verify", 3, REACHED, stays, paths)


def test_a_way_back_that_failed_names_what_was_reached_what_stays_and_what_to_do() -> None:
    assert said("", {**REACHED, "built": []}, SERVES, {"item": "web2", "stat": {"islnk": False}}) == (
        "The way back failed: It is held. Reached: 25 rows removed, 2 of 3 indexes built, migration applied, phase"
        " verify begun. Stays: 25 rows in the archive, 0 of the planned indexes, migration applied, web1 serves"
        " /srv/app.releases/1, web2 serves what it did. Next: repair that, then ansible-playbook rollback.yml -l"
        " <environment>"
    )


def test_what_cannot_be_read_is_said_to_be_unknown() -> None:
    assert "Stays: a database that could not be read, web1 serves unknown. " in said("", None, {"item": "web1"})


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
