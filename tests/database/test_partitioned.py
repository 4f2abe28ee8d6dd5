"""A rule over a partitioned table: fence, clean-up, builds, verdicts and ways back over all of its partitions."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from typing import Any

import psycopg2
import psycopg2.errors
import pytest
from at_most_one.duplicates import effects, row_size, surplus_rows
from at_most_one.duplicates.batches import Pace
from at_most_one.duplicates.references import count_references
from at_most_one.duplicates.restore import restore
from at_most_one.errors import OperatorError
from at_most_one.fence import write_fence
from at_most_one.indexes import build_concurrently, definitions, on_partitions, usage_stats, verification
from at_most_one.indexes.build_concurrently import Limits
from at_most_one.migration import build as options_of
from at_most_one.migration import by_sql, race
from at_most_one.plan import Plan, Surplus, parse
from at_most_one.postgres import partitions
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.preflight import server_checks
from at_most_one.preflight.out_and_back import try_out
from psycopg2 import sql

from tests.database.cleaning import remove, run

pytestmark = pytest.mark.versions

VISITS = "aedpics.visits"
# Two levels: a partition of its own, and one that has partitions itself, in another schema.
TABLES = f"""
CREATE SCHEMA south;
CREATE TABLE {VISITS} (id int, region text, serial text, open boolean DEFAULT true, note text,
    PRIMARY KEY (region, serial, id)) PARTITION BY LIST (region);
CREATE TABLE aedpics.visits_seoul PARTITION OF {VISITS} FOR VALUES IN ('seoul');
CREATE TABLE south.visits PARTITION OF {VISITS} FOR VALUES IN ('busan', 'jeju') PARTITION BY HASH (serial);
CREATE TABLE south.visits_0 PARTITION OF south.visits FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE south.visits_1 PARTITION OF south.visits FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO {VISITS} (id, region, serial, open)
SELECT n, region, 'AED-' || n %% 5, n %% 4 <> 0
FROM generate_series(1, 20) AS n, unnest('{{seoul,busan,jeju}}'::text[]) AS region;
ANALYZE {VISITS}
"""
INSERT = f"INSERT INTO {VISITS} (id, region, serial) VALUES (%s, %s, %s)"
LEAVES = ("aedpics.visits_seoul", "south.visits_0", "south.visits_1")
LIMITS = server_checks.Limits(transaction_age_s=3600, replication_lag_s=30)
SURPLUS = 30  # of 45 open ones, three regions and five serials


@pytest.fixture
def parted(connection: Connection, plan_data: dict[str, Any]) -> Plan:
    """The table, and the rule that of a region and a serial one visit is open."""
    run(connection, TABLES)
    index = {"name": "one_open_visit", "unique": True, "columns": ["region", "serial"], "predicate": "open"}
    monitoring = {"name": "one_note", "columns": ["note"]}
    given = {"id": "visits", "table": "visits", "primary_key": ["region", "serial", "id"], "key": ["region", "serial"],
             "predicate": "open", "show": [], "keep": [{"column": "id", "direction": "desc", "nulls": "last"}],
             "expected": {"groups": 15, "rows": SURPLUS}, "ceiling": SURPLUS, "indexes": [index, monitoring],
             "family": {"pattern": "^one_", "neighbours": []}}  # fmt: skip
    return parse({**plan_data, **given})


def content(connection: Connection) -> list[tuple[Any, ...]]:
    return run(connection, f"SELECT t::text FROM {VISITS} AS t ORDER BY 1")


def options(strategy: str) -> options_of.Options:
    return options_of.Options(
        strategy,
        max_write_pause_ms=60_000,
        attempts=2,
        deadline_s=30,
        prisma_timeout_s=0,
        lock_timeout_ms=200,
        statement_timeout_ms=10_000,
    )


def build(login: Login, plan: Plan) -> build_concurrently.Built:
    with connect(login) as connection:
        inspection = verification.inspect(connection, plan)
    return build_concurrently.build(login, plan, inspection, Limits(30))


def verdicts(connection: Connection, plan: Plan) -> list[str]:
    found = [verdict.verdict for verdict in verification.inspect(connection, plan).verdicts]
    connection.rollback()
    return found


def indexes(connection: Connection) -> set[str]:
    """All indexes of the table and its partitions but for the primary key's."""
    found = run(
        connection,
        "SELECT c.relname FROM pg_index AS x JOIN pg_class AS c ON c.oid = x.indexrelid WHERE NOT x.indisprimary AND"
        f" x.indrelid IN (SELECT relid FROM pg_partition_tree('{VISITS}'))",
    )
    return {name for (name,) in found}


@pytest.mark.parametrize("strategy", ["locked", "concurrent"])
@pytest.mark.parametrize("pause_ms", [60_000, -1], ids=["fence under a lock", "fence built concurrently"])
@pytest.mark.parametrize("action", ["delete", "update"])
def test_there_and_back(
    login: Login, connection: Connection, parted: Plan, strategy: str, pause_ms: int, action: str
) -> None:
    if action == "update":
        parted = replace(parted, surplus=Surplus("update", {"open": "false"}, "stop"))
    before = content(connection)
    facts = server_checks.read(connection, parted, LIMITS)
    assert (facts["tables"]["visits"]["rows"], facts["tables"]["visits"]["bytes"] > 0) == (60, True)
    assert try_out(connection, parted).rows == 5
    assert content(connection) == before

    raised = write_fence.raise_fence(connection, parted, max_write_pause_ms=pause_ms)
    assert (raised.state, raised.exempt, raised.concurrent) == ("raised", SURPLUS, pause_ms < 0)
    for region in ("seoul", "busan", "jeju"):
        with pytest.raises(psycopg2.errors.UniqueViolation):
            run(connection, INSERT, 99, region, "AED-1")
    run(connection, f"UPDATE {VISITS} SET note = 'seen'")
    before = content(connection)

    done = remove(connection, parted, surplus_rows.report(connection, parted))
    assert (done.removed, done.archived, done.rows_left) == (SURPLUS, SURPLUS, 0)
    write_fence.tighten(connection, parted)
    intent = by_sql.decide(login, parted, "", options(strategy))
    assert (intent.strategy, len(intent.statements)) == (strategy, 3 if strategy == "locked" else 18)
    outcome = by_sql.carry_out(login, parted, options(strategy), intent)
    verification.require_exact(outcome.after, parted)
    (drop,) = write_fence.lower_fence(connection, parted).statements
    assert drop.startswith('DROP INDEX IF EXISTS "aedpics"."at_most_one_fence_')
    assert write_fence.query(connection, parted)[0].state == "lowered"
    connection.rollback()
    assert by_sql.decide(login, parted, "", options(strategy)).strategy == "none"
    with pytest.raises(psycopg2.errors.UniqueViolation, match=r"one_open_visit|visits"):
        run(connection, INSERT, 99, "jeju", "AED-1")

    checked = restore(connection, parted, run_id="run-1", check=True, possible=True, index_dropped_first=True)
    assert (checked.restored, checked.left) == (SURPLUS, [])
    with connect(login, lock_timeout_ms=0, autocommit=True) as dropping:
        dropped = verification.drop(dropping, parted, outcome.after)
    assert dropped == [f'DROP INDEX IF EXISTS "aedpics"."{name}"' for name in ("one_open_visit", "one_note")]
    assert indexes(connection) == set()
    assert restore(connection, parted, run_id="run-1").restored == SURPLUS
    assert content(connection) == before


class TestAConcurrentBuild:
    def test_a_duplicate_in_a_partition_leaves_nothing(
        self, login: Login, connection: Connection, parted: Plan
    ) -> None:
        with pytest.raises(OperatorError, match=r"a duplicate got in its way\. Nothing of it is left") as stop:
            build(login, parted)
        assert stop.value.details["leftover"] is None
        assert indexes(connection) == set()

    def test_what_could_not_be_dropped_goes_plainly_by_hand(
        self, login: Login, connection: Connection, parted: Plan, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def in_the_way(*_: object) -> None:
            raise psycopg2.errors.LockNotAvailable

        monkeypatch.setattr(build_concurrently, "drop_concurrently", in_the_way)
        with pytest.raises(OperatorError, match="a duplicate got in its way") as stop:
            build(login, parted)
        assert 'by hand: DROP INDEX "aedpics"."one_open_visit";' in stop.value.details["leftover"]

    def test_one_that_was_cut_short_is_built_anew(self, login: Login, connection: Connection, parted: Plan) -> None:
        """As a killed controller leaves it: the table's index without its partitions', one of them not attached."""
        run(connection, f"UPDATE {VISITS} SET open = false")
        ((oid,),) = run(connection, "SELECT 'south.visits_0'::regclass::oid::int")
        run(connection, f"CREATE UNIQUE INDEX one_open_visit ON ONLY {VISITS} (region, serial) WHERE open")
        run(connection, f"CREATE UNIQUE INDEX one_open_visit_p{oid} ON south.visits_0 (region, serial) WHERE open")
        inspection = verification.inspect(connection, parted)
        connection.rollback()
        assert verdicts(connection, parted) == ["invalid", "missing"]
        with pytest.raises(OperatorError) as stop:
            verification.require_exact(inspection, parted)
        (by_hand,) = re.findall(r"DROP INDEX .*?;", stop.value.next_step)
        assert by_hand == 'DROP INDEX "aedpics"."one_open_visit";', "PostgreSQL drops none concurrently"
        done = build(login, parted)
        assert done.repaired == ("one_open_visit",)
        assert verdicts(connection, parted) == ["present", "present"]
        assert len(indexes(connection)) == 10

    def test_nobody_waits_for_it_and_it_waits_for_a_writer(
        self, login: Login, connection: Connection, parted: Plan
    ) -> None:
        run(connection, f"UPDATE {VISITS} SET open = false")
        with connect(login) as writer, connect(login) as other, writer.cursor() as cursor:
            cursor.execute(INSERT, (99, "seoul", "AED-1"))
            building = threading.Thread(target=build, args=(login, parted))
            building.start()
            for number in range(20):
                run(other, "SET lock_timeout = '2s'")
                run(other, INSERT, 100 + number, "busan", f"new {number}")
                run(other, f"SELECT count(*) FROM {VISITS}")
            assert building.is_alive()
            writer.commit()
            building.join(30)
        assert verdicts(connection, parted) == ["present", "present"]

    def test_a_partition_that_is_added_meanwhile_has_it(
        self, login: Login, connection: Connection, parted: Plan
    ) -> None:
        run(connection, f"UPDATE {VISITS} SET open = false")
        index = parted.indexes[0]
        run(connection, definitions.create_statement(index, "aedpics", only=True).as_string(connection))
        run(connection, f"CREATE TABLE aedpics.visits_daegu PARTITION OF {VISITS} FOR VALUES IN ('daegu')")
        build(login, parted)
        assert verdicts(connection, parted) == ["present", "present"]
        run(connection, INSERT, 1, "daegu", "AED-1")
        with pytest.raises(psycopg2.errors.UniqueViolation):
            run(connection, INSERT, 2, "daegu", "AED-1")

    def test_a_name_of_63_bytes_and_one_in_korean(self, login: Login, connection: Connection, parted: Plan) -> None:
        run(connection, f"UPDATE {VISITS} SET open = false")
        named = [replace(index, name=name) for index, name in zip(parted.indexes, ("점검" * 10, "x" * 63), strict=True)]
        parted = replace(parted, indexes=tuple(named))
        build(login, parted)
        assert verdicts(connection, parted) == ["present", "present"]

    def test_two_long_names_that_begin_alike(self, login: Login, connection: Connection, parted: Plan) -> None:
        run(connection, f"UPDATE {VISITS} SET open = false")
        named = [replace(index, name="x" * 62 + end) for index, end in zip(parted.indexes, "ab", strict=True)]
        parted = replace(parted, indexes=tuple(named))
        build(login, parted)
        assert verdicts(connection, parted) == ["present", "present"]


class TestAConcurrentFence:
    def test_a_duplicate_that_is_committed_meanwhile(
        self, login: Login, connection: Connection, parted: Plan, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between the list and the build: that build fails, and the next one has it on its list."""
        from at_most_one.fence import exempting_index

        listed, times = exempting_index.surplus, []

        def surplus(cursor: Any, plan: Plan) -> Any:
            rows = listed(cursor, plan)
            times.append(rows)
            if len(times) == 2:  # the first is the forecast's
                with connect(login) as other:
                    run(other, INSERT, 500, "busan", "AED-1")
            return rows

        monkeypatch.setattr(exempting_index, "surplus", surplus)
        raised = write_fence.raise_fence(connection, parted, max_write_pause_ms=-1)
        assert (raised.state, raised.exempt, raised.warnings) == ("raised", SURPLUS + 1, [])
        assert len(indexes(connection)) == 5  # of the build that failed nothing is left
        write_fence.lower_fence(connection, parted)
        assert indexes(connection) == set()


@pytest.mark.parametrize(
    ("definition", "why"),
    [
        ("{columns}, PRIMARY KEY (id, serial)) PARTITION BY LIST (serial)", ""),
        ("{columns}, PRIMARY KEY (id, region)) PARTITION BY RANGE (id)",
         "visits is partitioned by id, and rows of different partitions are compared by no index"),
        ("{columns}) PARTITION BY LIST (lower(serial))",
         "visits is partitioned by an expression, which no unique index can cover"),
        ("{columns}) PARTITION BY LIST (serial);"
         "CREATE TABLE aedpics.lower PARTITION OF aedpics.visits DEFAULT PARTITION BY LIST (id)",
         "lower is partitioned by id"),
        ("{columns}) PARTITION BY LIST (serial);"
         "CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing;"
         "CREATE FOREIGN TABLE aedpics.elsewhere PARTITION OF aedpics.visits DEFAULT SERVER nowhere",
         "its partition elsewhere is a foreign table, which can have no index"),
    ],
    ids=["fits", "another column", "an expression", "a lower level", "a foreign table"],
)  # fmt: skip
def test_what_no_index_can_hold_over_is_known_before_anything(
    connection: Connection, parted: Plan, definition: str, why: str
) -> None:
    columns = f"CREATE TABLE {VISITS} (id int, region text, serial text, open boolean"
    run(connection, f"DROP TABLE {VISITS}; {definition.format(columns=columns)}")
    key = ("serial",)
    index = replace(parted.indexes[0], keys=parted.indexes[0].keys[1:])
    plan = replace(parted, key=key, primary_key=("id", "serial"), indexes=(index,))
    assert str(partitions.obstacle(connection, "aedpics", "visits", key) or "").startswith(why)
    if not why:
        server_checks.read(connection, plan, LIMITS)
        connection.rollback()
        surplus_rows.report(connection, plan)
        return
    with pytest.raises(OperatorError, match="No unique index one_open_visit can hold over all of") as stop:
        server_checks.read(connection, plan, LIMITS)
    assert why in stop.value.seen
    connection.rollback()
    with pytest.raises(OperatorError) as stop:
        surplus_rows.report(connection, plan)
    assert why in stop.value.seen


def test_triggers_of_a_partition_act_too_and_those_of_its_table_are_named_once(
    connection: Connection, parted: Plan
) -> None:
    run(connection, "CREATE FUNCTION aedpics.meddle() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN OLD; END$$")
    for name, table, each in (
        ("whole", VISITS, "ROW"),
        ("part", "south.visits_1", "ROW"),
        ("none", "south.visits_0", "STATEMENT"),
    ):
        run(
            connection,
            f"CREATE TRIGGER {name} BEFORE DELETE ON {table} FOR EACH {each} EXECUTE FUNCTION aedpics.meddle()",
        )
    with connection, connection.cursor() as cursor:
        named = [str(one) for one in effects.of_plan(cursor, parted)[0]]
    assert named == [
        "trigger part of south.visits_1 (BEFORE DELETE FOR EACH ROW: aedpics.meddle)",
        f"trigger whole of {VISITS} (BEFORE DELETE FOR EACH ROW: aedpics.meddle)",
    ]
    with pytest.raises(OperatorError, match=r"sets off trigger part of south\.visits_1"):
        try_out(connection, parted)


def test_a_trigger_of_a_partition_that_keeps_its_rows_stops_the_batch(connection: Connection, parted: Plan) -> None:
    run(connection, "CREATE FUNCTION aedpics.keep() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$")
    run(connection, "CREATE TRIGGER part BEFORE DELETE ON south.visits_1 FOR EACH ROW EXECUTE FUNCTION aedpics.keep()")
    before = content(connection)
    with pytest.raises(OperatorError, match=r"of them did not go: trigger part of south\.visits_1"):
        remove(connection, parted, surplus_rows.report(connection, parted))
    assert content(connection) == before


def test_what_is_written_to_a_partition_is_written_to_its_table(connection: Connection, parted: Plan) -> None:
    """By a trigger, to the partitioned log that the plan allows by its own name."""
    run(
        connection,
        f"""CREATE TABLE aedpics.log (at int) PARTITION BY LIST (at);
        CREATE TABLE aedpics.log_1 PARTITION OF aedpics.log DEFAULT;
        CREATE FUNCTION aedpics.note() RETURNS trigger LANGUAGE plpgsql
            AS $$BEGIN INSERT INTO aedpics.log VALUES (OLD.id); RETURN OLD; END$$;
        CREATE TRIGGER note BEFORE DELETE ON {VISITS} FOR EACH ROW EXECUTE FUNCTION aedpics.note()""",
    )
    allowed = replace(parted, surplus=Surplus("delete", {}, "stop", triggers=("note",)))
    with pytest.raises(OperatorError, match=r"triggers write to aedpics\.log\."):
        try_out(connection, allowed)
    allowed = replace(allowed, surplus=replace(allowed.surplus, writes=("aedpics.log",)))
    assert try_out(connection, allowed).wrote == ["aedpics.log"]
    assert remove(connection, allowed, surplus_rows.report(connection, allowed)).removed == SURPLUS
    assert restore(connection, allowed, run_id="run-1").restored == SURPLUS


def test_who_points_to_one_partition_points_to_the_table(connection: Connection, parted: Plan) -> None:
    run(
        connection,
        """CREATE TABLE aedpics.photos (region text, serial text, visit int, CONSTRAINT of_visit
            FOREIGN KEY (region, serial, visit) REFERENCES aedpics.visits_seoul ON DELETE CASCADE);
        INSERT INTO aedpics.photos VALUES ('seoul', 'AED-1', 1)""",
    )
    with connection, connection.cursor() as cursor:
        rows = sql.SQL("SELECT 'seoul' AS p0, 'AED-1' AS p1, 1 AS p2")
        (found,) = count_references(cursor, parted, rows, {})
        assert [str(one) for one in effects.of_plan(cursor, parted)[1]] == [
            "foreign key of_visit of aedpics.photos (ON DELETE: CASCADE)"
        ]
    assert (found.constraint, found.table, found.rows) == ("of_visit", "aedpics.photos", 1)
    with pytest.raises(OperatorError, match=r"1 of aedpics\.photos by of_visit"):
        remove(connection, parted, surplus_rows.report(connection, parted))


def test_each_partition_that_is_attached_while_the_index_is_built_has_it(
    login: Login, connection: Connection, parted: Plan
) -> None:
    """One right before the index of the whole is there, which gives it none; and one after, to which it does."""
    run(connection, f"UPDATE {VISITS} SET open = false")
    run(connection, f"CREATE TABLE aedpics.visits_daegu (LIKE {VISITS} INCLUDING ALL)")
    with connect(login, lock_timeout_ms=0, autocommit=True) as building, building.cursor() as cursor:
        steps = iter(on_partitions.steps(building, parted.rule_index, parted.schema))
        whole = next(steps)
        run(connection, f"ALTER TABLE {VISITS} ATTACH PARTITION aedpics.visits_daegu FOR VALUES IN ('daegu')")
        whole.run(cursor)
        run(connection, f"CREATE TABLE aedpics.visits_gwangju PARTITION OF {VISITS} FOR VALUES IN ('gwangju')")
        built = ""
        for step in steps:
            step.run(cursor)
            built += step.statement.as_string(cursor)
    assert verdicts(connection, parted)[0] == "present"
    assert ("visits_daegu" in built, "visits_gwangju" in built) == (True, False)


def test_what_is_said_beforehand_is_done_although_an_abandoned_index_has_parts(
    login: Login, connection: Connection, parted: Plan
) -> None:
    """They are attached to it now, and go with it before the new one is there."""
    run(connection, f"UPDATE {VISITS} SET open = false")
    ((oid,),) = run(connection, "SELECT 'south.visits'::regclass::oid::int")
    run(connection, f"CREATE UNIQUE INDEX one_open_visit ON ONLY {VISITS} (region, serial) WHERE open;"
        f"CREATE UNIQUE INDEX one_open_visit_p{oid} ON south.visits (region, serial) WHERE open;"
        f"ALTER INDEX aedpics.one_open_visit ATTACH PARTITION south.one_open_visit_p{oid}")  # fmt: skip
    assert verdicts(connection, parted)[0] == "invalid"
    steps = build_concurrently.build_steps(connection, parted, parted.rule_index, abandoned=True)
    said = [step.statement.as_string(connection) for step in steps]
    connection.rollback()
    done = list(build(login, parted).statements)
    assert said == done[: len(said)]
    assert sum("visits_" in statement or "south" in statement for statement in said) > 4


def test_rows_of_a_partition_that_is_detached_between_two_batches_stay_where_they_are(
    login: Login, connection: Connection, parted: Plan
) -> None:
    calls: list[None] = []

    def detach(*_: Any) -> float:
        calls.append(None)
        if len(calls) == 2:
            with connect(login) as other:
                run(other, f"ALTER TABLE {VISITS} DETACH PARTITION aedpics.visits_seoul")
        return 0.0

    ((before,),) = run(connection, f"SELECT count(*) FROM {VISITS}")
    found = surplus_rows.report(connection, parted)
    done = remove(connection, parted, found, pace=Pace(first=4, smallest=4, largest=4), checkpoint=detach)
    assert (done.removed + done.gone_meanwhile, done.rows_left) == (SURPLUS, 0)
    assert done.gone_meanwhile > 0
    ((left,), (detached,)) = run(
        connection, f"SELECT count(*) FROM {VISITS} UNION ALL SELECT count(*) FROM aedpics.visits_seoul"
    )
    assert left + detached == before - done.removed
    assert run(connection, "SELECT count(*) FROM at_most_one.archived_row") == [(done.removed,)]


class TestTheWayBack:
    def test_rows_without_a_partition_stay_and_are_named(self, connection: Connection, parted: Plan) -> None:
        remove(connection, parted, surplus_rows.report(connection, parted))
        run(connection, "ALTER TABLE aedpics.visits DETACH PARTITION aedpics.visits_seoul")
        done = restore(connection, parted, run_id="run-1", possible=True)
        (left,) = done.left
        assert (done.restored, left.reason, left.count) == (20, "partition", 10)
        assert "10 of aedpics.visits: the table has no partition for them" in str(left)

    def test_an_index_of_a_partition_that_a_killed_build_has_left_goes_as_well(
        self, login: Login, connection: Connection, parted: Plan
    ) -> None:
        """The whole's index goes with what is attached to it; the one that is not would go on refusing rows."""
        run(connection, f"UPDATE {VISITS} SET open = false")
        ((oid,),) = run(connection, "SELECT 'south.visits_0'::regclass::oid::int")
        run(connection, f"CREATE UNIQUE INDEX one_open_visit ON ONLY {VISITS} (region, serial) WHERE open")
        run(connection, f"CREATE UNIQUE INDEX one_open_visit_p{oid} ON south.visits_0 (region, serial) WHERE open")
        inspection = verification.inspect(connection, parted)
        connection.rollback()
        expected = [
            f'DROP INDEX CONCURRENTLY IF EXISTS "south"."one_open_visit_p{oid}"',
            'DROP INDEX IF EXISTS "aedpics"."one_open_visit"',
        ]
        with connect(login, lock_timeout_ms=0, autocommit=True) as dropping:
            assert verification.drop(dropping, parted, inspection, check=True) == expected
            assert len(indexes(connection)) == 2
            assert verification.drop(dropping, parted, inspection) == expected
        assert indexes(connection) == set()

    def test_a_row_whose_key_is_taken_and_one_that_the_index_rejects(
        self, login: Login, connection: Connection, parted: Plan
    ) -> None:
        """The error names the partition and its own index."""
        remove(connection, parted, surplus_rows.report(connection, parted))
        run(
            connection,
            f"INSERT INTO {VISITS} SELECT (r.row).id, (r.row).region, (r.row).serial, false"
            f" FROM (SELECT jsonb_populate_record(NULL::{VISITS}, row) AS row FROM at_most_one.archived_row"
            " WHERE primary_key ->> 'region' = 'jeju' ORDER BY id LIMIT 1) AS r",
        )
        build(login, parted)
        done = restore(connection, parted, run_id="run-1", possible=True)
        assert {(left.reason, left.name): left.count for left in done.left} == {
            ("taken", "visits_pkey"): 1,
            ("rule", "one_open_visit"): SURPLUS - 1,
        }


def test_a_foreign_key_to_a_partitioned_table_is_asked_once(connection: Connection, plan: Plan, example: Any) -> None:
    """It has a copy for each partition of that table, and no row is in all of them."""
    run(
        connection,
        """CREATE TABLE aedpics.years (year int PRIMARY KEY) PARTITION BY LIST (year);
        CREATE TABLE aedpics.y25 PARTITION OF aedpics.years FOR VALUES IN (2025);
        CREATE TABLE aedpics.y26 PARTITION OF aedpics.years FOR VALUES IN (2026);
        INSERT INTO aedpics.years VALUES (2025), (2026);
        ALTER TABLE aedpics.inspection_sessions ADD COLUMN year int DEFAULT 2026 REFERENCES aedpics.years""",
    )
    remove(connection, plan, surplus_rows.report(connection, plan))
    run(
        connection,
        f"CREATE UNIQUE INDEX {plan.rule_index.name} ON aedpics.inspection_sessions (equipment_serial)"
        f" WHERE {plan.predicate}",
    )
    checked = restore(connection, plan, run_id="run-1", check=True, possible=True, index_dropped_first=True)
    assert (checked.restored, checked.left) == (25, [])


def test_sizes_and_uses_are_those_of_all_partitions(connection: Connection, parted: Plan) -> None:
    run(connection, f"UPDATE {VISITS} SET open = false, note = repeat(md5(id::text), 2000)")
    run(connection, f"ALTER TABLE {LEAVES[0]} ALTER COLUMN note SET STORAGE EXTERNAL")
    run(connection, f"UPDATE {VISITS} SET note = note || '.'")
    with connection, connection.cursor() as cursor:
        assert row_size.stored_apart(cursor, parted) >= 20 * 64_000
    run(connection, definitions.create_statement(parted.rule_index, "aedpics").as_string(connection))
    found = {use.name: use for use in usage_stats.read(connection, parted)}
    assert found["one_open_visit"].bytes >= 3 * 8192
    assert found["one_open_visit"].advice == "rule"


def test_the_race_is_refused_by_the_part_of_the_index_on_a_partition(
    login: Login, connection: Connection, parted: Plan
) -> None:
    run(connection, f"UPDATE {VISITS} SET open = false")
    build(login, parted)
    run(connection, INSERT, 99, "busan", "AED-1")
    before = content(connection)
    connection.rollback()
    seen = race.run(login, parted)
    assert (seen.verdict, seen.index) == ("proven", "one_open_visit")
    assert content(connection) == before
