"""Each fault stops its own phase, with what was seen, what was expected and what to do; nothing beyond is touched."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.deploy.conftest import PLANNED, SCHEDULES, SESSIONS, Lab, Run, light_build, make, next_build, run_playbook

RULE_INDEX = "idx_inspection_sessions_active_session_per_equipment"


def assert_stopped(run: Run, phase: str | None, *words: str) -> None:
    assert run.code != 0
    message = " ".join(run.failures)
    assert "Expected:" in message
    assert "Next:" in message
    for word in words:
        assert word in message, message
    if phase:
        assert run.report["outcome"] == "stopped"
        assert run.report["failed_phase"] == phase
        for word in ("Expected:", "Next:", *words):
            assert word in run.report["error"], "the report has the first error, not what came of it"


def test_unreachable_database_is_never_no_duplicates(lab: Lab) -> None:
    run = run_playbook("deploy.yml", "-e", "database_port=1")

    assert_stopped(run, None, "No connection to")
    assert "No duplicates" not in run.output
    assert "중복이 없습니다" not in run.output


WRONG_CATALOGS = {
    "a fourth index of the family": (
        f"CREATE INDEX idx_inspection_schedules_active_too ON {SCHEDULES} (aed_data_id)",
        "DROP INDEX aedpics.idx_inspection_schedules_active_too",
        ("idx_inspection_schedules_active_too", "unexpected"),
    ),
    "a missing one": (
        "DROP INDEX aedpics.idx_inspection_schedules_active",
        f"CREATE INDEX idx_inspection_schedules_active ON {SCHEDULES} (aed_data_id, scheduled_for)"
        " WHERE status NOT IN ('cancelled')",
        ("idx_inspection_schedules_active", "missing"),
    ),
    "one on (equipment_serial, status)": (
        f"DROP INDEX aedpics.{RULE_INDEX}; CREATE UNIQUE INDEX {RULE_INDEX} ON {SESSIONS} (equipment_serial, status)"
        " WHERE status IN ('active', 'paused')",
        f"DROP INDEX aedpics.{RULE_INDEX}; CREATE UNIQUE INDEX {RULE_INDEX} ON {SESSIONS} (equipment_serial)"
        " WHERE status IN ('active', 'paused')",
        (RULE_INDEX, "different"),
    ),
    "one with another predicate": (
        f"DROP INDEX aedpics.{RULE_INDEX}; CREATE UNIQUE INDEX {RULE_INDEX} ON {SESSIONS} (equipment_serial)"
        " WHERE status = 'active'",
        f"DROP INDEX aedpics.{RULE_INDEX}; CREATE UNIQUE INDEX {RULE_INDEX} ON {SESSIONS} (equipment_serial)"
        " WHERE status IN ('active', 'paused')",
        (RULE_INDEX, "different"),
    ),
}


# Every kind of difference is in tests/database/test_near_misses.py; here one shows that the phase stops.
SHOWN = "one on (equipment_serial, status)"
CASES = [pytest.param(case, marks=[] if case == SHOWN else [pytest.mark.thorough]) for case in WRONG_CATALOGS]


@pytest.mark.parametrize("case", CASES)
def test_verify_stops_at(deployed_ground: Lab, case: str) -> None:
    """What is broken here is put right again by each test."""
    deployed, (wrong, right, words) = deployed_ground, WRONG_CATALOGS[case]
    deployed.rows(wrong)
    try:
        run = run_playbook("deploy.yml", "--tags", "verify")
    finally:
        deployed.rows(right)

    assert_stopped(run, "verify", *words)


@pytest.mark.thorough  # one more difference; tests/database/test_near_misses.py holds them all
def test_verify_stops_at_an_invalid_index(deployed_ground: Lab) -> None:
    """Made as it happens in life: a concurrent build over a duplicate, which leaves its half-built index behind."""
    deployed = deployed_ground
    deployed.rows(f"DROP INDEX aedpics.{RULE_INDEX}")
    twin = deployed.value(
        f"""INSERT INTO {SESSIONS} SELECT (jsonb_populate_record(s, jsonb_build_object('id', gen_random_uuid()))).*
              FROM {SESSIONS} s WHERE status = 'active' LIMIT 1 RETURNING id::text"""
    )
    build = f"INDEX CONCURRENTLY {RULE_INDEX} ON {SESSIONS} (equipment_serial) WHERE status IN ('active', 'paused')"
    try:
        with pytest.raises(Exception, match="could not create unique index"):
            deployed.rows(f"CREATE UNIQUE {build}")
        deployed.rows(f"DELETE FROM {SESSIONS} WHERE id::text = %s", twin)
        assert deployed.indexes()[RULE_INDEX][0] is False
        run = run_playbook("deploy.yml", "--tags", "verify")
    finally:
        deployed.rows(f"DELETE FROM {SESSIONS} WHERE id::text = %s", twin)
        deployed.rows(f"DROP INDEX IF EXISTS aedpics.{RULE_INDEX}")
        deployed.rows(f"CREATE UNIQUE {build.replace('CONCURRENTLY ', '')}")

    assert_stopped(run, "verify", RULE_INDEX, "invalid")


@pytest.mark.thorough  # tests/database holds every limit
def test_surplus_above_the_ceiling(fresh: Lab) -> None:
    before = (fresh.content(), fresh.pids(), fresh.link)

    run = run_playbook("deploy.yml", "-e", "cleanup_ceiling=24")

    assert_stopped(run, "cleanup", "25 rows are to leave", "the ceiling is 24")
    assert (fresh.content(), fresh.pids(), fresh.link) == before
    assert fresh.fences() == 0, "no fence is left behind"
    assert fresh.indexes() == {}


@pytest.mark.thorough  # the other limit of the same check
def test_more_surplus_than_was_counted(fresh: Lab) -> None:
    run = run_playbook("deploy.yml", "-e", "cleanup_expected_rows=20")

    assert_stopped(run, "cleanup", "25", "20")
    assert fresh.duplicate_groups() == 10


@pytest.fixture
def faulty(fresh: Lab) -> Iterator[Lab]:
    yield fresh
    make("lab-reset")


@pytest.mark.thorough  # it stops before anything is touched
def test_failed_build_leaves_the_live_site_as_it_was(faulty: Lab) -> None:
    make("lab-fault", "FAULT=failed-build")
    before = (faulty.content(), faulty.catalog(), faulty.pids(), faulty.link)

    run = run_playbook("deploy.yml", "-e", "app_branch=fault/failed-build", *next_build(faulty))

    assert run.code != 0
    assert run.report["failed_phase"] == "prepare"
    assert "`npm run build` ended with exit code 1" in run.report["error"]
    assert "Module not found" in run.report["error"], "what it wrote"
    assert faulty.served() == {faulty.values["commit_before"]}
    after = (faulty.content(), [row for row in faulty.catalog() if row[0] != "at_most_one"], faulty.pids(), faulty.link)
    assert after == before


def test_a_crash_that_only_the_reload_meets_takes_the_link_and_the_instance_back(faulty: Lab) -> None:
    """Without the trial boot what is left is one instance at a time: the second one serves all along.

    And without the automatic rollback the phase takes back what it switched; the database stays as far as it came.
    """
    make("lab-fault", "FAULT=crash-at-boot")
    pids = faulty.pids()

    policies = "{app_boot_command: [], rollback_automatic: false}"
    run = run_playbook("deploy.yml", "-e", "app_branch=fault/crash-at-boot", "-e", policies, *light_build(faulty))

    assert_stopped(run, "pm2_reload", "is not provably new", "crash-at-boot", "every instance runs it")
    assert len(set(faulty.pids()) & set(pids)) == 1, "one instance was never touched"
    assert len(faulty.pids()) == 2
    assert faulty.served(20) == {faulty.values["commit_before"]}
    assert faulty.link.endswith(faulty.values["commit_before"])
    assert faulty.indexes() == dict.fromkeys(PLANNED, (True, True)), "the rule holds, whichever code serves"
    assert faulty.value("SELECT count(*) FROM at_most_one.archived_row WHERE restored_at IS NULL") == 25
