"""Where a rollback leads: asked for by a person, or of a run that has failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from at_most_one.plan import parse
from at_most_one.runs.way_back import (
    Asked,
    HostWay,
    Served,
    WayBack,
    after_failure,
    asked_for,
    version_after_failure,
)

PLAN = parse(
    yaml.safe_load((Path(__file__).parents[2] / "plans/one-active-inspection-session.yml").read_text(encoding="utf-8"))
)
OLD, NEW, OTHER = "a" * 40, "b" * 40, "c" * 40
RELEASES = "/srv/app.releases"
CONTENT = {"archived": 25, "pending": 25, "taken": []}
FOUND: dict[str, Any] = {
    **{"runs": ["run-2"], "commit_before": OLD, "commit_after": NEW, "database": True, "point": "migration"},
    **{"built": ["rule"], "kept": [], "fence": False, "hosts": {}, "in_the_way": [], "purged": [], "content": CONTENT},
    "unplanned": [],
    "left_behind": {"runs": ["run-1"], "content": {**CONTENT, "pending": 2}},
}


def served(commit: str = NEW, in_place: bool = False, kept: tuple[str, ...] = (OLD, NEW)) -> Served:
    return Served(commit, in_place, RELEASES, kept)


def asked(found: dict[str, Any] | None = None, host: Served | None = None, **options: Any) -> WayBack:
    return asked_for(PLAN, {**FOUND, **(found or {})}, Asked(**options), {"web1": host or served()})


def test_each_host_goes_to_what_it_served_when_the_deployment_began() -> None:
    before = {"web1": {"commit": OTHER, "release": f"{RELEASES}/{OTHER}", "in_place": False}}
    adopted = {"web1": {"commit": OTHER, "release": "/srv/app", "in_place": True}}
    for found in ({"hosts": before}, {"hosts": adopted}):
        (host,) = asked(found, served(kept=(OTHER,))).hosts
        assert host == HostWay("web1", NEW, f"{RELEASES}/{OTHER}", OTHER, stays=False)
    assert asked().hosts[0].build == OLD, "an older journal does not know the hosts"
    named = asked({"hosts": before}, commit=OLD)
    assert (named.commit, named.hosts[0].release, named.refusal) == (OLD, f"{RELEASES}/{OLD}", "")


def test_a_host_that_serves_it_from_its_own_checkout_stays() -> None:
    assert asked(host=served(OLD, in_place=True, kept=())).hosts[0].stays
    assert not asked(host=served(OLD, kept=(OLD,))).hosts[0].stays


def test_rows_alone_leave_application_and_indexes() -> None:
    way = asked({"unplanned": ["idx_old"]}, only_rows=True)
    assert (way.rule, way.rows, way.found["runs"], way.found["content"]["pending"]) == (False, True, ["run-1"], 2)
    assert way.hosts[0].build == NEW
    assert way.refusal == "", "whatever is served stays"


@pytest.mark.parametrize(
    ("found", "rule"),
    [
        ({}, True),
        ({"kept": ["rule", "other"], "built": []}, False),
        ({"kept": ["other"]}, True),
        ({"kept": ["other"], "built": [], "fence": True}, True),
        ({"runs": []}, False),
        ({"database": False, "point": "nothing"}, False),
        ({"database": False, "point": "nothing", "fence": True}, True),
    ],
)
def test_the_rule_goes_where_the_deployment_brought_it(found: dict[str, Any], rule: bool) -> None:
    assert asked(found).rule is rule


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "nothing": ({"runs": [], "content": {**CONTENT, "pending": 0}}, {}, "There is nothing to roll back"),
    "rows that stay": ({"runs": []}, {"restore_rows": False}, "(rollback_restore_rows=false)"),
    "a plan that was changed": (
        {"unplanned": ["idx_old", "idx_other"]},
        {},
        f"This deployment has built idx_old, idx_other, which plan {PLAN.id} names no more",
    ),
    "in the way": ({"in_the_way": ["run-9"]}, {}, "1 runs of other plans are at work"),
    "elsewhere": (
        {"runs": [], "content": {**CONTENT, "pending": 0, "elsewhere": {"aedpics.was": 25}}},
        {},
        f"25 archived rows are of another table than plan {PLAN.id} names: aedpics.was.",
    ),
    "served": ({"commit_after": OTHER}, {}, f"web1 serves {NEW}, which this deployment neither brought nor found"),
    "kept": ({"commit_before": OTHER}, {}, f"{RELEASES}/{OTHER}, is not there on web1; kept there: "),
    "purged": (
        {"purged": [{"run_id": "run-2", "at": "2026-03-01", "rows": 25}]},
        {},
        "was purged (run-2 on 2026-03-01): its 25 rows cannot return.",
    ),
    "taken": (
        {"content": {**CONTENT, "taken": [{"id": "7"}]}},
        {"restore": "all"},
        'in the place of archived ones: [{"id": "7"}].',
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_forbids_it_is_named_with_what_to_do(case: str) -> None:
    found, options, said = REFUSED[case]
    refusal = asked(found, **options).refusal
    assert said in refusal
    assert refusal.count(" Expected: ") == refusal.count(" Next: ") == 1
    assert asked({**found, **FOUND}).refusal == ""


def test_several_reasons_are_named_one_by_one() -> None:
    refusal = asked({"in_the_way": ["run-9"], "commit_after": OTHER}).refusal
    assert refusal.count("Seen: ") == refusal.count(" Next: ") == 2


def test_purged_rows_and_newer_ones_forbid_nothing_where_no_row_returns() -> None:
    found = {"purged": [{"run_id": "run-2", "at": "2026-03-01", "rows": 25}], "content": {**CONTENT, "taken": [{}]}}
    assert asked(found, restore_rows=False, restore="all").refusal == ""


VERSIONS: dict[str, Any] = {**FOUND, "commit_before": "1.4.1", "commit_after": "1.4.2"}


def test_a_version_goes_back_to_the_one_before_or_to_the_named_one() -> None:
    way = asked_for(PLAN, VERSIONS, Asked(), {"shop": Served("1.4.2")})
    assert (way.commit, way.hosts, way.refusal) == ("1.4.1", (HostWay("shop", "1.4.2", "", "1.4.1", stays=False),), "")
    named = asked_for(PLAN, VERSIONS, Asked(commit="1.3.0"), {"shop": Served("1.5.0")})
    assert (named.commit, named.hosts[0].build, named.refusal) == ("1.3.0", "1.3.0", "")
    refusal = asked_for(PLAN, VERSIONS, Asked(), {"shop": Served("1.5.0")}).refusal
    assert refusal.startswith("1.5.0 serves, which this deployment neither brought nor found")
    assert "-e rollback_commit=<version>" in refusal
    rows = asked_for(PLAN, VERSIONS, Asked(only_rows=True), {"shop": Served("1.5.0")})
    assert (rows.hosts[0].build, rows.refusal) == ("1.5.0", "")


@pytest.mark.parametrize(
    ("phase", "served", "before", "goes"),
    [
        ("pm2_reload", "1.4.1", "1.4.1", True),
        ("healthcheck", "1.4.1", "1.4.1", True),
        ("verify", "1.4.1", "1.4.1", False),
        ("verify", "1.4.2", "1.4.1", True),  # an unfinished run before this one had put it into service
        ("pm2_reload", "1.4.1", None, False),
    ],
)
def test_a_failed_run_goes_back_with_the_version_that_it_may_have_switched(
    phase: str, served: str, before: str | None, goes: bool
) -> None:
    way = version_after_failure({**VERSIONS, "commit_before": before, "point": "nothing"}, "shop", served, phase=phase)
    assert (bool(way.hosts), way.is_needed, way.is_of_failed_run) == (goes, goes, True)
    assert way.sentence == ("the application to 1.4.1 on shop" if goes else "no host was switched")


SWITCHED = {"stat": {"islnk": True, "lnk_source": f"{RELEASES}/{NEW}"}}
BACK = {"stat": {"islnk": True, "lnk_source": f"{RELEASES}/{OLD}"}}
IN_PLACE = {"stat": {"islnk": False}}
LOST: dict[str, Any] = {"unreachable": True}


@pytest.mark.parametrize(
    ("path", "link", "reload", "goes"),
    [
        (SWITCHED, {}, {}, True),
        (BACK, {}, {}, False),
        (BACK, {"changed": True}, {}, True),
        (BACK, {"changed": False}, {"changed": False}, False),
        (BACK, {"changed": False}, {"changed": True}, True),
        (BACK, {"changed": False}, {"changed": False, "failed": True}, True),
        (IN_PLACE, {}, {"failed": True}, False),
    ],
)
def test_a_failed_run_sends_the_hosts_back_that_it_has_touched(
    path: dict[str, Any], link: dict[str, Any], reload: dict[str, Any], goes: bool
) -> None:
    answers = {"paths": [path], "links": [link], "reloads": [reload]}
    way = after_failure({**FOUND, "point": "nothing"}, {"web1": served(OLD)}, phase="pm2_reload", **answers)
    assert [host.name for host in way.hosts] == ["web1"] * goes
    assert way.is_needed is goes
    assert way.sentence == (f"the application to {OLD[:12]} on web1" if goes else "no host was switched")
    assert (way.is_of_failed_run, way.lost_findings) == (True, ())


@pytest.mark.parametrize(("phase", "lost"), [("prepare", ()), ("pm2_reload", ("web2",)), ("healthcheck", ("web2",))])
def test_a_lost_host_keeps_the_database_once_it_may_serve_the_new_release(phase: str, lost: tuple[str, ...]) -> None:
    hosts = {"web1": served(OLD), "web2": served(OLD)}
    answers: dict[str, Any] = {"paths": [SWITCHED, LOST], "links": [{}, {}], "reloads": [{}, {}]}
    way = after_failure(FOUND, hosts, phase=phase, **answers)
    assert way.lost == lost
    if lost:
        said = str(way.lost_findings[0])
        assert said.startswith("web2 cannot be reached: ")
        assert f"Back at {OLD[:12]}: web1. Expected: a connection to every host." in said
    assert way.is_needed


def test_without_an_application_the_database_alone_goes_back() -> None:
    found = {**FOUND, "commit_before": None, "commit_after": None}
    way = asked_for(PLAN, found, Asked(), {})
    assert (way.hosts, way.commit, way.rule, way.refusal) == ((), "", True, "")
    failed = after_failure(found, {}, phase="verify", paths=[], links=[], reloads=[])
    assert (failed.is_needed, failed.lost_findings, failed.hosts) == (True, (), ())
