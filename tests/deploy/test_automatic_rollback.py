"""A run that fails goes back by itself, from each point of no return, and ends failed with its first error.

One lab for all: whatever was taken back is the ground of the next test.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.deploy import picture
from tests.deploy.conftest import (
    PLANNED,
    ROOT,
    SCHEDULES,
    SESSIONS,
    Lab,
    Run,
    forgetting,
    light_build,
    make,
    reset,
    run_playbook,
)
from tests.deploy.faults import FAULTS
from tests.deploy.users import Users

LOCKED = {"lock held": SESSIONS, "lock held on the second table": SCHEDULES}
QUICK = ("-e", "{migrate_attempts: 1, migrate_lock_timeout_ms: 300, migrate_deadline_s: 30}")


def assert_rolled_back(run: Run, phase: str, *words: str) -> None:
    assert run.code != 0
    assert run.report["outcome"] == "rolled_back", run.report["error"]
    assert run.report["failed_phase"] == phase
    first, _, back = run.report["error"].partition("\n")
    for word in words:
        assert word in first, "the first error comes first"
    assert back.startswith("Rolled back automatically:"), run.report["error"]
    assert "as before (compared)" in back
    assert [entry["name"] for entry in run.report["phases"]][-2:] == [phase, "rollback"]


@pytest.fixture(scope="module")
def ground(lab: Lab) -> Lab:
    return reset(lab)


@contextmanager
def locked_while_migrating(lab: Lab, table: str, also: str = "") -> Iterator[None]:
    """Another session's lock, from the end of the clean-up until the migration has failed on it. Users can write.

    ``also`` is a statement that this session runs right before, for what the check before the clean-up would refuse.
    """
    over = threading.Event()

    def hold() -> None:
        while not over.is_set() and not lab.journal_has("cleanup", "ok"):
            time.sleep(0.05)
        with lab.cursor() as cursor:
            if also:
                cursor.execute(also)
            cursor.execute("BEGIN")
            cursor.execute(f"LOCK TABLE {table} IN SHARE UPDATE EXCLUSIVE MODE")
            while not over.is_set() and not lab.journal_has("migrate", "failed"):
                time.sleep(0.05)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        yield
    finally:
        over.set()
        holder.join()


# The second table is the harder case: an index is built by then, and a row of Prisma's history has failed.
REPEATED = {"lock held"}
CASES = [
    pytest.param(*case, id=case[0], marks=[pytest.mark.thorough] if case[0] in REPEATED else [])
    for case in LOCKED.items()
]


@pytest.mark.parametrize(("name", "table"), CASES)
def test_rows_removed(ground: Lab, name: str, table: str) -> None:
    """On the second table Prisma has built the rule's index already, and a failed row stands in its history."""
    before, pids = picture.take(ground), ground.pids()

    with locked_while_migrating(ground, table):
        run = run_playbook("deploy.yml", *QUICK)

    assert_rolled_back(run, "migrate", *FAULTS[name].says)
    assert "<environment>" not in run.report["error"]
    assert f"{int(table == SCHEDULES)} indexes dropped" in run.report["error"]
    assert run.report["cleanup"]["removed"] == 25
    assert "25 rows restored" in run.report["error"]
    picture.assert_as_before(before, picture.take(ground))
    assert ground.pids() == pids, "the application was not touched"
    assert ground.archived() == 0


def test_a_way_back_that_fails_says_what_stays_and_rollback_yml_goes_on(ground: Lab) -> None:
    before = picture.take(ground)
    refuse = "CREATE FUNCTION aedpics.refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'not now'; END$$"
    ground.rows(refuse)
    create = f"CREATE TRIGGER refuse BEFORE INSERT ON {SESSIONS} FOR EACH ROW EXECUTE FUNCTION aedpics.refuse()"
    try:
        with locked_while_migrating(ground, SESSIONS, also=create):
            run = run_playbook("deploy.yml", *QUICK, "-e", "rollback_restore=all")
    finally:
        ground.rows("DROP FUNCTION aedpics.refuse() CASCADE")

    assert run.code != 0
    assert run.report["outcome"] == "stopped"
    first, _, back = run.report["error"].partition("\n")
    assert "Expected:" in first
    assert back.startswith("The way back failed:")
    assert "refuse()" in back
    assert "Reached: 25 rows removed" in back
    assert "Stays: 25 rows in the archive" in back
    assert "Next: repair that, then ansible-playbook rollback.yml -i inventories/local -l local" in back
    assert ground.archived() == 25

    repaired = run_playbook("rollback.yml")
    assert repaired.code == 0, repaired.output
    picture.assert_as_before(before, picture.take(ground))


@pytest.mark.thorough  # tests/database holds what a restore refuses, tests/house what each phase may take back
def test_single_phases_take_nothing_back_and_the_preflight_shows_what_rollback_yml_would(ground: Lab) -> None:
    before = picture.take(ground)
    assert run_playbook("deploy.yml", "--tags", "cleanup").code == 0

    run = run_playbook("deploy.yml", "--tags", "verify")

    assert run.code != 0
    assert run.report["outcome"] == "stopped"
    assert "Rolled back" not in run.report["error"]
    assert (ground.duplicate_groups(), ground.archived()) == (0, 25), "the rows of the phase before are not its own"

    stopped = picture.take(ground)
    shown = run_playbook("rollback.yml", "--check", "-e", "report_language=en")
    assert shown.code == 0, shown.output
    assert "Rollback of one-active-inspection-session on local (check mode: nothing is touched)" in shown.output
    assert "restore 25 of 25 archived rows" in shown.output
    picture.assert_as_before(stopped, picture.take(ground))
    assert ground.archived() == 25

    twin = "(SELECT primary_key->>'id' FROM at_most_one.archived_row WHERE restored_at IS NULL ORDER BY id LIMIT 1)"
    ground.rows(
        f"""INSERT INTO {SESSIONS} SELECT (jsonb_populate_record(s, jsonb_build_object('id', {twin}))).*
              FROM {SESSIONS} s WHERE status = 'completed' LIMIT 1"""
    )
    refused = run_playbook("rollback.yml", "-e", "{report_language: en, rollback_restore: all}")
    assert refused.code != 0
    assert "restoring would overwrite newer data" in " ".join(refused.failures)
    assert ground.archived() == 25
    assert ground.fences() > 0, "nothing was touched"
    ground.rows(f"DELETE FROM {SESSIONS} WHERE id::text = {twin}")

    assert run_playbook("rollback.yml").code == 0
    picture.assert_as_before(before, picture.take(ground))


def kill_after(phase: str, lab: Lab) -> str:
    """Start deploy.yml, end all of it with SIGKILL once the journal has this phase; returns the run."""
    command = [str(ROOT / ".venv/bin/ansible-playbook"), "deploy.yml", "-i", "inventories/local", "-l", "local"]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL)
    recorded = (
        "SELECT run_id FROM at_most_one.step JOIN at_most_one.run USING (run_id) WHERE phase = %s AND outcome IS NULL"
    )
    try:
        while not (found := lab.rows(recorded, phase)):
            assert process.poll() is None, f"it ended before it had recorded {phase}"
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return str(found[0][0])


def test_the_next_start_says_what_a_killed_run_has_left_and_can_take_it_back(ground: Lab) -> None:
    before = picture.take(ground)
    killed = kill_after("cleanup", ground)
    assert ground.archived() == 25

    found = (
        f"run {killed}",
        "abandoned after phase cleanup. Found: 0 of 3 planned indexes, migration as before, write fence up, 25 rows",
        "2 instances online; it goes on from there.",
    )
    shown = run_playbook("deploy.yml", "--check", "-e", "report_language=en")
    for words in ("Would take over", *found):
        assert words in " ".join(shown.output.split())
    korean = run_playbook("rollback.yml")
    assert f"중단된 실행 {killed}" in korean.output
    assert "보관된 행 25개" in " ".join(korean.output.split())
    assert korean.code == 0, korean.output
    picture.assert_as_before(before, picture.take(ground))


@pytest.mark.thorough  # tests/service/test_boot.py holds what does not boot
def test_a_release_that_does_not_boot_stops_before_a_row_leaves(ground: Lab) -> None:
    make("lab-fault", "FAULT=crash-at-boot")
    before, pids = picture.take(ground), ground.pids()

    with Users(ground) as users:
        run = run_playbook("deploy.yml", "-e", "app_branch=fault/crash-at-boot", *light_build(ground))

    assert run.code != 0
    assert (run.report["outcome"], run.report["failed_phase"]) == ("stopped", "prepare"), run.report["error"]
    for word in ("does not boot", "crash-at-boot", "Expected:", "Next:"):
        assert word in run.report["error"]
    picture.assert_as_before(before, picture.take(ground))
    assert ground.archived() == 0
    assert ground.fences() == 0
    assert ground.pids() == pids, "no instance was touched: the release had to boot beside them first"
    assert users.requests >= 200
    assert users.failures == []


def test_link_switched_and_the_run_after_the_repair_deploys(ground: Lab) -> None:
    """A release that boots and then says that it is not well: every instance goes back, one at a time."""
    make("lab-fault", "FAULT=wrong-health")
    before, pids = picture.take(ground), ground.pids()

    # The receipt's gate comes before the checks, and a busy machine alone can fail it: the users are the witnesses.
    patient = "{app_branch: fault/wrong-health, healthcheck_max_failed_percent: 100, healthcheck_max_gap_ms: 60000}"
    with Users(ground) as users:
        run = run_playbook("deploy.yml", "-e", patient, *light_build(ground))

    assert_rolled_back(run, "healthcheck", "degraded", "healthy")
    assert f"the application to {ground.values['commit_before'][:12]} on lab" in run.report["error"]
    picture.assert_as_before(before, picture.take(ground))
    assert os.path.realpath(ground.values["app_path"]).endswith(ground.values["commit_before"])
    assert set(ground.pids()).isdisjoint(pids), "every instance was reloaded, forward and back"
    assert users.requests >= 1000
    assert users.failures == []

    repaired = run_playbook("deploy.yml")
    assert repaired.code == 0, repaired.output
    assert repaired.report["outcome"] == "deployed"
    assert repaired.report["cleanup"]["removed"] == 25
    assert ground.indexes() == dict.fromkeys(PLANNED, (True, True))
    assert ground.served(20) == {ground.values["commit_after"]}


@pytest.mark.thorough  # tests/database/test_moved_back.py holds what is refused, test_deployment.py that it stops
def test_what_was_lost_before_the_run_was_closed_is_left_to_a_person(ground: Lab) -> None:
    """The application is proven and the rows are in the archive: nothing is taken back, and the next run goes on."""
    ground = reset(ground)

    with forgetting(ground, "cleanup", "ok"):
        run = run_playbook("deploy.yml")

    assert run.code != 0
    assert (run.report["outcome"], run.report["failed_phase"]) == ("stopped", "verify"), run.report["error"]
    assert "phase cleanup is not in its journal" in run.report["error"]
    assert "Rolled back" not in run.report["error"]
    assert ground.archived() == 25
    assert ground.indexes() == dict.fromkeys(PLANNED, (True, True))
    assert ground.served(20) == {ground.values["commit_after"]}

    again = run_playbook("deploy.yml")
    assert again.code == 0, again.output
    assert again.report["outcome"] == "unchanged"
    assert ground.archived() == 25
