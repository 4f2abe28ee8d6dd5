"""The way back in batches: what can return does, what cannot is named with its reason, and a check knows it before."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace
from typing import Any

import pytest
from at_most_one.duplicates import restore as restoring
from at_most_one.duplicates import surplus_rows
from at_most_one.duplicates.batch_size import next_size
from at_most_one.duplicates.restore import Restoration, Size, restore
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan, SortKey, Surplus
from at_most_one.postgres.connection import Connection, Login, connect

from tests.database.citext import make_citext
from tests.database.cleaning import INSPECTOR, SETTINGS, TABLE, content, ids, run
from tests.support.ports import wait_until

TOUCH = """
CREATE FUNCTION aedpics.touch() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {} END$$;
CREATE TRIGGER touch BEFORE INSERT ON aedpics.inspection_sessions FOR EACH ROW EXECUTE FUNCTION aedpics.touch()"""


@pytest.fixture
def archived(connection: Connection, plan: Plan, example: Any) -> Any:
    """The guide's example after its clean-up."""
    clean_up(connection, plan)
    return example


def clean_up(connection: Connection, plan: Plan) -> None:
    found = surplus_rows.report(connection, plan)
    surplus_rows.remove(connection, plan, rows=found.rows, digest=found.digest, run_id="run-1")


def pending(connection: Connection) -> set[str]:
    rows = run(connection, "SELECT primary_key ->> 'id' FROM at_most_one.archived_row WHERE restored_at IS NULL")
    return {row for (row,) in rows}


def reasons(restoration: Restoration) -> dict[tuple[str, str], set[str]]:
    return {(left.reason, left.name): {row for (row,) in left.rows} for left in restoration.left}


def new_inspector(connection: Connection, sessions: set[str]) -> None:
    """Rows of one inspector, archived, who is deleted afterwards."""
    run(connection, "INSERT INTO aedpics.user_profiles VALUES (gen_random_uuid(), 'gone@example.test', 'Gone')")
    run(
        connection,
        f"UPDATE {TABLE} SET inspector_id = (SELECT id FROM aedpics.user_profiles WHERE full_name = 'Gone')"
        " WHERE id = ANY (%s::uuid[])",
        list(sessions),
    )


class TestWhatCannotReturn:
    """Each is found by a check, stays in the archive with its reason, and keeps nobody else there."""

    def both(self, connection: Connection, plan: Plan, stays: set[str], reason: str, name: str) -> None:
        there, waiting = content(connection), pending(connection)
        foreseen = restore(connection, plan, run_id="run-1", check=True, possible=True)
        assert (content(connection), pending(connection)) == (there, waiting)
        assert reasons(foreseen) == {(reason, name): stays}
        with pytest.raises(
            OperatorError, match=rf"{len(stays)} archived rows cannot return .* No row was restored"
        ) as no:
            restore(connection, plan, run_id="run-1")
        assert {row for (row,) in no.value.details["refused"]} == stays
        assert (content(connection), pending(connection)) == (there, waiting)

        done = restore(connection, plan, run_id="run-1", possible=True)
        assert reasons(done) == {(reason, name): stays}
        assert done.restored == foreseen.restored == len(waiting) - len(stays)
        assert {row for (row,) in done.rows} == waiting - stays
        assert pending(connection) == stays
        assert waiting - stays <= ids(connection)

    def test_who_refers_to_a_row_that_is_gone(self, connection: Connection, plan: Plan, example: Any) -> None:
        stays = set(sorted(example.surplus)[:3])
        new_inspector(connection, stays)
        clean_up(connection, plan)
        run(connection, "DELETE FROM aedpics.user_profiles WHERE full_name = 'Gone'")
        self.both(connection, plan, stays, "constraint", "inspection_sessions_inspector_id_fkey")

    def test_a_deferred_constraint_is_asked_before_the_commit(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        key = "inspection_sessions_inspector_id_fkey"
        run(connection, f"ALTER TABLE {TABLE} ALTER CONSTRAINT {key} DEFERRABLE INITIALLY DEFERRED")
        stays = set(sorted(example.surplus)[:3])
        new_inspector(connection, stays)
        clean_up(connection, plan)
        run(connection, "DELETE FROM aedpics.user_profiles WHERE full_name = 'Gone'")
        self.both(connection, plan, stays, "constraint", key)

    def test_whose_key_is_taken(self, connection: Connection, plan: Plan, archived: Any) -> None:
        taken = min(archived.surplus)
        run(
            connection,
            f"INSERT INTO {TABLE} (id, equipment_serial, inspector_id, status) VALUES (%s, 'X', %s, 'completed')",
            *(taken, INSPECTOR),
        )
        self.both(connection, plan, {taken}, "taken", "inspection_sessions_pkey")

    def test_what_the_rule_rejects(self, connection: Connection, plan: Plan, archived: Any) -> None:
        run(
            connection,
            f"CREATE UNIQUE INDEX {plan.rule_index.name} ON {TABLE} (equipment_serial) WHERE {plan.predicate}",
        )
        self.both(connection, plan, set(archived.surplus), "rule", plan.rule_index.name)

    def test_what_a_trigger_stamps(self, connection: Connection, plan: Plan, archived: Any) -> None:
        stays = set(sorted(archived.surplus)[:4])
        listed = ", ".join(f"'{row}'" for row in stays)
        stamp = f"IF NEW.id::text IN ({listed}) THEN NEW.updated_at := now(); NEW.notes := 'x'; END IF; RETURN NEW;"
        run(connection, TOUCH.format(stamp))
        self.both(connection, plan, stays, "changed_value", "notes, updated_at")

    @pytest.mark.parametrize(
        ("refusal", "code"), [("RAISE 'secret of %%', NEW.notes", "P0001"), ("ASSERT false, NEW.notes", "P0004")]
    )
    def test_what_a_trigger_refuses(
        self, connection: Connection, plan: Plan, archived: Any, refusal: str, code: str
    ) -> None:
        stays = {min(archived.surplus)}
        run(connection, TOUCH.format(f"IF NEW.id = '{min(stays)}' THEN {refusal}; END IF; RETURN NEW;"))
        self.both(connection, plan, stays, "trigger", f"aedpics.touch(), SQLSTATE {code}")

    def test_what_a_trigger_keeps_out(self, connection: Connection, plan: Plan, archived: Any) -> None:
        stays = {min(archived.surplus)}
        run(connection, TOUCH.format(f"IF NEW.id = '{min(stays)}' THEN RETURN NULL; END IF; RETURN NEW;"))
        self.both(connection, plan, stays, "swallowed", "")

    def test_whose_column_is_gone(self, connection: Connection, plan: Plan, archived: Any) -> None:
        run(connection, f"ALTER TABLE {TABLE} DROP COLUMN notes")
        self.both(connection, plan, set(archived.surplus), "column", "notes")

    def test_what_a_new_column_keeps_out(self, connection: Connection, plan: Plan, archived: Any) -> None:
        run(connection, f"ALTER TABLE {TABLE} ADD COLUMN reviewer text NOT NULL DEFAULT 'x'")
        run(connection, f"ALTER TABLE {TABLE} ALTER COLUMN reviewer DROP DEFAULT")
        self.both(connection, plan, set(archived.surplus), "constraint", "reviewer NOT NULL")

    def test_of_rows_of_two_shapes_each_by_its_own(self, connection: Connection, plan: Plan, example: Any) -> None:
        """Those that left with a column that is gone stay, and of the others the one that a trigger refuses."""
        early = surplus_rows.report(connection, plan).rows[:4]
        digest = surplus_rows.digest(early)
        surplus_rows.remove(connection, plan, rows=early, digest=digest, run_id="run-1")
        run(connection, f"ALTER TABLE {TABLE} ADD COLUMN source text")
        clean_up(connection, plan)
        run(connection, f"ALTER TABLE {TABLE} DROP COLUMN source")
        ((refused,), *others) = early
        run(connection, TOUCH.format(f"IF NEW.id = '{refused}' THEN RAISE 'no'; END IF; RETURN NEW;"))
        done = restore(connection, plan, run_id="run-1", possible=True)
        assert done.rows == sorted(others)
        assert reasons(done) == {
            ("column", "source"): example.surplus - {row for (row,) in early},
            ("trigger", "aedpics.touch(), SQLSTATE P0001"): {refused},
        }

    @pytest.mark.parametrize(
        ("table", "reason", "name"),
        [
            ("(n int UNIQUE)", "constraint", "{rule}"),
            ("(n int) PARTITION BY LIST (n)", "trigger", "aedpics.touch(), SQLSTATE 23514"),
        ],
        ids=["an index of the rule's name", "no partition"],
    )
    def test_what_another_table_rejects_is_not_what_this_one_would(
        self, connection: Connection, plan: Plan, archived: Any, table: str, reason: str, name: str
    ) -> None:
        rule = plan.rule_index.name
        run(connection, f"CREATE SCHEMA other; CREATE TABLE other.log {table}")
        if "UNIQUE" in table:
            run(connection, f"ALTER INDEX other.log_n_key RENAME TO {rule}; INSERT INTO other.log VALUES (1)")
        run(connection, TOUCH.format("INSERT INTO other.log VALUES (1); RETURN NEW;"))
        self.both(connection, plan, set(archived.surplus), reason, name.format(rule=rule))

    def test_of_many_rows_the_first_are_named(
        self, connection: Connection, plan: Plan, archived: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        in_order = run(connection, "SELECT primary_key ->> 'id' FROM at_most_one.archived_row ORDER BY id")
        rows = [list(row) for row in in_order]
        monkeypatch.setattr(restoring, "_EXAMPLES", 2)
        monkeypatch.setattr(restoring, "_EXAMPLES_OF_REASON", 2)
        listed = ", ".join(f"'{row}'" for (row,) in rows[:3])
        run(connection, TOUCH.format(f"IF NEW.id::text IN ({listed}) THEN RAISE 'no'; END IF; RETURN NEW;"))
        done = restore(connection, plan, run_id="run-1", possible=True)
        assert [(left.count, left.rows) for left in done.left] == [(3, rows[:2])]
        assert (done.restored, done.rows) == (22, sorted(rows[3:5]))

    def test_no_value_of_a_row_is_told(self, connection: Connection, plan: Plan, archived: Any) -> None:
        run(connection, TOUCH.format("RAISE 'secret of %%', NEW.notes;"))
        with pytest.raises(OperatorError) as stop:
            restore(connection, plan, run_id="run-1")
        assert "점검" not in str(stop.value)
        assert "secret" not in str(stop.value)


class TestBatches:
    @pytest.mark.parametrize("values", [{}, {"status": "cancelled"}], ids=["delete", "update"])
    @pytest.mark.parametrize("alone", [False, True], ids=["as a batch", "row by row"])
    def test_the_session_is_afterwards_as_before(
        self, connection: Connection, plan: Plan, example: Any, values: dict[str, str], alone: bool
    ) -> None:
        """Triggers run in the search_path of the service; nothing of ours does."""
        planned = replace(plan, surplus=Surplus("update" if values else "delete", values, "stop"))
        clean_up(connection, planned)
        if alone:
            what = "UPDATE" if values else "INSERT"
            run(
                connection,
                TOUCH.replace("BEFORE INSERT", f"BEFORE {what}").format(f"""
                IF NEW.id = '{min(example.surplus)}' THEN NEW.notes := 'touched'; END IF; RETURN NEW;"""),
            )
        before = run(connection, SETTINGS)
        assert restore(connection, planned, run_id="run-1", possible=True).restored == 25 - alone
        assert run(connection, SETTINGS) == before
        assert run(connection, "SELECT count(*) FROM pg_class WHERE relpersistence = 't'") == [(0,)]

    def test_stopped_between_two_the_next_call_goes_on(self, connection: Connection, plan: Plan, example: Any) -> None:
        before = content(connection)
        clean_up(connection, plan)
        calls: list[int] = []

        def stop_later(_: Connection) -> None:
            calls.append(len(pending(other)))
            if len(calls) == 4:
                raise OperatorError("Taken over.", expected="e", next_step="n.")

        with (
            connect(login_of(connection)) as other,
            pytest.raises(OperatorError, match="20 rows were back by then") as stop,
        ):
            restore(connection, plan, run_id="run-1", possible=True, hold=stop_later, size=Size(10, 10, 60_000))
        assert calls == [25, 25, 15, 5]
        assert stop.value.details["restored"] == 20
        assert len(pending(connection)) == 5
        assert restore(connection, plan, run_id="run-1").restored == 5
        assert content(connection) == before

    def test_a_row_that_refers_to_one_of_a_later_batch_returns(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        run(connection, f"ALTER TABLE {TABLE} ADD COLUMN follows uuid REFERENCES {TABLE}")
        chain = sorted(example.surplus)
        for row, follows in itertools.pairwise(chain):
            run(connection, f"UPDATE {TABLE} SET follows = %s WHERE id = %s", follows, row)
        before = content(connection)
        run(connection, f"ALTER TABLE {TABLE} DROP CONSTRAINT inspection_sessions_follows_fkey")
        clean_up(connection, plan)
        run(connection, f"ALTER TABLE {TABLE} ADD FOREIGN KEY (follows) REFERENCES {TABLE}")
        done = restore(connection, plan, run_id="run-1", size=Size(5, largest=5))
        assert (done.restored, done.left) == (25, [])
        assert content(connection) == before

    def test_a_batch_that_outlasts_its_statement_time_is_made_smaller(
        self, connection: Connection, login: Login, plan: Plan, archived: Any
    ) -> None:
        run(connection, TOUCH.format("PERFORM pg_sleep(0.1); RETURN NEW;"))
        with connect(login, statement_timeout_ms=2_000) as hasty:
            assert restore(hasty, plan, run_id="run-1", check=True, possible=True, size=Size(25)).restored == 25
            assert restore(hasty, plan, run_id="run-1", possible=True, size=Size(25)).restored == 25

    def test_they_grow_and_the_longest_is_told(self, connection: Connection, plan: Plan, archived: Any) -> None:
        done = restore(connection, plan, run_id="run-1", possible=True, size=Size(5, target_ms=60_000))
        assert (done.restored, done.batches, done.longest_batch_ms > 0) == (25, 3, True)

    def test_a_row_that_outlasts_its_statement_time_by_itself_stops_it(
        self, connection: Connection, login: Login, plan: Plan, archived: Any
    ) -> None:
        run(connection, TOUCH.format("PERFORM pg_sleep(10); RETURN NEW;"))
        with connect(login, statement_timeout_ms=700) as hasty, pytest.raises(OperatorError) as stop:
            restore(hasty, plan, run_id="run-1", possible=True, size=Size(7))
        assert stop.value.details["sqlstate"] == "57014"
        assert len(pending(connection)) == 25

    def test_two_at_once_put_back_each_row_once(
        self, connection: Connection, login: Login, plan: Plan, archived: Any
    ) -> None:
        """The second waits for the first one's batch: rows that have just returned are no newer data."""
        run(connection, TOUCH.format("PERFORM pg_advisory_xact_lock_shared(7); RETURN NEW;"))
        done: list[Restoration] = []

        def put_back() -> None:
            with connect(login, lock_timeout_ms=10_000) as mine:
                done.append(restore(mine, plan, run_id="run-1", possible=True))

        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = %s"
        threads = [threading.Thread(target=put_back) for _ in range(2)]
        with connect(login) as gate, connect(login, autocommit=True) as watcher:
            with gate.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(7)")
            for thread, kind in zip(threads, ("advisory", "relation"), strict=True):
                thread.start()
                wait_until(lambda kind=kind: run_read(watcher, waiting, kind) == [(1,)])  # type: ignore[misc]
            gate.rollback()
            for thread in threads:
                thread.join(20)
        assert sorted(one.restored for one in done) == [0, 25]
        assert [one.left for one in done] == [[], []]


def test_a_batch_takes_as_many_rows_as_last_about_as_long_as_it_may() -> None:
    def learned(rows: int, took_ms: float) -> int:
        size = Size(rows, largest=1_000, target_ms=1_000)
        size.learn(took_ms)
        return size.rows

    assert [learned(100, took_ms) for took_ms in (0, 400, 800, 1_600, 3_200, 9_999)] == [200, 200, 100, 50, 25, 25]
    assert [learned(900, 0), learned(3, 9_999), learned(1, 9_999)] == [1_000, 1, 1]
    assert [next_size(30, took_ms, 50, smallest=20, largest=40) for took_ms in (1, 40, 9_999)] == [40, 30, 20]


class TestCheck:
    def test_it_runs_the_real_triggers_and_leaves_nothing(
        self, connection: Connection, plan: Plan, archived: Any
    ) -> None:
        run(connection, "CREATE TABLE aedpics.seen (id uuid)")
        run(connection, TOUCH.format("INSERT INTO aedpics.seen VALUES (NEW.id); RETURN NEW;"))
        before = ids(connection)
        allowed = replace(plan, surplus=replace(plan.surplus, writes=("aedpics.seen",)))
        for _ in range(2):
            assert restore(connection, allowed, run_id="run-1", check=True).restored == 25
        assert ids(connection) == before
        assert run(connection, "SELECT count(*) FROM aedpics.seen") == [(0,)]

    def test_it_waits_for_nobody_for_long(
        self, connection: Connection, login: Login, plan: Plan, archived: Any
    ) -> None:
        with connect(login) as writer, connect(login, lock_timeout_ms=60_000) as checking:
            with writer.cursor() as cursor:
                cursor.execute(f"LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(OperatorError, match="a lock was not obtained in time"):
                restore(checking, plan, run_id="run-1", check=True)
            writer.rollback()


class TestCheckBeforeTheIndexIsDropped:
    """What rollback.yml --check asks: the rule's index still stands, and is to be dropped before rows return."""

    @pytest.fixture
    def indexed(self, connection: Connection, plan: Plan, archived: Any) -> Any:
        run(
            connection,
            f"CREATE UNIQUE INDEX {plan.rule_index.name} ON {TABLE} (equipment_serial) WHERE {plan.predicate}",
        )
        return archived

    def foreseen(self, connection: Connection, plan: Plan) -> Restoration:
        """What it says, which must be what comes true."""
        before = content(connection)
        checked = restore(connection, plan, run_id="run-1", check=True, possible=True, index_dropped_first=True)
        assert content(connection) == before
        assert restore(connection, plan, run_id="run-1", check=True, possible=True).restored == 0
        run(connection, f"DROP INDEX aedpics.{plan.rule_index.name}")
        done = restore(connection, plan, run_id="run-1", possible=True)
        assert (done.restored, reasons(done)) == (checked.restored, reasons(checked))
        return checked

    def test_every_row(self, connection: Connection, plan: Plan, indexed: Any) -> None:
        checked = self.foreseen(connection, plan)
        assert (checked.restored, checked.left) == (25, [])
        assert {row for (row,) in checked.rows} == indexed.surplus

    def test_every_row_that_was_updated(self, connection: Connection, plan: Plan, example: Any) -> None:
        planned = replace(plan, surplus=Surplus("update", {"status": "cancelled"}, "stop"))
        clean_up(connection, planned)
        name = plan.rule_index.name
        run(connection, f"CREATE UNIQUE INDEX {name} ON {TABLE} (equipment_serial) WHERE {plan.predicate}")
        refused = restore(connection, planned, run_id="run-1", possible=True)
        assert (refused.restored, reasons(refused)) == (0, {("rule", name): example.surplus})
        assert self.foreseen(connection, planned).restored == 25

    def test_no_row_of_the_table_is_updated_for_it(self, connection: Connection, plan: Plan, indexed: Any) -> None:
        run(connection, TOUCH.replace("BEFORE INSERT", "BEFORE UPDATE").format("RAISE 'no';"))
        assert self.foreseen(connection, plan).left == []

    def test_a_trigger_finds_its_names(self, connection: Connection, login: Login, plan: Plan, indexed: Any) -> None:
        run(connection, f"ALTER DATABASE {login.dbname} SET search_path = aedpics")
        run(connection, TOUCH.format("PERFORM FROM user_profiles; RETURN NEW;"))
        assert self.foreseen(connection, plan).left == []

    @pytest.mark.parametrize("ready", [True, False])
    def test_an_index_that_a_build_which_was_cut_off_has_left(
        self, connection: Connection, plan: Plan, indexed: Any, ready: bool
    ) -> None:
        """INVALID, it rejects rows as soon as it is ready, and is dropped like a whole one."""
        cut_off = "UPDATE pg_catalog.pg_index SET indisvalid = false, indisready = %s WHERE indexrelid = %s::regclass"
        run(connection, cut_off, ready, f"aedpics.{plan.rule_index.name}")
        checked = restore(connection, plan, run_id="run-1", check=True, possible=True, index_dropped_first=True)
        assert (checked.restored, checked.left) == (25, [])

    def test_who_refers_to_a_row_that_is_gone(self, connection: Connection, plan: Plan, example: Any) -> None:
        stays = set(sorted(example.surplus)[:3])
        new_inspector(connection, stays)
        clean_up(connection, plan)
        run(connection, "DELETE FROM aedpics.user_profiles WHERE full_name = 'Gone'")
        run(
            connection,
            f"CREATE UNIQUE INDEX {plan.rule_index.name} ON {TABLE} (equipment_serial) WHERE {plan.predicate}",
        )
        checked = self.foreseen(connection, plan)
        assert reasons(checked) == {("constraint", "inspection_sessions_inspector_id_fkey"): stays}

    def test_which_of_several_keys_rejects(self, connection: Connection, plan: Plan, example: Any) -> None:
        """PostgreSQL asks the foreign keys in the order of their creation; each by its columns in their order."""
        both, second, whole, *_ = sorted(example.surplus)
        run(
            connection,
            f"""CREATE TABLE aedpics.places (floor int, room int, UNIQUE (room, floor));
            CREATE TABLE aedpics.rooms (room int PRIMARY KEY);
            CREATE SCHEMA other; CREATE TABLE other.places (floor int, room int);
            INSERT INTO aedpics.places VALUES (1, 2), (3, 4); INSERT INTO aedpics.rooms VALUES (1), (2), (3);
            CREATE TABLE public.places (room int); CREATE UNIQUE INDEX {plan.rule_index.name} ON public.places (room);
            ALTER TABLE {TABLE} ADD COLUMN room int, ADD COLUMN floor int, ADD COLUMN twin uuid,
                ADD COLUMN a_number int GENERATED ALWAYS AS IDENTITY;
            UPDATE {TABLE} SET room = 2, floor = 1, twin = id WHERE id IN ('{both}', '{whole}');
            UPDATE {TABLE} SET room = 3 WHERE id = '{second}';
            ALTER TABLE {TABLE} ADD CONSTRAINT z_first FOREIGN KEY (floor, room)
                REFERENCES aedpics.places (floor, room);
            ALTER TABLE {TABLE} ADD CONSTRAINT a_second FOREIGN KEY (room) REFERENCES aedpics.rooms""",
        )
        clean_up(connection, plan)
        run(connection, f"ALTER TABLE {TABLE} ADD CONSTRAINT itself FOREIGN KEY (twin) REFERENCES {TABLE}")
        index = f"CREATE UNIQUE INDEX {plan.rule_index.name} ON {TABLE} (equipment_serial) WHERE {plan.predicate}"
        run(connection, f"{index}; DELETE FROM aedpics.rooms WHERE room = 3")
        checked = restore(connection, plan, run_id="run-1", check=True, possible=True, index_dropped_first=True)
        assert (checked.restored, reasons(checked)) == (24, {("constraint", "a_second"): {second}})
        run(connection, "DELETE FROM aedpics.places WHERE room = 2; DELETE FROM aedpics.rooms")
        checked = self.foreseen(connection, plan)
        assert reasons(checked) == {("constraint", "z_first"): {both, whole}, ("constraint", "a_second"): {second}}
        assert [left.count for left in checked.left] == [2, 1]
        assert {row for (row,) in checked.rows} == example.surplus - {both, whole, second}

    @pytest.mark.parametrize(
        ("trigger", "reason"),
        [
            ("NEW.updated_at := now(); NEW.notes := 'x'; RETURN NEW;", ("changed_value", "notes, updated_at")),
            ("RAISE 'no';", ("trigger", "aedpics.touch(), SQLSTATE P0001")),
            ("RETURN NULL;", ("swallowed", "")),
        ],
    )
    def test_a_trigger(
        self, connection: Connection, plan: Plan, indexed: Any, trigger: str, reason: tuple[str, str]
    ) -> None:
        run(connection, TOUCH.format(trigger))
        assert reasons(self.foreseen(connection, plan)) == {reason: set(indexed.surplus)}

    def test_a_taken_key_and_a_new_constraint(self, connection: Connection, plan: Plan, indexed: Any) -> None:
        taken, rejected = sorted(indexed.surplus)[:2]
        run(
            connection,
            f"INSERT INTO {TABLE} (id, equipment_serial, inspector_id, status) VALUES (%s, 'X', %s, 'completed')",
            *(taken, INSPECTOR),
        )
        run(connection, f"ALTER TABLE {TABLE} ADD CONSTRAINT new_one CHECK (id <> '{rejected}') NOT VALID")
        assert reasons(self.foreseen(connection, plan)) == {
            ("taken", "inspection_sessions_pkey"): {taken},
            ("constraint", "new_one"): {rejected},
        }


class TestEquality:
    """A row is judged by the equality of the key's own type and of the index, which no search_path of ours finds."""

    @pytest.fixture
    def kinds(self, connection: Connection, plan: Plan) -> Plan:
        make_citext(connection)
        run(
            connection,
            """CREATE TABLE aedpics.kinds (id public.citext PRIMARY KEY, "key" public.citext,
                   status aedpics.session_status);
               INSERT INTO aedpics.kinds VALUES ('a', 'k', 'active'), ('b', 'K', 'active'), ('c', 'k', 'active')""",
        )
        kinds = replace(plan, table="kinds", key=("key",), keep=(SortKey("id", "desc", "last"),), show=())
        clean_up(connection, kinds)
        assert run(connection, "SELECT id::text FROM aedpics.kinds") == [("c",)]
        return kinds

    def test_a_key_that_is_taken_in_other_letters(self, connection: Connection, kinds: Plan) -> None:
        run(connection, "INSERT INTO aedpics.kinds VALUES ('A', 'x', 'completed')")
        done = restore(connection, kinds, run_id="run-1", possible=True)
        assert reasons(done) == {("taken", "kinds_pkey"): {"a"}}
        assert run(connection, "SELECT id::text FROM aedpics.kinds ORDER BY 1") == [("A",), ("b",), ("c",)]

    def test_a_rule_that_ignores_the_case(self, connection: Connection, kinds: Plan) -> None:
        index = kinds.rule_index.name
        run(connection, f'CREATE UNIQUE INDEX {index} ON aedpics.kinds ("key") WHERE {kinds.predicate}')
        run(connection, "UPDATE aedpics.kinds SET \"key\" = 'free'")
        done = restore(connection, kinds, run_id="run-1", possible=True)
        assert (done.restored, reasons(done)) == (1, {("rule", index): {"a"}})


class TestSearchPath:
    @pytest.mark.versions
    @pytest.mark.parametrize("path", ["aedpics, public", "public", "pg_temp, aedpics"])
    @pytest.mark.parametrize("values", [{}, {"status": "cancelled"}], ids=["delete", "update"])
    def test_a_name_of_an_object_comes_back_whatever_the_services_path(
        self, connection: Connection, plan: Plan, login: Login, values: dict[str, str], path: str
    ) -> None:
        run(
            connection,
            """CREATE TYPE aedpics.named AS (source regclass, how text);
               CREATE TABLE aedpics.kinds (id bigint PRIMARY KEY, "key" text, status aedpics.session_status,
                   source regclass DEFAULT 'aedpics.aed_data', done regprocedure, many regtype[], one aedpics.named)""",
        )
        for number in range(4):
            run(
                connection,
                "INSERT INTO aedpics.kinds VALUES (%s, 'k', 'active', 'aedpics.aed_data', 'pg_catalog.now()',"
                " '{aedpics.session_status,integer}', ROW('aedpics.user_profiles', 'x'))",
                number,
            )
        run(connection, f"ALTER ROLE CURRENT_USER IN DATABASE {login.dbname} SET search_path = {path}")
        surplus = Surplus("update" if values else "delete", values, "stop")
        keep = (SortKey("id", "desc", "last"),)
        kinds = replace(plan, table="kinds", key=("key",), keep=keep, show=(), surplus=surplus)
        ours = run(connection, "SHOW search_path")
        before = content(connection, "aedpics.kinds")
        clean_up(connection, kinds)
        archived = run(connection, "SELECT DISTINCT row ->> 'source', row ->> 'many' FROM at_most_one.archived_row")
        assert archived == [("aedpics.aed_data", "{aedpics.session_status,integer}")]
        refuse = TOUCH.format("IF NEW.id = 0 THEN RAISE 'no'; END IF; RETURN NEW;").replace(
            "inspection_sessions", "kinds"
        )
        run(connection, refuse.replace("BEFORE INSERT", "BEFORE INSERT OR UPDATE"))
        assert restore(connection, kinds, run_id="run-1", possible=True).restored == 2, "row by row"
        run(connection, "DROP FUNCTION aedpics.touch CASCADE")
        assert restore(connection, kinds, run_id="run-1").restored == 1
        assert content(connection, "aedpics.kinds") == before
        assert run(connection, "SHOW search_path") == ours


def login_of(connection: Connection) -> Login:
    info = connection.info
    return Login(info.host, info.port, info.dbname, info.user, info.password)


def run_read(connection: Connection, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchall()
