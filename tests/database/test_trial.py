"""Before the first row leaves: what its leaving and returning set off, and whether it would come back as it was."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from at_most_one.duplicates import archive, effects, row_size, surplus_rows
from at_most_one.duplicates.restore import restore
from at_most_one.errors import OperatorError
from at_most_one.fence import write_fence
from at_most_one.findings import phrase_of
from at_most_one.indexes import definitions, verification
from at_most_one.plan import Plan, Surplus, parse
from at_most_one.postgres import own_schema
from at_most_one.postgres.catalog import READING
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.preflight import out_and_back
from at_most_one.preflight.out_and_back import try_out
from psycopg2 import sql

from tests.database.cleaning import INSPECTOR, TABLE, Waiting, remove, run
from tests.support.postgres import Server, superuser
from tests.support.service_database import SCHEMA


def content(connection: Connection) -> list[tuple[Any, ...]]:
    hashed = "pg_catalog.sha256(pg_catalog.record_send(t))"  # a row may be too large to be written as text
    return run(connection, f"SELECT t.id, {hashed} FROM {TABLE} AS t ORDER BY 1")


def allowing(plan: Plan, *triggers: str, writes: tuple[str, ...] = (), **values: Any) -> Plan:
    return replace(plan, surplus=Surplus("update" if values else "delete", values, "stop", triggers, writes))


def trigger(connection: Connection, when: str, body: str, table: str = TABLE, each: str = "ROW") -> None:
    run(connection, f"CREATE FUNCTION aedpics.meddle() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body} END$$")
    run(connection, f"CREATE TRIGGER meddle {when} ON {table} FOR EACH {each} EXECUTE FUNCTION aedpics.meddle()")


def refusal(connection: Connection, plan: Plan) -> OperatorError:
    before = content(connection)
    there = run(connection, "SELECT to_regnamespace('at_most_one')")
    with pytest.raises(OperatorError) as stop:
        try_out(connection, plan)
    assert content(connection) == before
    assert run(connection, "SELECT to_regnamespace('at_most_one')") == there
    return stop.value


@pytest.mark.versions
@pytest.mark.parametrize("values", [{}, {"status": "cancelled"}], ids=["delete", "update"])
def test_rows_leave_and_return_and_nothing_is_left_of_it(
    connection: Connection, plan: Plan, example: Any, values: dict[str, Any]
) -> None:
    before = content(connection)
    tried = try_out(connection, allowing(plan, **values))
    assert (tried.rows, tried.effects, tried.wrote, tried.warnings) == (5, [], [], [])
    assert content(connection) == before
    assert run(connection, "SELECT to_regnamespace('at_most_one')") == [(None,)]
    assert run(connection, "SELECT count(*) FROM pg_prepared_statements") == [(0,)]


def test_a_row_of_each_shape_is_tried(connection: Connection, plan: Plan, example: Any) -> None:
    """One row in fifty has what bars the way: another column filled, or another value of a flag."""
    run(connection, f"ALTER TABLE {TABLE} ADD COLUMN sealed boolean NOT NULL DEFAULT false, ADD COLUMN seal text")
    groups = surplus_rows.report(connection, plan).groups
    barring = "IF NEW.{} THEN RAISE EXCEPTION 'sealed'; END IF; RETURN NEW;"
    for column, condition, place in (("sealed = true", "sealed", -1), ("seal = 'wax'", "seal IS NOT NULL", 0)):
        rare = max(str(group.surplus[place]["id"]) for group in groups)
        trigger(connection, "BEFORE INSERT", barring.format(condition))
        allowed = allowing(plan, "meddle")
        assert try_out(connection, allowed).rows >= 5
        run(connection, f"UPDATE {TABLE} SET {column} WHERE id = %s", rare)
        assert "could not return" in refusal(connection, allowed).seen
        run(connection, f"DROP FUNCTION aedpics.meddle CASCADE; UPDATE {TABLE} SET sealed = false, seal = NULL")


def test_so_many_shapes_are_tried(
    connection: Connection, plan: Plan, example: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(connection, f"ALTER TABLE {TABLE} ADD COLUMN one boolean, ADD COLUMN other boolean")
    numbers = f"SELECT id AS numbered, row_number() OVER (ORDER BY id) AS n FROM {TABLE}"
    run(
        connection,
        f"UPDATE {TABLE} SET one = mod(n, 2) = 0, other = mod(n, 3) = 0 FROM ({numbers}) AS t WHERE id = numbered",
    )
    ((shapes,),) = run(
        connection,
        f"SELECT count(DISTINCT (status, one, other, started_at IS NULL)) FROM {TABLE} WHERE id = ANY (%s::uuid[])",
        sorted(example.surplus),
    )
    assert 5 < shapes < 20
    assert try_out(connection, plan).rows == shapes
    monkeypatch.setattr(out_and_back, "_SHAPES", 3)
    assert try_out(connection, plan).rows == 3


def test_a_transaction_of_before_is_ended_first(connection: Connection, plan: Plan, example: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(READING)
        cursor.execute(f"SELECT FROM {TABLE}")
    assert try_out(connection, plan).rows == 5


class TestEffects:
    @pytest.mark.parametrize(
        ("when", "values", "named"),
        [
            ("BEFORE DELETE", {}, True),
            ("AFTER INSERT OR UPDATE", {}, True),
            ("BEFORE UPDATE", {}, False),
            ("BEFORE UPDATE", {"status": "cancelled"}, True),
            ("BEFORE DELETE", {"status": "cancelled"}, False),
        ],
    )
    def test_a_trigger_that_would_fire_must_be_named_by_the_plan(
        self, connection: Connection, plan: Plan, example: Any, when: str, values: dict[str, Any], named: bool
    ) -> None:
        trigger(connection, when, "RETURN coalesce(NEW, OLD);")
        if not named:
            assert try_out(connection, allowing(plan, **values)).effects == []
            return
        stop = refusal(connection, allowing(plan, **values))
        assert f"sets off trigger meddle of {TABLE} ({when}" in stop.seen
        assert "aedpics.meddle" in stop.seen
        assert "triggers: [meddle]" in stop.next_step
        assert try_out(connection, allowing(plan, "meddle", **values)).rows == 5

    def test_a_disabled_trigger_and_a_table_without_surplus_rows_stop_nothing(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        trigger(connection, "BEFORE DELETE", "RETURN OLD;")
        run(connection, f"ALTER TABLE {TABLE} DISABLE TRIGGER meddle")
        assert try_out(connection, plan).effects == []
        run(connection, f"ALTER TABLE {TABLE} ENABLE TRIGGER meddle")
        run(connection, f"UPDATE {TABLE} SET status = 'completed'")
        tried = try_out(connection, plan)
        assert (len(tried.effects), tried.rows) == (1, 0)

    def test_an_event_trigger_on_what_is_built_is_named(self, connection: Connection, plan: Plan, example: Any) -> None:
        run(
            connection,
            "CREATE FUNCTION aedpics.watch() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN END$$;"
            "CREATE EVENT TRIGGER watch_all ON ddl_command_end EXECUTE FUNCTION aedpics.watch();"
            "CREATE EVENT TRIGGER views ON ddl_command_end WHEN TAG IN ('CREATE VIEW')"
            " EXECUTE FUNCTION aedpics.watch()",
        )
        assert (
            "event trigger watch_all of the database (ddl_command_end: aedpics.watch)"
            in (stop := refusal(connection, plan)).seen
        )
        assert "views" not in stop.seen

    @pytest.mark.versions
    def test_each_command_of_a_run_that_fires_one_is_known(
        self, login: Login, connection: Connection, plan: Plan, example: Any
    ) -> None:
        """From the first statement of the schema at_most_one to the last row that is back. This one writes before each
        command begins, under which PostgreSQL drops no index concurrently."""
        run(
            connection,
            "CREATE TABLE aedpics.seen (tag text);"
            "CREATE FUNCTION aedpics.note() RETURNS event_trigger LANGUAGE plpgsql AS"
            " $$BEGIN INSERT INTO aedpics.seen VALUES (tg_tag); END$$;"
            "CREATE EVENT TRIGGER note ON ddl_command_start EXECUTE FUNCTION aedpics.note()",
        )
        own_schema.ensure(connection)
        connection.commit()
        allowed = allowing(plan, "note", writes=("aedpics.seen",))
        assert try_out(connection, allowed).rows == 5
        found = surplus_rows.report(connection, allowed)
        write_fence.raise_fence(connection, allowed)
        remove(connection, allowed, found)
        with connect(login, lock_timeout_ms=0, autocommit=True) as alone:
            with alone.cursor() as cursor:
                cursor.execute(definitions.create_statement(plan.rule_index, plan.schema, concurrently=True))
            assert write_fence.lower_fence(connection, allowed).warnings == []
            there = verification.inspect(connection, plan)
            connection.rollback()
            assert there.existing == (plan.rule_index.name,)
            verification.drop(alone, plan, there)
            assert verification.inspect(connection, plan).existing == ()
            connection.rollback()
        assert restore(connection, allowed, run_id="run-1").restored == 25
        fired = {tag for (tag,) in run(connection, "SELECT DISTINCT tag FROM aedpics.seen")}
        assert {"CREATE INDEX", "COMMENT", "CREATE TABLE AS", "DROP INDEX"} <= fired <= set(effects.TAGS)

    def test_foreign_keys_that_act_are_listed_with_theirs_and_a_statement_trigger_of_one_is_named(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        run(
            connection,
            f"""CREATE TABLE aedpics.photos (id int PRIMARY KEY, session uuid CONSTRAINT photo_session
                    REFERENCES {TABLE} ON DELETE CASCADE);
                CREATE TABLE aedpics.tags (photo int CONSTRAINT tag_photo REFERENCES aedpics.photos
                    ON DELETE SET NULL)""",
        )
        assert try_out(connection, plan).foreign_keys == [
            "foreign key photo_session of aedpics.photos (ON DELETE: CASCADE)",
            "foreign key tag_photo of aedpics.tags (ON DELETE: SET NULL)",
        ]
        trigger(connection, "AFTER DELETE", "RETURN NULL;", "aedpics.photos", each="STATEMENT")
        assert "trigger meddle of aedpics.photos (AFTER DELETE FOR EACH STATEMENT" in refusal(connection, plan).seen

    def test_a_key_that_is_updated_and_followed_must_be_named(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        run(
            connection,
            f"""ALTER TABLE {TABLE} ADD COLUMN ticket int UNIQUE;
                CREATE TABLE aedpics.notes (ticket int CONSTRAINT note_ticket REFERENCES {TABLE} (ticket)
                    ON UPDATE SET NULL)""",
        )
        closing = allowing(plan, status="cancelled", ticket="1")
        assert "foreign key note_ticket of aedpics.notes (ON UPDATE: SET NULL)" in refusal(connection, closing).seen
        assert try_out(connection, allowing(plan, status="cancelled")).rows == 5


class TestTheWayBack:
    def test_a_stamping_trigger_bars_it_and_is_named_with_the_column(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        trigger(connection, "BEFORE INSERT OR UPDATE", "NEW.updated_at := clock_timestamp(); RETURN NEW;")
        stop = refusal(connection, allowing(plan, "meddle"))
        assert "could not return" in stop.seen
        assert "updated_at would not come back as archived" in stop.seen
        assert "trigger meddle of" in stop.seen
        assert "updated_at" in refusal(connection, allowing(plan, "meddle", status="cancelled")).seen

    def test_a_constraint_that_its_own_rows_break_bars_it(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        run(connection, f"ALTER TABLE {TABLE} ADD CONSTRAINT short_notes CHECK (length(notes) < 3) NOT VALID")
        assert "constraint short_notes rejects them" in refusal(connection, plan).seen

    def test_a_trigger_that_raises_an_error_is_named_with_what_it_says(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        trigger(connection, "BEFORE DELETE", "RAISE 'not these';")
        stop = refusal(connection, allowing(plan, "meddle"))
        assert "not these" in stop.seen
        assert stop.details["sqlstate"] == "P0001"

    def test_a_generated_column_of_the_time_of_writing_bars_it(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        run(
            connection,
            "CREATE FUNCTION aedpics.stamp(text) RETURNS text IMMUTABLE LANGUAGE sql"
            " AS 'SELECT clock_timestamp()::text';"
            f"ALTER TABLE {TABLE} ADD COLUMN written text GENERATED ALWAYS AS (aedpics.stamp(notes)) STORED",
        )
        assert "written would not come back as archived" in refusal(connection, plan).seen

    def test_a_soft_delete_is_refused_although_it_is_named(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        trigger(connection, "BEFORE DELETE", f"UPDATE {TABLE} SET status = 'cancelled' WHERE id = OLD.id; RETURN NULL;")
        assert "5 of them did not go: trigger meddle" in refusal(connection, allowing(plan, "meddle")).seen

    def test_values_that_a_trigger_turns_into_others_are_refused_although_it_is_named(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        trigger(connection, "BEFORE UPDATE", "NEW.status := 'completed'; RETURN NEW;")
        stop = refusal(connection, allowing(plan, "meddle", status="cancelled"))
        assert "5 of them got other values than the plan's" in stop.seen

    def test_what_is_written_besides_as_rows_return_must_be_named_too(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        run(connection, "CREATE TABLE aedpics.log (id uuid)")
        trigger(connection, "AFTER INSERT", "INSERT INTO aedpics.log VALUES (NEW.id); RETURN NULL;")
        assert "triggers write to aedpics.log" in refusal(connection, allowing(plan, "meddle")).seen

    def test_what_is_written_besides_must_be_named_and_stays(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        run(connection, "CREATE TABLE aedpics.log (id uuid)")
        trigger(connection, "AFTER DELETE", "INSERT INTO aedpics.log VALUES (OLD.id); RETURN NULL;")
        stop = refusal(connection, allowing(plan, "meddle"))
        assert "triggers write to aedpics.log" in stop.seen
        assert "writes: [aedpics.log]" in stop.next_step
        allowed = allowing(plan, "meddle", writes=("aedpics.log",))
        assert try_out(connection, allowed).wrote == ["aedpics.log"]
        assert run(connection, "SELECT count(*) FROM aedpics.log") == [(0,)]
        before = content(connection)
        assert remove(connection, allowed, surplus_rows.report(connection, allowed)).removed == 25
        assert restore(connection, allowed, run_id="run-1").restored == 25
        assert content(connection) == before

    def test_a_large_object_that_goes_with_its_row_is_refused_although_the_trigger_is_named(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        """As lo_manage does it: the row would come back byte for byte, with the number of an object that is gone."""
        run(connection, f"ALTER TABLE {TABLE} ADD COLUMN picture oid")
        run(connection, f"UPDATE {TABLE} SET picture = pg_catalog.lo_from_bytea(0, 'jpeg')")
        trigger(connection, "AFTER DELETE", "PERFORM pg_catalog.lo_unlink(OLD.picture); RETURN NULL;")
        allowed, seen = allowing(plan, "meddle"), "triggers write to pg_catalog.pg_largeobject"
        assert seen in refusal(connection, allowed).seen
        before = content(connection)
        with pytest.raises(OperatorError, match=seen):
            remove(connection, allowed, surplus_rows.report(connection, allowed))
        assert content(connection) == before
        pictures = f"SELECT count(*) FROM {TABLE} JOIN pg_catalog.pg_largeobject_metadata AS m ON m.oid = picture"
        assert run(connection, pictures) == [(len(before),)]

    def test_another_row_of_the_table_that_is_written_along_is_refused(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        trigger(
            connection,
            "AFTER DELETE",
            f"UPDATE {TABLE} SET notes = 'gone' WHERE equipment_serial = OLD.equipment_serial; RETURN NULL;",
        )
        assert "The removal of 5 rows changed" in refusal(connection, allowing(plan, "meddle")).seen


NAMES = ("p0", "k0", "s0", "place", "size", "key", "keeper", "row", "first", "item", "done", "reason", "name", "locked")


@pytest.mark.parametrize("values", [{}, {"status": "cancelled"}], ids=["delete", "update"])
def test_columns_may_have_the_names_that_our_statements_use(
    connection: Connection, plan_data: dict[str, Any], example: Any, values: dict[str, Any]
) -> None:
    """The plan's predicate names them without the table."""
    data = copy.deepcopy(plan_data)
    data["predicate"] += "".join(f' AND "{name}" = 1' for name in NAMES)
    data["indexes"][0]["predicate"] = data["predicate"]
    added = ", ".join(f'ADD COLUMN "{name}" integer DEFAULT 1' for name in NAMES)
    run(connection, f"ALTER TABLE {TABLE} {added}")
    plan = allowing(parse(data), **values)
    before = content(connection)
    assert try_out(connection, plan).rows == 5
    found = surplus_rows.report(connection, plan)
    write_fence.raise_fence(connection, plan)
    assert remove(connection, plan, found).removed == 25
    write_fence.lower_fence(connection, plan)
    assert restore(connection, plan, run_id="run-1").restored == 25
    assert content(connection) == before


def test_a_primary_key_may_include_other_columns(connection: Connection, plan: Plan, example: Any) -> None:
    run(connection, f"ALTER TABLE {TABLE} DROP CONSTRAINT inspection_sessions_pkey")
    run(connection, f"ALTER TABLE {TABLE} ADD PRIMARY KEY (id) INCLUDE (status, notes)")
    before = content(connection)
    assert try_out(connection, plan).rows == 5
    assert remove(connection, plan, surplus_rows.report(connection, plan)).removed == 25
    assert restore(connection, plan, run_id="run-1").restored == 25
    assert content(connection) == before


class TestLargeRows:
    """A row enters the archive as at most 256 MB of text. The limit is a parameter here, and a few kilobytes."""

    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(row_size, "LARGEST", 20_000)
        monkeypatch.setattr(row_size, "BATCH_BYTES", 20_000)

    def fill(self, connection: Connection, kind: str, value: str, condition: str) -> None:
        run(connection, "CREATE DOMAIN aedpics.picture AS bytea CHECK (length(VALUE) > 0)")
        run(connection, f"ALTER TABLE {TABLE} ADD COLUMN payload {kind}")
        run(connection, f"ALTER TABLE {TABLE} ALTER COLUMN payload SET STORAGE EXTERNAL")
        run(connection, f"UPDATE {TABLE} SET payload = {value} WHERE {condition}")

    @pytest.mark.versions
    @pytest.mark.parametrize(
        ("kind", "value", "fits"),
        [
            ("text", "repeat('x', 19000)", True),  # tried as it is, because it is near the limit
            ("text", "repeat('x', 20001)", False),
            ("varchar(40000)", "repeat('x', 20001)", False),
            ("bytea", "decode(repeat('ab', 9000), 'hex')", True),
            ("bytea", "decode(repeat('ab', 10000), 'hex')", False),
            ("aedpics.picture", "decode(repeat('ab', 10000), 'hex')", False),
            ("jsonb", "to_jsonb(repeat('x', 9000) || 'y')", True),
            ("jsonb", "to_jsonb(repeat('x', 20001))", False),
            ("int[]", "array_fill(1234567, ARRAY[4000])", False),
        ],
    )
    def test_a_row_that_is_too_large_stops_it_and_no_other_does(
        self, connection: Connection, plan: Plan, example: Any, kind: str, value: str, fits: bool
    ) -> None:
        """The largest surplus row is one, and a row that stays may be as large as it likes."""
        found = surplus_rows.report(connection, plan)
        (last,) = found.rows[-1]
        self.fill(connection, kind, value, f"id = '{last}'")
        run(connection, f"UPDATE {TABLE} SET notes = repeat('x', 30000) WHERE status = 'completed'")
        if fits:
            assert try_out(connection, plan).rows >= 5
            return
        stop = refusal(connection, plan)
        assert f"1 of the surplus rows of {TABLE} are too large for the archive" in stop.seen
        assert "most of it in payload" in stop.seen
        assert stop.details["rows"] == [[last]]

    def test_many_are_counted_and_some_are_named(self, connection: Connection, plan: Plan, example: Any) -> None:
        self.fill(connection, "text", "repeat('x', 20001)", "status <> 'completed'")
        stop = refusal(connection, plan)
        assert stop.seen.startswith("25 of the surplus rows")
        assert len(stop.details["rows"]) == 20
        assert "xxx" not in str(stop)

    def test_a_row_that_only_its_image_shows_to_be_too_large(
        self, connection: Connection, plan: Plan, example: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What has to be escaped in the text of jsonb takes up to six bytes for one."""
        (last,) = surplus_rows.report(connection, plan).rows[-1]
        self.fill(connection, "text", "repeat('x', 15000)", f"id = '{last}'")
        monkeypatch.setattr(archive, "sha256", lambda row: sql.SQL("repeat(({})::text, 100000)").format(row))
        stop = refusal(connection, plan)
        assert (stop.seen[:1], stop.details["rows"]) == ("1", [[last]])

    def test_batches_of_large_rows_are_short(self, connection: Connection, plan: Plan, example: Any) -> None:
        self.fill(connection, "text", "repeat('x', 9000)", "status <> 'completed'")
        before = content(connection)
        done = remove(connection, plan, surplus_rows.report(connection, plan))
        assert (done.removed, done.batches) == (25, 13)
        assert restore(connection, plan, run_id="run-1").restored == 25
        assert content(connection) == before


@pytest.mark.thorough  # costs the server two gigabytes of memory
def test_large_rows_for_real(connection: Connection, plan: Plan, example: Any) -> None:
    first, second, third = (row for (row,) in surplus_rows.report(connection, plan).rows[:3])
    run(connection, f"ALTER TABLE {TABLE} ADD COLUMN photo bytea")
    run(connection, f"UPDATE {TABLE} SET notes = repeat('x', 200000000) WHERE id = %s", first)
    before = content(connection)
    assert try_out(connection, plan).rows >= 5
    done = remove(connection, plan, surplus_rows.report(connection, plan))
    assert done.removed == 25
    assert restore(connection, plan, run_id="run-1").restored == 25
    assert content(connection) == before

    run(connection, f"UPDATE {TABLE} SET notes = repeat(chr(1), 200000000) WHERE id = %s", first)
    assert refusal(connection, plan).details["rows"] == [[first]]
    run(connection, f"UPDATE {TABLE} SET photo = convert_to(repeat('x', 300000000), 'UTF8') WHERE id = %s", second)
    run(connection, f"UPDATE {TABLE} SET photo = convert_to(repeat('x', 134300000), 'UTF8') WHERE id = %s", third)
    stop = refusal(connection, plan)
    assert sorted(stop.details["rows"]) == sorted([[first], [second], [third]])
    assert "the largest takes 600 MB, most of it in photo" in stop.seen


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "EUC_KR"])
def test_rows_of_a_database_of_another_encoding_leave_and_return(server: Server, plan: Plan, encoding: str) -> None:
    name = f"encoded_{encoding.lower()}"
    server.run(f"CREATE DATABASE {name} ENCODING {encoding} LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    letters = {"SQL_ASCII": "점검", "LATIN1": "café", "EUC_KR": "점검"}[encoding]
    try:
        with connect(replace(server.login, dbname=name)) as connection:
            run(connection, SCHEMA.read_text())
            run(connection, f"INSERT INTO aedpics.user_profiles VALUES ('{INSPECTOR}', 'a@b.c', %s)", letters)
            run(
                connection,
                f"INSERT INTO {TABLE} (equipment_serial, inspector_id, notes)"
                f" SELECT 'AED-1', '{INSPECTOR}', %s FROM generate_series(1, 20)",
                letters,
            )
            before = content(connection)
            assert try_out(connection, plan).rows == 5
            if encoding == "SQL_ASCII":
                last = surplus_rows.report(connection, plan).rows[-1][0]
                with contextlib.closing(superuser(replace(server.login, dbname=name))) as other:  # of any encoding
                    other.cursor().execute(f"UPDATE {TABLE} SET notes = E'caf\\xe9' WHERE id = %s", (last,))
                with pytest.raises(OperatorError, match="SQL_ASCII, and a row of"):
                    try_out(connection, plan)
                run(connection, f"UPDATE {TABLE} SET notes = %s WHERE id = %s", letters, last)
            assert remove(connection, plan, surplus_rows.report(connection, plan)).removed == 19
            assert restore(connection, plan, run_id="run-1").restored == 19
            assert content(connection) == before
    finally:
        server.drop(name)


class TestSettings:
    """Rows are archived as text: what a trigger makes of the session's settings shapes it."""

    SETS = "PERFORM set_config('timezone', 'Asia/Seoul', {local}), set_config('datestyle', 'German', {local});"

    @pytest.mark.parametrize("local", ["true", "false"])
    @pytest.mark.parametrize(
        ("when", "values"),
        [
            ("BEFORE DELETE", {}),
            ("AFTER DELETE", {}),
            ("BEFORE UPDATE", {"status": "cancelled"}),
        ],
    )
    def test_a_trigger_that_changes_them_is_refused_although_it_is_named(
        self, connection: Connection, plan: Plan, example: Any, when: str, values: dict[str, Any], local: str
    ) -> None:
        trigger(connection, when, f"{self.SETS.format(local=local)} RETURN coalesce(NEW, OLD);")
        stop = refusal(connection, allowing(plan, "meddle", **values))
        assert "changes settings of the session: datestyle, timezone. Found on the table: trigger meddle" in stop.seen
        assert run(connection, "SELECT current_setting('timezone')") == [("UTC",)]

    @pytest.mark.parametrize(
        ("name", "value"),
        [("session_replication_role", "replica"), ("track_counts", "off")],
        ids=["acts", "is counted"],
    )
    def test_a_trigger_after_which_nothing_else_acts_or_is_counted_is_refused_although_it_is_named(
        self, connection: Connection, plan: Plan, example: Any, name: str, value: str
    ) -> None:
        trigger(connection, "BEFORE DELETE", f"PERFORM set_config('{name}', '{value}', true); RETURN OLD;")
        stop = refusal(connection, allowing(plan, "meddle"))
        assert f"changes settings of the session: {name}. Found" in stop.seen

    def test_as_rows_return_it_bars_the_way(self, connection: Connection, plan: Plan, example: Any) -> None:
        trigger(connection, "BEFORE INSERT", f"{self.SETS.format(local='true')} RETURN NEW;")
        stop = refusal(connection, allowing(plan, "meddle"))
        assert "started_at, updated_at would not come back as archived" in stop.seen

    def test_for_a_row_that_was_not_tried_its_batch_is_taken_back(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        found = surplus_rows.report(connection, plan)
        condition = f"IF OLD.id = '{found.rows[-1][0]}' THEN {self.SETS.format(local='false')} END IF;"
        trigger(connection, "BEFORE DELETE", f"{condition} RETURN OLD;")
        allowed, before = allowing(plan, "meddle"), content(connection)
        assert try_out(connection, allowed).rows == 5
        with pytest.raises(OperatorError, match="changes settings of the session"):
            remove(connection, allowed, found)
        assert content(connection) == before
        assert run(connection, "SELECT count(*) FROM at_most_one.archived_row") == [(0,)]

    def test_what_a_function_sets_for_itself_ends_with_it(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        trigger(connection, "BEFORE DELETE", f"{self.SETS.format(local='true')} RETURN OLD;")
        run(connection, "ALTER FUNCTION aedpics.meddle() SET timezone = 'Asia/Seoul' SET datestyle = 'German'")
        allowed, before = allowing(plan, "meddle"), content(connection)
        assert try_out(connection, allowed).rows == 5
        assert remove(connection, allowed, surplus_rows.report(connection, allowed)).removed == 25
        assert restore(connection, allowed, run_id="run-1").restored == 25
        assert content(connection) == before


class TestWhatCannotBeTried:
    def test_rows_that_somebody_holds_are_a_warning(
        self, login: Login, connection: Connection, plan: Plan, example: Any
    ) -> None:
        waiting = Waiting(login)
        waiting.change(f"UPDATE {TABLE} SET notes = notes")
        try:
            tried = try_out(connection, plan)
        finally:
            waiting.close()
        assert (tried.rows, len(tried.warnings)) == (0, 1)
        assert "another session holds rows" in tried.warnings[0]

    def test_rows_that_others_point_to_are_left_to_the_dry_run(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        run(connection, f"CREATE TABLE aedpics.photos (session uuid REFERENCES {TABLE})")
        run(connection, f"INSERT INTO aedpics.photos SELECT id FROM {TABLE}")
        assert try_out(connection, plan).rows == 0
        assert try_out(connection, allowing(plan, status="cancelled")).rows == 5


def test_the_preflight_does_it_with_what_it_found(
    connection: Connection,
    example: Any,
    login_args: dict[str, Any],
    plan_data: dict[str, Any],
    run_module: Callable[..., dict[str, Any]],
) -> None:
    trigger(connection, "BEFORE DELETE", "RETURN OLD;")
    failed = run_module("database_preflight", {"login": login_args, "plan": plan_data})
    assert "sets off trigger meddle" in failed["seen"]
    allowed = copy.deepcopy(plan_data)
    allowed["surplus"]["triggers"] = ["meddle"]
    answer = run_module("database_preflight", {"login": login_args, "plan": allowed})
    facts = answer["facts"]["trial"]
    assert (facts["rows"], facts["effects"]) == (
        5, [f"trigger meddle of {TABLE} (BEFORE DELETE FOR EACH ROW: aedpics.meddle)"]
    )  # fmt: skip
    assert [phrase_of(answer["phrases"]["effects"])] == facts["effects"]
