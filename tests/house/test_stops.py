"""Every message that can stop a run after prepare has its reason in docs/faults.md, and the list is the code's."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from scripts import stops_table
from tests.deploy.faults import FAULTS


@pytest.fixture(scope="module")
def lists() -> dict[str, Any]:
    return dict(yaml.safe_load(stops_table.LISTS.read_text(encoding="utf-8")))


def test_every_message_that_a_phase_can_reach_is_in_one_of_the_lists(lists: dict[str, Any]) -> None:
    assert stops_table.faults(lists) == []


def test_the_phases_start_modules_whose_messages_are_found() -> None:
    """A renamed module or a moved file must not empty the list in silence."""
    assert {phase: bool(stops_table.modules(phase)) for phase in stops_table.PHASES} == dict.fromkeys(
        stops_table.PHASES, True
    )
    there = stops_table.reachable()
    assert there["AMO-3201"] == {"cleanup"}, "a batch of surplus rows"
    assert there["AMO-4219"] >= {"pm2_reload"}, "an instance that is not provably new"
    assert "AMO-5101" not in there, "the monitor's"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lists: lists["stops"].pop("AMO-3201"), "AMO-3201 can be reached and is in no list."),
        (lambda lists: lists["stops"]["AMO-3201"].update(phases=["verify"]), "AMO-3201 cannot be reached in verify."),
        (lambda lists: lists["stops"]["AMO-3201"].update(kind="luck"), "AMO-3201 is of an unknown kind: luck."),
        (
            lambda lists: lists["stops"]["AMO-3201"].update(because=""),
            "AMO-3201 has the keys phases, kind, why, because.",
        ),
        (lambda lists: lists["elsewhere"]["close"]["messages"].append("AMO-3201"), "AMO-3201 is in both lists."),
        (lambda lists: lists["elsewhere"]["close"]["messages"].append("AMO-5101"), "AMO-5101 cannot be reached."),
    ],
)
def test_what_is_missing_or_wrong_is_named(lists: dict[str, Any], change: Any, says: str) -> None:
    changed = copy.deepcopy(lists)
    change(changed)
    assert stops_table.faults(changed) == [says]


def test_each_fault_that_stops_after_prepare_is_in_a_phase_that_has_stops(lists: dict[str, Any]) -> None:
    phases = {phase for stop in lists["stops"].values() for phase in stop["phases"]}
    assert {fault.phase for fault in FAULTS.values()} - {None, "prepare"} <= phases
