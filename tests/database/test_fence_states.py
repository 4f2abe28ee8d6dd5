"""How the write fence goes up and down: locks, readers in the way, damage, a surplus too large for its list."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from at_most_one.duplicates import surplus_rows
from at_most_one.duplicates.restore import restore
from at_most_one.errors import OperatorError
from at_most_one.fence import building, exempting_index, write_fence
from at_most_one.indexes import verification
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.postgres.fence_names import PATTERN, name_of

from tests.database.test_fence import (
    IN_RULE,
    INSERT,
    INSPECTOR,
    TABLE,
    open_as_app,
    refused,
    run,
    until_somebody_waits,
)
from tests.database.test_fence import app as app  # fixtures
from tests.database.test_fence import fenced as fenced

pytestmark = pytest.mark.versions

NONE = write_fence.Change("lowered", "lowered", [], 0)
SURPLUS_FIRST = write_fence.Change("lowered", "lowered", [], 0, surplus_first=True)
DROP = 'DROP INDEX CONCURRENTLY IF EXISTS "aedpics"."{}"'
LEGACY = """
CREATE SCHEMA at_most_one;
CREATE FUNCTION at_most_one.{function}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER at_most_one_{function}_insert AFTER INSERT ON {table}
    FOR EACH ROW EXECUTE FUNCTION at_most_one.{function}();
CREATE TRIGGER at_most_one_{function}_update AFTER UPDATE ON {table}
    FOR EACH ROW EXECUTE FUNCTION at_most_one.{function}();
"""


def found(connection: Connection) -> list[tuple[str, bool, bool]]:
    """The fence's indexes: name, valid, ready."""
    return run(
        connection,
        "SELECT c.relname, i.indisvalid, i.indisready FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid"
        " WHERE c.relname ~ %s ORDER BY c.oid",
        PATTERN,
    )


def remove(connection: Connection, plan: Plan) -> surplus_rows.Removal:
    report = surplus_rows.report(connection, plan)
    limits: dict[str, Any] = {"max_rows": 10_000, "expected_groups": 10_000, "expected_rows": 10_000}
    return surplus_rows.remove(connection, plan, rows=report.rows, digest=report.digest, run_id="run-1", **limits)


class TestStates:
    def test_raised_and_lowered_once_each(self, connection: Connection, plan: Plan, example: Any) -> None:
        assert write_fence.query(connection, plan)[0].state == "lowered"
        raised = write_fence.raise_fence(connection, plan)
        assert (raised.before, raised.state, raised.attempts, raised.exempt) == ("lowered", "raised", 1, 25)
        assert found(connection) == [(name_of(plan.id), True, True)]
        dropping = write_fence.Change("raised", "raised", [DROP.format(name_of(plan.id))], 0)
        assert write_fence.query(connection, plan) == (dropping, [name_of(plan.id)])
        assert write_fence.raise_fence(connection, plan) == write_fence.Change("raised", "raised", [], 0, 25)
        assert write_fence.lower_fence(connection, plan).before == "raised"
        assert write_fence.query(connection, plan)[0].state == "lowered"
        assert write_fence.lower_fence(connection, plan) == NONE
        assert found(connection) == []

    def test_check_mode_gives_the_statements_and_runs_none(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        predicted = write_fence.raise_fence(connection, plan, check=True)
        assert found(connection) == []
        assert write_fence.raise_fence(connection, plan) == predicted
        assert not any(row in str(predicted) for row in example.surplus), "their number, not their keys"
        assert 'NOT (("id") = ANY (25 rows))' in predicted.statements[-1]
        predicted = write_fence.lower_fence(connection, plan, check=True)
        assert write_fence.query(connection, plan)[0].state == "raised"
        assert write_fence.lower_fence(connection, plan) == predicted

    @pytest.mark.parametrize(
        "damage",
        [
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'aedpics.{name}'::regclass",
            "UPDATE pg_index SET indisready = false WHERE indexrelid = 'aedpics.{name}'::regclass",
            "UPDATE pg_index SET indislive = false WHERE indexrelid = 'aedpics.{name}'::regclass",
            "COMMENT ON INDEX aedpics.{name} IS 'mine'",
            """COMMENT ON INDEX aedpics.{name} IS E'of another release\\n{{"exempt": []}}'""",
            """COMMENT ON INDEX aedpics.{name} IS E'of another release\\n[]'""",
        ],
        ids=["invalid", "not ready", "not live", "without its comment", "a comment with less", "with something else"],
    )
    def test_a_damaged_fence_is_partial_and_gets_replaced(
        self, connection: Connection, plan: Plan, fenced: Any, app: Connection, damage: str
    ) -> None:
        run(connection, damage.format(name=name_of(plan.id)))
        assert write_fence.query(connection, plan)[0].state == "partial"
        raised = write_fence.raise_fence(connection, plan)
        assert (raised.before, raised.statements[-1]) == ("partial", DROP.format(name_of(plan.id)))
        assert write_fence.query(connection, plan)[0].state == "raised"
        assert found(connection) == [(name_of(plan.id, 2), True, True)]
        refused(app, INSERT, fenced.control, "active")

    def test_the_fence_of_a_changed_plan_is_partial_and_gets_replaced(
        self, connection: Connection, plan: Plan, fenced: Any, app: Connection
    ) -> None:
        words = "status = 'active'"
        narrower = replace(plan, predicate=words, rule_index=replace(plan.rule_index, predicate=words))
        assert write_fence.query(connection, narrower)[0].state == "partial"
        write_fence.raise_fence(connection, narrower)
        run(app, INSERT, fenced.control, "paused")

    def test_two_plans_on_one_table_have_a_fence_each(
        self, connection: Connection, plan: Plan, fenced: Any, app: Connection
    ) -> None:
        words = "status = 'in_progress'"
        keys = (replace(plan.rule_index.keys[0], column="inspector_id"),)
        index = replace(plan.rule_index, keys=keys, predicate=words)
        other = replace(plan, id="another-plan", key=("inspector_id",), predicate=words, rule_index=index)
        write_fence.raise_fence(connection, other)
        write_fence.lower_fence(connection, plan)
        assert write_fence.query(connection, other)[0].state == "raised"
        run(app, INSERT, "AED-0098", "in_progress")
        refused(app, INSERT, "AED-0099", "in_progress")

    @pytest.mark.parametrize("change", [write_fence.raise_fence, write_fence.lower_fence])
    def test_triggers_of_an_older_release_are_dropped(
        self, connection: Connection, plan: Plan, example: Any, change: Callable[..., write_fence.Change]
    ) -> None:
        run(connection, LEGACY.format(function=name_of(plan.id).removeprefix("at_most_one_"), table=TABLE))
        assert write_fence.query(connection, plan)[0].state == "partial"
        done = change(connection, plan)
        assert (done.before, done.warnings) == ("partial", [])
        assert [one for one in done.statements if one.startswith("DROP TRIGGER")] == [
            f'DROP TRIGGER "{name_of(plan.id)}_{event}" ON "aedpics"."inspection_sessions"'
            for event in ("insert", "update")
        ]
        assert run(connection, "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") == [(0,)]
        assert run(connection, "SELECT count(*) FROM pg_proc WHERE pronamespace = 'at_most_one'::regnamespace") == [
            (0,)
        ]

    def test_it_is_no_index_of_the_plan_and_no_stranger_of_its_family(
        self, connection: Connection, plan: Plan, fenced: Any
    ) -> None:
        anything = replace(plan, family=replace(plan.family, pattern="."))
        names = {verdict.name for verdict in verification.inspect(connection, anything).verdicts}
        connection.rollback()
        assert not any(name.startswith("at_most_one_fence") for name in names)


class TestReaders:
    """Somebody has read the table and leaves his transaction open: pg_dump, or an idle session of the application."""

    def test_nobody_waits_and_nothing_fails(
        self, login: Login, connection: Connection, plan: Plan, example: Any, app: Connection
    ) -> None:
        with app.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM {TABLE}")
        reader = open_as_app(login)
        run(reader, "SET lock_timeout = 1")
        over, read = threading.Event(), 0

        def keep_reading() -> None:
            nonlocal read
            while not over.is_set():
                run(reader, f"SELECT count(*) FROM {TABLE}")
                read += 1

        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(keep_reading)
            try:
                assert write_fence.raise_fence(connection, plan).attempts == 1
                lowered = write_fence.lower_fence(connection, plan, wait_ms=300)
            finally:
                over.set()
            reading.result(10)
        reader.close()
        assert read > 0
        (warning,) = lowered.warnings
        assert (lowered.before, lowered.state) == ("raised", "partial")
        assert f"pid {app.info.backend_pid}" in warning
        assert DROP.format(name_of(plan.id)) in warning
        assert found(connection) == [(name_of(plan.id), False, True)]
        second = open_as_app(login)
        refused(second, INSERT, example.control, "active")
        second.close()

        app.commit()
        assert write_fence.lower_fence(connection, plan).state == "lowered"
        assert found(connection) == []

    def test_a_fence_that_could_not_be_dropped_makes_room_for_the_next(
        self, connection: Connection, plan: Plan, fenced: Any, app: Connection
    ) -> None:
        with app.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM {TABLE}")
        write_fence.lower_fence(connection, plan, wait_ms=100)
        raised = write_fence.raise_fence(connection, plan)
        assert (raised.state, len(raised.warnings)) == ("raised", 1)
        assert [valid for _, valid, _ in found(connection)] == [False, True]
        app.commit()
        assert write_fence.lower_fence(connection, plan).warnings == []
        assert found(connection) == []

    def test_rows_come_back_under_a_fence_that_cannot_be_dropped(
        self, connection: Connection, plan: Plan, fenced: Any, app: Connection
    ) -> None:
        assert remove(connection, plan).archived == 25
        with app.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM {TABLE}")
        assert write_fence.lower_fence(connection, plan, wait_ms=100).state == "partial"
        assert restore(connection, plan, run_id="run-1").restored == 25


class TestLock:
    def test_waits_for_a_writer_in_flight_and_sees_what_it_wrote(
        self, login: Login, plan: Plan, example: Any, app: Connection
    ) -> None:
        with app.cursor() as cursor:
            cursor.execute(INSERT, (example.control, "active"))
        with connect(login, lock_timeout_ms=5_000) as ours, ThreadPoolExecutor(1) as pool:
            raising = pool.submit(write_fence.raise_fence, ours, plan)
            until_somebody_waits(login, "relation")
            app.commit()
            assert raising.result(10).state == "raised"
            assert surplus_rows.report(ours, plan).group_count == 11

    def test_gives_up_after_its_attempts_and_names_who_holds_the_table(
        self, login: Login, plan: Plan, example: Any, app: Connection
    ) -> None:
        reader = open_as_app(login)  # whose locks the build's would be held together with
        with reader.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM {TABLE}")
            cursor.execute(f"SELECT FROM {TABLE} WHERE id = %s FOR KEY SHARE", (max(example.surplus),))
        with app.cursor() as cursor:
            cursor.execute(f"UPDATE {TABLE} SET notes = 'secret' WHERE id = %s", (min(example.surplus),))
        with connect(login, lock_timeout_ms=20) as ours:
            with pytest.raises(OperatorError, match="could not be raised in 2 attempts") as stop:
                write_fence.raise_fence(ours, plan, lock_attempts=2)
            assert write_fence.query(ours, plan)[0].state == "lowered"
        (blocker,) = stop.value.details["blockers"]
        assert blocker["pid"] == app.info.backend_pid
        assert blocker["state"] == "idle in transaction"
        assert "secret" not in str(stop.value)
        reader.close()

    def test_a_single_attempt_is_enough_where_nobody_writes_and_none_is_an_error(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        with pytest.raises(ValueError, match="at least 1"):
            write_fence.raise_fence(connection, plan, lock_attempts=0)
        assert write_fence.raise_fence(connection, plan, lock_attempts=1).attempts == 1

    def test_tries_again_until_the_holder_leaves(self, login: Login, plan: Plan, example: Any, app: Connection) -> None:
        with app.cursor() as cursor:
            cursor.execute(f"LOCK TABLE {TABLE} IN ROW EXCLUSIVE MODE")
        threading.Timer(0.3, app.commit).start()
        with connect(login, lock_timeout_ms=20) as ours:
            assert write_fence.raise_fence(ours, plan, lock_attempts=50).attempts > 1


class TestTighten:
    """An exempt row that is not removed is exempt no longer than until the removal has ended."""

    CLOSE, OPEN = (f"UPDATE {TABLE} SET status = '{status}' WHERE id = %s" for status in ("completed", "active"))

    def test_a_row_that_was_closed_cannot_be_opened_again(
        self, connection: Connection, plan: Plan, fenced: Any, app: Connection
    ) -> None:
        closed = min(fenced.surplus)
        run(app, self.CLOSE, closed)
        assert remove(connection, plan).archived == 24
        tightened = write_fence.tighten(connection, plan)
        assert (tightened.state, tightened.exempt, tightened.warnings) == ("raised", 0, [])
        refused(app, self.OPEN, closed)
        assert write_fence.tighten(connection, plan).statements == [], "nothing is left to do"

    def test_raising_it_once_more_takes_such_a_row_in_as_well(
        self, connection: Connection, plan: Plan, fenced: Any, app: Connection
    ) -> None:
        """The run was stopped before the removal, and is begun again."""
        closed = min(fenced.surplus)
        run(app, self.CLOSE, closed)
        raised = write_fence.raise_fence(connection, plan)
        assert (raised.before, raised.exempt) == ("raised", 24)
        refused(app, self.OPEN, closed)

    def test_the_row_that_was_kept_instead_is_in_it(
        self, connection: Connection, plan: Plan, fenced: Any, app: Connection
    ) -> None:
        run(app, self.CLOSE, fenced.keep["AED-0001"])
        remove(connection, plan)
        write_fence.tighten(connection, plan)
        refused(app, INSERT, "AED-0001", "active")

    def test_what_became_surplus_meanwhile_is_exempt_and_counted(
        self, connection: Connection, plan: Plan, fenced: Any, app: Connection
    ) -> None:
        closed = min(fenced.surplus)
        run(app, self.CLOSE, closed)
        remove(connection, plan)
        run(app, self.OPEN, closed)
        other = min(set(fenced.history) - {closed})
        run(connection, "DROP INDEX aedpics." + name_of(plan.id))
        run(app, self.OPEN, other)
        again = write_fence.raise_fence(connection, plan)
        assert again.exempt == 2

    def test_after_a_removal_without_change_nothing_is_done(
        self, connection: Connection, plan: Plan, fenced: Any
    ) -> None:
        remove(connection, plan)
        assert write_fence.tighten(connection, plan) == write_fence.Change("raised", "raised", [], 0)

    def test_a_surplus_row_that_is_exempt_still_is_counted(
        self, connection: Connection, plan: Plan, fenced: Any, app: Connection
    ) -> None:
        """Opened again after the clean-up had closed it, and before the fence took it in: nothing is to be replaced."""
        back = min(fenced.surplus)
        run(app, self.CLOSE, back)
        remove(connection, plan)
        run(app, self.OPEN, back)
        tightened = write_fence.tighten(connection, plan)
        assert (tightened.statements, tightened.exempt) == ([], 1)

    def test_rows_that_have_left_may_still_return(
        self, connection: Connection, plan: Plan, fenced: Any, app: Connection
    ) -> None:
        run(app, self.CLOSE, min(fenced.surplus))
        remove(connection, plan)
        assert write_fence.tighten(connection, plan).statements
        assert restore(connection, plan, run_id="run-1").restored == 24

    def test_of_two_the_newer_one_counts(
        self, connection: Connection, plan: Plan, fenced: Any, app: Connection
    ) -> None:
        """The run was lost between the new one's build and the old one's drop: nothing is left to build."""
        run(app, self.CLOSE, min(fenced.surplus))
        remove(connection, plan)
        asked = 0

        def lost_later(_: Connection) -> None:
            nonlocal asked
            asked += 1
            if asked == 2:
                raise OperatorError("lost", expected="the run", next_step="none.")

        with pytest.raises(OperatorError, match="lost"):
            write_fence.tighten(connection, plan, hold=lost_later)
        names = [name_of(plan.id), name_of(plan.id, 2)]
        assert found(connection) == [(name, True, True) for name in names]
        for change in (write_fence.tighten, write_fence.raise_fence):
            assert (change(connection, plan).statements, len(found(connection))) == ([], 2)
        assert write_fence.lower_fence(connection, plan).state == "lowered"

    def test_a_busy_table_leaves_it_as_it_is(
        self, login: Login, connection: Connection, plan: Plan, fenced: Any, app: Connection
    ) -> None:
        closed, opened_again = sorted(fenced.surplus)[:2]
        run(app, self.CLOSE, closed)
        run(app, self.CLOSE, opened_again)
        remove(connection, plan)
        run(app, self.OPEN, opened_again)
        with app.cursor() as cursor:
            cursor.execute(f"LOCK TABLE {TABLE} IN ROW EXCLUSIVE MODE")
        with connect(login, lock_timeout_ms=20) as ours:
            tightened = write_fence.tighten(ours, plan, lock_attempts=2)
        assert (tightened.state, tightened.statements, tightened.exempt) == ("raised", [], 1)
        assert f"pid {app.info.backend_pid}" in tightened.warnings[0]


class TestLargeSurplus:
    def add(self, connection: Connection, rows: int) -> None:
        run(
            connection,
            f"INSERT INTO {TABLE} (equipment_serial, inspector_id, status)"
            f" SELECT 'L' || (n + 1) / 2, '{INSPECTOR}', 'active' FROM generate_series(1, %s) AS n",
            2 * rows,
        )

    def test_it_has_to_leave_first(self, connection: Connection, plan: Plan, example: Any, app: Connection) -> None:
        self.add(connection, exempting_index.MOST)
        assert write_fence.raise_fence(connection, plan) == SURPLUS_FIRST
        assert found(connection) == []
        remove(connection, plan)
        assert write_fence.raise_fence(connection, plan).exempt == 0
        refused(app, INSERT, example.control, "active")
        run(app, f"{INSERT} ON CONFLICT (equipment_serial) WHERE {IN_RULE} DO NOTHING", example.control, "active")

    def test_the_most_that_fits(self, connection: Connection, plan: Plan, example: Any) -> None:
        self.add(connection, exempting_index.MOST - 25)
        assert write_fence.raise_fence(connection, plan).exempt == exempting_index.MOST

    @pytest.mark.parametrize("pause_ms", [500, -1], ids=["plain", "concurrent"])
    def test_keys_that_are_too_long_for_the_catalog(
        self, connection: Connection, plan: Plan, example: Any, pause_ms: int
    ) -> None:
        """Few rows, but long keys: the server says so, before it builds. Since PostgreSQL 18 any list fits."""
        run(connection, f"ALTER TABLE {TABLE} ALTER id DROP DEFAULT, ALTER id TYPE text")
        run(
            connection,
            f"INSERT INTO {TABLE} (id, equipment_serial, inspector_id, status) SELECT (SELECT"
            f" string_agg(md5(n::text || m), '') FROM generate_series(1, 10) AS m), 'L', '{INSPECTOR}', 'active'"
            " FROM generate_series(1, 100) AS n",
        )
        raised = write_fence.raise_fence(connection, plan, max_write_pause_ms=pause_ms)
        fits = connection.server_version >= 180_000
        assert (raised == SURPLUS_FIRST, raised.exempt) == (not fits, 124 if fits else 0)
        assert len(found(connection)) == fits

    def test_a_key_too_long_for_an_index_is_no_long_list(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        run(connection, "DROP INDEX aedpics.idx_inspection_sessions_equipment")
        run(connection, f"ALTER TABLE {TABLE} ALTER equipment_serial TYPE text")
        run(
            connection,
            f"INSERT INTO {TABLE} (equipment_serial, inspector_id, status) SELECT string_agg(md5(n::text), ''),"
            f" '{INSPECTOR}', 'active' FROM generate_series(1, 300) AS n",
        )
        with pytest.raises(OperatorError, match="index row"):
            write_fence.raise_fence(connection, plan)


class TestConcurrently:
    """Where the forecast is too long for writers to wait."""

    def test_it_is_built_beside_the_writers(
        self, connection: Connection, plan: Plan, example: Any, app: Connection
    ) -> None:
        predicted = write_fence.raise_fence(connection, plan, max_write_pause_ms=-1, check=True)
        raised = write_fence.raise_fence(connection, plan, max_write_pause_ms=-1)
        assert raised == predicted
        assert (raised.state, raised.exempt, raised.concurrent) == ("raised", 25, True)
        refused(app, INSERT, example.control, "active")
        remove(connection, plan)
        assert write_fence.tighten(connection, plan).statements == []

    def test_where_no_pause_at_all_is_allowed(self, connection: Connection, plan: Plan, example: Any) -> None:
        assert write_fence.raise_fence(connection, plan, max_write_pause_ms=0).concurrent

    def keep_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As where the duplicate is met in the second scan: what the build leaves refuses new ones already."""
        there = exempting_index.found

        def found_ready(*given: Any) -> list[exempting_index.Fence]:
            return [replace(one, ready=True) for one in there(*given)]

        monkeypatch.setattr(exempting_index, "found", found_ready)

    @pytest.mark.parametrize("ready", [False, True])
    def test_a_duplicate_that_is_committed_meanwhile(
        self,
        login: Login,
        plan: Plan,
        connection: Connection,
        example: Any,
        app: Connection,
        monkeypatch: pytest.MonkeyPatch,
        ready: bool,
    ) -> None:
        """What it leaves is kept beside the next one where it is of use, and dropped before it where it is not."""
        if ready:
            self.keep_up(monkeypatch)
        with app.cursor() as cursor:
            cursor.execute(INSERT, (example.control, "active"))
        with connect(login) as ours, ThreadPoolExecutor(1) as pool:
            raising = pool.submit(write_fence.raise_fence, ours, plan, max_write_pause_ms=-1)
            until_somebody_waits(login, "virtualxid")
            app.commit()
            raised = raising.result(20)
        assert (raised.state, raised.exempt, raised.attempts) == ("raised", 26, 2)
        assert found(connection) == [(name_of(plan.id, 1 + ready), True, True)]

    def test_a_list_that_no_longer_fits_when_it_is_built_again(
        self, login: Login, plan: Plan, example: Any, app: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(exempting_index, "MOST", 25)
        with app.cursor() as cursor:
            cursor.execute(INSERT, (example.control, "active"))
        with connect(login) as ours, ThreadPoolExecutor(1) as pool:
            raising = pool.submit(write_fence.raise_fence, ours, plan, max_write_pause_ms=-1)
            until_somebody_waits(login, "virtualxid")
            app.commit()
            assert raising.result(20) == SURPLUS_FIRST
            assert found(ours) == []

    @pytest.mark.parametrize("ready", [False, True])
    def test_builds_that_never_succeed_leave_nothing(
        self, login: Login, plan: Plan, example: Any, app: Connection, monkeypatch: pytest.MonkeyPatch, ready: bool
    ) -> None:
        if ready:
            self.keep_up(monkeypatch)
        monkeypatch.setattr(building, "_BUILDS", 1)
        with app.cursor() as cursor:
            cursor.execute(INSERT, (example.control, "active"))
        with connect(login) as ours, ThreadPoolExecutor(1) as pool:
            raising = pool.submit(write_fence.raise_fence, ours, plan, max_write_pause_ms=-1)
            until_somebody_waits(login, "virtualxid")
            app.commit()
            with pytest.raises(OperatorError, match="during each of 1 concurrent builds"):
                raising.result(20)
            assert found(ours) == []

    def test_a_transaction_that_does_not_end_is_named_and_nothing_is_left(
        self, login: Login, plan: Plan, connection: Connection, example: Any, app: Connection
    ) -> None:
        app.set_session(isolation_level="REPEATABLE READ")
        with app.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM aedpics.user_profiles")
        waits = f"was not built within 0.5 s; it waits for pid {app.info.backend_pid}.*Nothing of it is left"
        with pytest.raises(OperatorError, match=waits):
            write_fence.raise_fence(connection, plan, max_write_pause_ms=-1, deadline_s=0.5)
        assert found(connection) == []

    @pytest.mark.parametrize("built", [0, 1])
    def test_a_run_that_was_taken_over_is_told_before_and_after_the_build(
        self, connection: Connection, plan: Plan, example: Any, built: int
    ) -> None:
        asked = 0

        def lost_later(_: Connection) -> None:
            nonlocal asked
            asked += 1
            if asked > built:
                raise OperatorError("lost", expected="the run", next_step="none")

        with pytest.raises(OperatorError, match="lost"):
            write_fence.raise_fence(connection, plan, max_write_pause_ms=-1, hold=lost_later)
        assert len(found(connection)) == built


class TestModule:
    def test_raise_check_again_query_lower(
        self,
        connection: Connection,
        plan: Plan,
        plan_data: dict[str, Any],
        example: Any,
        login_args: dict[str, Any],
        run_module: Callable[..., dict[str, Any]],
    ) -> None:
        args = {"login": login_args, "plan": plan_data, "state": "raised"}
        predicted = run_module("write_fence", args, check=True, diff=True)
        assert (predicted["changed"], predicted["before"], predicted["state"]) == (True, "lowered", "raised")
        assert write_fence.query(connection, plan)[0].state == "lowered"
        done = run_module("write_fence", args, diff=True)
        assert done == predicted
        assert done["diff"] == {"before": "write fence: lowered\n", "after": "write fence: raised\n"}
        again = run_module("write_fence", args)
        assert (again["changed"], again["statements"]) == (False, [])
        assert "warnings" not in again, "Ansible takes them by module.warn alone"
        read = run_module("write_fence_info", {"login": login_args, "plan": plan_data})
        assert (read["changed"], read["state"], read["indexes"]) == (False, "raised", [name_of(plan.id)])
        assert read["statements"] == [DROP.format(name_of(plan.id))]
        assert run_module("write_fence", {**args, "state": "lowered"})["changed"] is True
        assert write_fence.query(connection, plan)[0].state == "lowered"
