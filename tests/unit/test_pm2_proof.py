"""What a process of PM2's list is found to be, by the kernel's own account of this very process."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from at_most_one.http.proof import Demand
from at_most_one.pm2 import preflight, reload
from at_most_one.pm2.client import Instance, Listing, Pm2
from at_most_one.pm2.preflight import Aim, Ready
from at_most_one.pm2.proof import already_proven, is_steady
from at_most_one.system.processes import is_within, start_ticks

ONE = Instance(0, os.getpid(), "online", 7, "cluster_mode", "/", "s", "out", "err", 0, None, None)
SET_BACK = replace(ONE, started_ms=int(1000 * (time.time() + 3600)))  # the clock, since it was started
SET_FORWARD = replace(ONE, started_ms=0)


def test_an_instance_that_was_restarted_meanwhile_has_died_and_one_whose_restarts_were_reset_has_not() -> None:
    done = [(replace(ONE, pid=1, restarts=6), ONE)]
    assert reload._died_meanwhile(done, [ONE]) is None
    assert reload._died_meanwhile(done, [replace(ONE, restarts=0)]) is None, "pm2 reset"
    for now in ([replace(ONE, restarts=8)], [replace(ONE, restarts=0, pid=1)], []):
        found = reload._died_meanwhile(done, now)
        assert found is not None
        assert found[1].cause == "crashed"


def test_how_long_a_process_is_up_does_not_depend_on_the_clock() -> None:
    demand = Demand("app", None, None, stable_s=0.1)
    assert already_proven(demand, SET_BACK, 1)
    assert is_steady(demand, SET_BACK)
    ever = replace(demand, stable_s=1e9)
    assert not already_proven(ever, SET_FORWARD, 1)
    assert not is_steady(ever, SET_FORWARD)
    assert not is_steady(demand, replace(ONE, status="stopped"))
    assert not is_steady(demand, replace(ONE, pid=0))


def test_the_process_that_is_replaced_is_the_one_that_another_reload_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end is waited for, and its restarts are counted from there."""
    said = iter(["[PM2] Reload already in progress", ""])
    monkeypatch.setattr(reload, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, next(said), ""))
    monkeypatch.setattr(reload, "listing", lambda *_: Listing(None, (replace(SET_BACK, restarts=8),)))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    aim = Aim(Demand("app", None, None, stable_s=0.1), "/app", "/app/ecosystem.config.cjs")
    listed = replace(ONE, pid=0, status="launching")

    begun = reload._reload_one(Pm2("pm2", "/nowhere"), aim, Ready(Listing(None)), listed)

    assert (begun.before.restarts, begun.ticks, begun.steady) == (8, start_ticks(os.getpid()), True)


def test_who_is_started_behind_the_link_and_who_in_one_release_for_ever(tmp_path: Path) -> None:
    inside = tmp_path / "app.releases/a/web"
    inside.mkdir(parents=True)
    (tmp_path / "app").symlink_to(inside.parent)
    (tmp_path / "www").symlink_to("app")
    place = preflight._place(str(tmp_path / "app"))
    names = ("app", "app/web", "www", "www/web", "app.releases/a", "app.releases/a/web", ".")
    follows = [preflight._leads_through(str(tmp_path / name), place) for name in names]
    assert follows == [True, True, True, True, False, False, False]


@pytest.mark.parametrize(
    ("place", "within"),
    [
        ("/r/a", True),
        ("/r/a/apps/web", True),
        ("/r/ab", False),
        ("/r", False),
        ("/r/a (deleted)", False),
        ("/r/a/apps/web (deleted)", False),
        (None, False),
    ],
)
def test_a_part_of_a_monorepo_works_in_its_release(place: str | None, within: bool) -> None:
    assert is_within(place, "/r/a") is within
