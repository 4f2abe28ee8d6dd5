"""Databases as they are: triggers of the application, sessions that stay, a bulk writer, a subscriber.

What must come of each stands in faults.py. One lab for all: each test but the last two leaves the guide's example.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg2.errors
import pytest
import yaml

from tests.deploy import picture
from tests.deploy.conftest import PLANNED, ROOT, SESSIONS, Lab, Run, reset, run_playbook
from tests.deploy.faults import FAULTS
from tests.deploy.subscriber import subscriber
from tests.deploy.test_automatic_rollback import QUICK, assert_rolled_back, locked_while_migrating

PLAN = "one-active-inspection-session"
RECORDS = "aedpics.inspections"
TRIGGERS = {
    "soft-delete trigger": (
        "BEFORE DELETE",
        f"UPDATE {SESSIONS} SET status = 'cancelled', cancelled_at = now() WHERE id = OLD.id; RETURN NULL;",
    ),
    "stamping trigger": ("BEFORE INSERT OR UPDATE", "NEW.updated_at := clock_timestamp(); RETURN NEW;"),
    "trigger that writes to another table": (
        "AFTER DELETE",
        f"DELETE FROM {RECORDS} WHERE session_id = OLD.id; RETURN NULL;",
    ),
}
REMOVES_RECORDS = TRIGGERS["trigger that writes to another table"]
STAMPS_WHAT_HAS_NO_STAMP = (
    "BEFORE INSERT OR UPDATE",
    "NEW.updated_at := coalesce(NEW.updated_at, clock_timestamp()); RETURN NEW;",
)
# Prepare tries the first rows of each shape, by their primary key: this is the last one of its shape.
NOT_IN_THE_SAMPLE = f"id::text = (SELECT max(id::text) FROM {SESSIONS} WHERE status = 'active' AND current_step > 2)"
BULK = 100_000


@pytest.fixture(scope="module")
def ground(lab: Lab) -> Lab:
    return reset(lab)


@contextmanager
def trigger(lab: Lab, when: str, body: str, name: str = "meddle") -> Iterator[None]:
    lab.rows(
        f"""CREATE FUNCTION aedpics.{name}() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body} END$$;
            CREATE TRIGGER {name} {when} ON {SESSIONS} FOR EACH ROW EXECUTE FUNCTION aedpics.{name}()"""
    )
    try:
        yield
    finally:
        lab.rows(f"DROP FUNCTION aedpics.{name}() CASCADE")


@contextmanager
def records(lab: Lab, condition: str = "status IN ('active', 'paused')") -> Iterator[None]:
    """Inspection records of these sessions, which no foreign key ties to them."""
    lab.rows(
        f"""INSERT INTO {RECORDS} (session_id, equipment_serial, inspector_id, inspection_date, overall_status)
            SELECT id, equipment_serial, inspector_id, '2025-11-08', 'open' FROM {SESSIONS} WHERE {condition}"""
    )
    try:
        yield
    finally:
        lab.rows(f"DELETE FROM {RECORDS} WHERE overall_status = 'open'")


def allowing(triggers: Sequence[str], writes: Sequence[str] = ()) -> tuple[str, str]:
    """The option for the plan with what a refusal says to add to it."""
    plan = yaml.safe_load((ROOT / f"plans/{PLAN}.yml").read_text())
    plan["surplus"] |= {"triggers": list(triggers), "writes": list(writes)}
    directory = ROOT / ".lab/plans"
    directory.mkdir(exist_ok=True)
    (directory / f"{PLAN}.yml").write_text(yaml.safe_dump(plan))
    return "-e", f"plan=../.lab/plans/{PLAN}"


def accounted(lab: Lab) -> dict[str, str]:
    """Each table of the service's schema as a digest over its rows, the sessions together with those in the archive."""
    archived = "SELECT primary_key->>'id', \"row\" FROM at_most_one.archived_row WHERE restored_at IS NULL"
    images = lab.images() | dict(lab.rows(archived) if lab.archived() else [])
    canary = lab.values["canary_serial"]
    lines = sorted(
        json.dumps(image, sort_keys=True) for image in images.values() if image["equipment_serial"] != canary
    )
    return picture.content_of(lab) | {"inspection_sessions": hashlib.sha256("\n".join(lines).encode()).hexdigest()}


def assert_stopped(run: Run, phase: str, *words: str) -> None:
    assert run.code != 0
    assert (run.report["outcome"], run.report["failed_phase"]) == ("stopped", phase), run.report["error"]
    for word in (*words, "Expected:", "Next:"):
        assert word in run.report["error"], run.report["error"]


def assert_deployed(lab: Lab, run: Run, before: dict[str, str]) -> None:
    assert run.code == 0, run.output
    assert (run.report["outcome"], run.report["failed_phase"], run.report["error"]) == ("deployed", None, None)
    assert run.report["cleanup"] == {"groups": 10, "planned": 25, "removed": 25, "archived": 25, "unarchived": []}
    assert (lab.duplicate_groups(), lab.archived()) == (0, 25)
    assert lab.indexes() == dict.fromkeys(PLANNED, (True, True))
    assert lab.served(20) == {lab.values["commit_after"]}
    assert accounted(lab) == before


# What each may do is in tests/database/test_trial.py; the first shows that the phase stops.
CASES = [
    pytest.param(name, marks=[] if number == 0 else [pytest.mark.thorough]) for number, name in enumerate(TRIGGERS)
]


@pytest.mark.parametrize("name", CASES)
def test_a_trigger_that_bars_the_way_stops_the_run(ground: Lab, name: str) -> None:
    """Unless the plan names it, and even so, because what it does would be lost."""
    with trigger(ground, *TRIGGERS[name]), records(ground):
        before, content, pids = picture.take(ground), ground.content(), ground.pids()
        unnamed = run_playbook("deploy.yml")
        named = run_playbook("deploy.yml", *allowing(["meddle"]))
        picture.assert_as_before(before, picture.take(ground))
        assert ground.content() == content

    assert_stopped(unnamed, "prepare", f"sets off trigger meddle of {SESSIONS}", "triggers: [meddle]")
    assert_stopped(named, "prepare", *FAULTS[name].says)
    assert (ground.pids(), ground.link) == (pids, "in place")
    assert (ground.archived(), ground.fences(), ground.duplicate_groups()) == (0, 0, 10)


@pytest.mark.thorough  # tests/database/test_accounting.py holds what a batch refuses
def test_what_only_a_row_outside_the_sample_sets_off_stops_the_clean_up(ground: Lab) -> None:
    with trigger(ground, *REMOVES_RECORDS), records(ground, NOT_IN_THE_SAMPLE):
        before, content, pids = picture.take(ground), ground.content(), ground.pids()
        run = run_playbook("deploy.yml", *allowing(["meddle"]))
        picture.assert_as_before(before, picture.take(ground))
        assert ground.content() == content

    assert_stopped(run, "cleanup", *FAULTS["trigger that writes for few rows"].says)
    assert ground.pids() == pids
    assert (ground.archived(), ground.fences(), ground.duplicate_groups()) == (0, 0, 10)


@pytest.mark.thorough  # the trial and the restore of such rows are in tests/database/test_trial.py
def test_what_the_plan_allows_happens_and_all_else_comes_back(ground: Lab) -> None:
    with (
        trigger(ground, *REMOVES_RECORDS, name="remove_records"),
        trigger(ground, *STAMPS_WHAT_HAS_NO_STAMP, name="stamp"),
        records(ground),
    ):
        allowed = allowing(["remove_records", "stamp"], [RECORDS])
        before, all_rows = picture.take(ground), accounted(ground)
        written = f"SELECT count(*) FROM {RECORDS} WHERE overall_status = 'open'"
        there = ground.value(written)
        forward = run_playbook("deploy.yml", "-e", "report_language=en", *allowed)
        assert_deployed(ground, forward, all_rows | {"inspections": picture.content_of(ground)["inspections"]})
        assert "trigger remove_records" in " ".join(forward.output.split()), "what the plan allows is shown"
        assert ground.value(written) == there - 25

        back = run_playbook("rollback.yml", *allowed)

        assert back.code == 0, back.output
        assert back.report["outcome"] == "rolled_back"
        after = picture.take(ground)
        assert [name for name in before.content if after.content[name] != before.content[name]] == ["inspections"]
        assert accounted(ground) | {"inspections": ""} == all_rows | {"inspections": ""}
        assert after.schema == before.schema
    assert (ground.archived(), ground.fences(), ground.duplicate_groups()) == (0, 0, 10)


@contextmanager
def readers_who_stay(lab: Lab) -> Iterator[list[int]]:
    """An idle session that has read the table, and a snapshot with a lock on every table, as pg_dump holds it."""
    counted = f"SELECT count(*) FROM {SESSIONS} WHERE status IN ('active', 'paused')"
    tables = [name for (name,) in lab.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'aedpics'")]
    with lab.cursor() as idle, lab.cursor() as dump:
        idle.execute("BEGIN")
        idle.execute(counted)
        dump.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        for name in tables:
            dump.execute(f'LOCK TABLE aedpics."{name}" IN ACCESS SHARE MODE')
        dump.execute(counted)
        seen = dump.fetchone()
        yield [idle.connection.info.backend_pid, dump.connection.info.backend_pid]
        dump.execute(counted)
        assert dump.fetchone() == seen, "its snapshot is the one from before the run"
        idle.execute("SELECT 1")


OLD_ENOUGH = ("-e", "prepare_max_transaction_age_s=600")  # a slow machine takes longer to prepare than the usual minute


@pytest.mark.thorough  # tests/database/test_fence_states.py holds that rows return under such a fence
def test_readers_who_stay_keep_no_run_from_going_back(ground: Lab) -> None:
    before, pids = accounted(ground), ground.pids()

    with readers_who_stay(ground) as readers, locked_while_migrating(ground, SESSIONS):
        run = run_playbook("deploy.yml", *QUICK, *OLD_ENOUGH)

    fault = FAULTS["reader who stays, on the way back"]
    assert_rolled_back(run, "migrate", *fault.says)
    assert "25 rows restored" in run.report["error"]
    assert "write fence could not be dropped yet" in run.report["error"]
    assert all(f"pid {pid}" in run.output for pid in readers)
    assert accounted(ground) == before
    assert (ground.archived(), ground.duplicate_groups(), ground.pids()) == (0, 10, pids)
    assert ground.fences() == 1

    back = run_playbook("rollback.yml", "-e", "report_language=en")
    assert "nothing to roll back" in " ".join(back.failures)
    assert accounted(ground) == before
    looked = run_playbook("monitor.yml", "-e", "report_language=en")
    by_hand = re.search(r"by hand: (DROP INDEX [^;]+);", " ".join(" ".join(looked.failures).split()))
    assert by_hand, looked.failures
    ground.rows(by_hand[1])
    assert ground.fences() == 0
    assert accounted(ground) == before


@contextmanager
def bulk_insert(lab: Lab) -> Iterator[Future[dict[str, Any]]]:
    """One statement of many rows once the fence is up, then one with a duplicate among its rows."""
    over = threading.Event()
    insert = f"""INSERT INTO {SESSIONS} (equipment_serial, inspector_id, status)
                 SELECT serial, '00000000-0000-4000-8000-000000000002', 'active' FROM unnest(%s) AS serial"""

    def write() -> dict[str, Any]:
        while not over.is_set() and not lab.fences():
            time.sleep(0.02)
        with lab.cursor() as cursor:
            found: dict[str, Any] = {"indexes": lab.indexes()}
            cursor.execute(insert, ([f"bulk-{number}" for number in range(BULK)],))
            found |= {"rows": cursor.rowcount, "fences": lab.fences()}
            with pytest.raises(psycopg2.errors.UniqueViolation) as refused:
                cursor.execute(insert, ([*(f"more-{number}" for number in range(1_000)), "11-0010656"],))
            found["refused_by"] = refused.value.diag.constraint_name
        return found

    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(write)
        finally:
            over.set()


def test_readers_who_stay_and_a_bulk_insert_under_the_fence(ground: Lab) -> None:
    before = accounted(ground)

    with readers_who_stay(ground) as readers:
        with bulk_insert(ground) as writing:
            run = run_playbook("deploy.yml", "-e", "report_language=en", *OLD_ENOUGH)
        written = writing.result()
        left = ground.rows("SELECT relname FROM pg_class WHERE relname ~ '^at_most_one_fence_'")
        with pytest.raises(psycopg2.errors.UniqueViolation):  # harmless: it refuses what the index refuses
            ground.rows(f"INSERT INTO {SESSIONS} SELECT gen_random_uuid(), equipment_serial, inspector_id, status"
                        f" FROM {SESSIONS} WHERE equipment_serial = 'bulk-1'")  # fmt: skip

    assert (written["indexes"], written["rows"]) == ({}, BULK)
    assert written["fences"] > 0
    assert written["refused_by"].startswith(("at_most_one_fence_", "idx_inspection_sessions_active_session"))
    assert ground.value(f"SELECT count(*) FROM {SESSIONS} WHERE equipment_serial ~ '^more-'") == 0
    with ground.cursor() as cursor:
        cursor.execute(f"DELETE FROM {SESSIONS} WHERE equipment_serial ~ '^bulk-'")
        assert cursor.rowcount == BULK
    assert_deployed(ground, run, before)
    output = " ".join(run.output.split())
    assert len(left) == 1
    for word in (*FAULTS["reader who stays"].says, *(f"pid {pid}" for pid in readers)):
        assert word in output

    looked = run_playbook("monitor.yml", "-e", "report_language=en")
    assert f"The write fence is partial ({left[0][0]}) and no run is at work." in " ".join(looked.failures)
    assert ground.fences() == 1, "the monitor changes nothing"

    dropped = run_playbook("deploy.yml", "--tags", "verify")
    assert dropped.code == 0, dropped.output
    assert ground.fences() == 0
    assert_deployed(ground, run, before)


@pytest.mark.thorough  # tests/database/test_subscribers.py holds what stops a subscriber
def test_a_subscriber_of_all_tables_stays_alive(lab: Lab) -> None:
    """The run stops before a table is created that the subscriber lacks; told what to do, it deploys beside it."""
    ground = reset(lab)
    everything = Lab({**lab.values, "database_user": lab.values["superuser_name"],
                      "database_password": lab.values["superuser_password"]})  # fmt: skip
    everything.rows("CREATE PUBLICATION everything FOR ALL TABLES")
    try:
        with subscriber(ground, "everything") as copy:
            before, content, worker = picture.take(ground), ground.content(), copy.worker()
            assert copy.database.content() == content
            stopped = run_playbook("deploy.yml")
            picture.assert_as_before(before, picture.take(ground))
            assert ground.content() == content
            copy.await_everything()
            assert copy.worker() == worker

            tables = "TABLES IN SCHEMA aedpics"
            if everything.value("SELECT current_setting('server_version_num')::int") < 150000:
                names = everything.rows(
                    "SELECT format('aedpics.%I', tablename) FROM pg_tables WHERE schemaname = 'aedpics'"
                )
                tables = f"TABLE {', '.join(name for (name,) in names)}"
            everything.rows(f"CREATE PUBLICATION service FOR {tables}")
            copy.follow("service")
            everything.rows("DROP PUBLICATION everything")
            rows = accounted(ground)
            worker = copy.worker()
            deployed = run_playbook("deploy.yml")

            assert_deployed(ground, deployed, rows)
            copy.await_everything()
            assert copy.worker() == worker is not None, "it met nothing that it could not apply"
            assert copy.database.content() == ground.content()
            assert copy.database.duplicate_groups() == 0
    finally:
        everything.rows("DROP PUBLICATION IF EXISTS everything; DROP PUBLICATION IF EXISTS service")

    fault = FAULTS["publication for all tables"]
    assert stopped.code != 0
    message = " ".join(stopped.failures)
    for word in (*fault.says, "Publication everything", "Expected:", "Next:"):
        assert word in message
    assert stopped.report == {}, "no run was opened"
