"""Every planned row is archived and gone, or named with why it is not; anything else takes its batch back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from at_most_one.duplicates import batches, surplus_rows, worklist
from at_most_one.duplicates.batches import Pace
from at_most_one.duplicates.restore import restore
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan, Surplus
from at_most_one.postgres.catalog import columns_of
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.preflight.out_and_back import try_out
from psycopg2 import sql

from tests.database.cleaning import TABLE, content, ids, keys, remove, run

GROUP_BY_GROUP = Pace(first=4, smallest=4, largest=4)
CANCELLING = Surplus("update", {"status": "cancelled"}, "stop")


def trigger(connection: Connection, when: str, body: str, each: str = "ROW", kind: str = "") -> None:
    run(connection, f"CREATE FUNCTION aedpics.meddle() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body} END$$")
    run(
        connection,
        f"CREATE {kind} TRIGGER meddle {when} ON {TABLE} {'DEFERRABLE INITIALLY DEFERRED' if kind else ''}"
        f" FOR EACH {each} EXECUTE FUNCTION aedpics.meddle()",
    )


def archived(connection: Connection) -> int:
    ((there,),) = run(connection, "SELECT to_regclass('at_most_one.archived_row') IS NOT NULL")
    return run(connection, "SELECT count(*) FROM at_most_one.archived_row")[0][0] if there else 0


SOFT = f"UPDATE {TABLE} SET status = 'cancelled' WHERE id = OLD.id; RETURN NULL;"
# A block with EXCEPTION is a subtransaction: what it writes does not carry the transaction's own id.
SOFT_INSIDE = f"BEGIN {SOFT} EXCEPTION WHEN division_by_zero THEN RETURN OLD; END;"
AGAIN = f"INSERT INTO {TABLE} SELECT (OLD).*; RETURN NULL;"
MEDDLERS = {
    "soft delete": ("BEFORE DELETE", SOFT, ""),
    "soft delete in a subtransaction": ("BEFORE DELETE", SOFT_INSIDE, ""),
    "swallowed": ("BEFORE DELETE", "RETURN NULL;", ""),
    "swallows one": ("BEFORE DELETE", "IF OLD.equipment_serial = 'AED-0001' THEN RETURN NULL; END IF; RETURN OLD;", ""),
    "inserted again": ("AFTER DELETE", AGAIN, ""),
    "inserted again at the commit": ("AFTER DELETE", AGAIN, "CONSTRAINT"),
}


@pytest.mark.versions
@pytest.mark.parametrize("meddler", MEDDLERS)
def test_what_is_not_really_gone_is_never_archived(
    connection: Connection, plan: Plan, example: Any, meddler: str
) -> None:
    when, body, kind = MEDDLERS[meddler]
    trigger(connection, when, body, kind=kind)
    before = content(connection)
    with pytest.raises(
        OperatorError, match=rf"trigger meddle of {TABLE} \({when} FOR EACH ROW: aedpics\.meddle\)"
    ) as e:
        remove(connection, plan, surplus_rows.report(connection, plan))
    assert "Nothing was written" in e.value.seen
    assert "surplus.action: update" in e.value.next_step
    assert e.value.details["removed"] == 0
    assert (archived(connection), content(connection)) == (0, before)


def test_a_table_without_any_foreign_key_is_watched_as_well(connection: Connection, plan: Plan, example: Any) -> None:
    """Where there is one, its own triggers are of the table, too."""
    for table, name in run(
        connection, "SELECT conrelid::regclass::text, conname FROM pg_constraint WHERE contype = 'f'"
    ):
        run(connection, f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    trigger(connection, "AFTER DELETE", AGAIN)
    before = content(connection)
    with pytest.raises(OperatorError, match="25 of them are in the table otherwise than they should be"):
        remove(connection, plan, surplus_rows.report(connection, plan))
    assert (archived(connection), content(connection)) == (0, before)


def test_a_trigger_of_a_table_that_points_to_the_rows_brings_one_back(
    connection: Connection, plan: Plan, example: Any
) -> None:
    """The foreign key acts on no row, but its statement is one: the trigger fires."""
    back = min(example.surplus)
    run(connection, f"CREATE TABLE aedpics.kept AS SELECT * FROM {TABLE} WHERE id = %s", back)
    run(
        connection,
        f"""CREATE TABLE aedpics.photos (session uuid REFERENCES {TABLE} ON DELETE CASCADE);
            CREATE FUNCTION aedpics.again() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
                INSERT INTO {TABLE} SELECT * FROM aedpics.kept ON CONFLICT DO NOTHING; RETURN NULL; END$$;
            CREATE TRIGGER again AFTER DELETE ON aedpics.photos FOR EACH STATEMENT EXECUTE FUNCTION aedpics.again()""",
    )
    before = content(connection)
    with pytest.raises(
        OperatorError, match=r"1 of them are in the table .*: no trigger or rule of the table, so one of"
    ):
        remove(connection, plan, surplus_rows.report(connection, plan))
    assert (archived(connection), content(connection)) == (0, before)


@pytest.mark.parametrize("surplus", [Surplus("delete", {}, "stop"), CANCELLING], ids=["delete", "update"])
def test_rows_that_an_earlier_run_archived_and_that_returned_are_no_fault_of_this_one(
    connection: Connection, plan: Plan, example: Any, surplus: Surplus
) -> None:
    trigger(connection, "AFTER DELETE OR UPDATE", "RETURN NULL;")
    named = replace(plan, surplus=replace(surplus, triggers=("meddle",)))
    found = surplus_rows.report(connection, named)
    surplus_rows.remove(connection, named, rows=found.rows, digest=found.digest, run_id="run-0")
    assert restore(connection, named, run_id="run-0").restored == 25
    run(connection, f"UPDATE {TABLE} SET status = 'completed' WHERE id = %s", min(example.surplus))
    assert remove(connection, named, surplus_rows.report(connection, named)).archived == 24


def test_what_another_run_archives_meanwhile_is_no_fault_of_this_one(
    connection: Connection, plan: Plan, example: Any
) -> None:
    """Its numbers in the archive lie between ours. Here a trigger writes them, for a row that stays."""
    trigger(
        connection,
        "BEFORE DELETE",
        f"""INSERT INTO at_most_one.archived_row
            (run_id, plan_id, table_schema, table_name, primary_key, keeper, row, row_sha256, action)
            VALUES ('run-0', 'other', 'aedpics', 'inspection_sessions',
                jsonb_build_object('id', '{example.keep["AED-0001"]}'), '{{}}', '{{}}', '', 'delete');
            RETURN OLD;""",
    )
    named = replace(plan, surplus=replace(plan.surplus, triggers=("meddle",)))
    assert remove(connection, named, surplus_rows.report(connection, named)).archived == 25
    assert archived(connection) == 50


def test_whole_batches_before_it_stay_and_the_rest_is_untouched(
    connection: Connection, plan: Plan, example: Any
) -> None:
    trigger(connection, "BEFORE DELETE", "IF OLD.equipment_serial = 'AED-0003' THEN RETURN NULL; END IF; RETURN OLD;")
    found = surplus_rows.report(connection, plan)
    with pytest.raises(OperatorError, match="of them did not go") as stop:
        remove(connection, plan, found, pace=GROUP_BY_GROUP)
    assert stop.value.details["removed"] == archived(connection) == 6
    assert len(keys(found.rows) - ids(connection)) == 6


OTHERS = {
    "another table": ("INSERT INTO aedpics.log VALUES (OLD.id);", "triggers write to aedpics.log"),
    "another row": (f"UPDATE {TABLE} SET notes = 'gone' WHERE status = 'completed';", "removal of 3 rows changed 102"),
}


@pytest.mark.versions
@pytest.mark.parametrize("other", OTHERS)
def test_what_else_a_named_trigger_changes_takes_its_batch_back(
    connection: Connection, plan: Plan, example: Any, other: str
) -> None:
    """Prepare has tried a few rows, of which none set it off."""
    body, words = OTHERS[other]
    run(connection, "CREATE TABLE aedpics.log (id uuid)")
    trigger(connection, "AFTER DELETE", f"IF OLD.equipment_serial = 'AED-0003' THEN {body} END IF; RETURN NULL;")
    named = replace(plan, surplus=replace(plan.surplus, triggers=("meddle",)))
    found = surplus_rows.report(connection, named)
    with pytest.raises(OperatorError, match=words) as stop:
        remove(connection, named, found, pace=GROUP_BY_GROUP)
    assert stop.value.details["removed"] == archived(connection) == 6
    assert "The same command again goes on from here" in stop.value.next_step
    assert run(connection, "SELECT count(*) FROM aedpics.log") == [(0,)]
    assert run(connection, f"SELECT count(*) FROM {TABLE} WHERE notes = 'gone'") == [(0,)]
    allowed = replace(named, surplus=replace(named.surplus, writes=("aedpics.log",)))
    if other == "another table":
        assert remove(connection, allowed, surplus_rows.report(connection, allowed)).removed == 19


def test_what_a_trigger_writes_that_came_after_prepare_takes_its_batch_back(
    connection: Connection, plan: Plan, example: Any
) -> None:
    """Prepare would have asked for its name."""
    run(connection, "CREATE TABLE aedpics.log (id uuid)")
    trigger(connection, "AFTER DELETE", "INSERT INTO aedpics.log VALUES (OLD.id); RETURN NULL;")
    before = content(connection)
    with pytest.raises(OperatorError, match=r"triggers write to aedpics\.log"):
        remove(connection, plan, surplus_rows.report(connection, plan))
    assert (archived(connection), content(connection)) == (0, before)


@pytest.mark.parametrize(
    ("when", "body"),
    [
        ("BEFORE UPDATE", "RETURN NULL;"),
        ("BEFORE UPDATE", "NEW.status := 'completed'; RETURN NEW;"),
        ("AFTER UPDATE", f"UPDATE {TABLE} SET notes = 'again' WHERE id = NEW.id AND notes <> 'again'; RETURN NULL;"),
        ("AFTER UPDATE", f"DELETE FROM {TABLE} WHERE id = NEW.id; RETURN NULL;"),
    ],
    ids=["swallowed", "other values", "changed again", "removed"],
)
def test_an_update_that_becomes_another_one_is_taken_back(
    connection: Connection, plan: Plan, example: Any, when: str, body: str
) -> None:
    trigger(connection, when, body)
    before = content(connection)
    cancelling = replace(plan, surplus=CANCELLING)
    with pytest.raises(OperatorError, match=r"were updated, and 25 of them .*trigger meddle"):
        remove(connection, cancelling, surplus_rows.report(connection, cancelling))
    assert (archived(connection), content(connection)) == (0, before)


def test_values_that_the_column_stores_in_another_form_are_the_plans(
    connection: Connection, plan: Plan, example: Any
) -> None:
    run(connection, f"ALTER TABLE {TABLE} ADD COLUMN ratio numeric(6, 2), ADD COLUMN letter char(5)")
    values = {"status": "cancelled", "ratio": "0.5", "letter": "x", "completed_at": "now"}
    cancelling = replace(plan, surplus=Surplus("update", values, "stop"))
    assert remove(connection, cancelling, surplus_rows.report(connection, cancelling)).removed == 25
    assert run(connection, f"SELECT DISTINCT ratio::text, letter FROM {TABLE} WHERE status = 'cancelled'") == [
        ("0.50", "x    ")
    ]


def test_a_row_that_others_moved_is_no_fault_of_a_trigger(connection: Connection, plan: Plan, example: Any) -> None:
    """Its batch is repeated with its rows locked first, and then takes it from where it is now."""
    found = surplus_rows.report(connection, plan)
    ranked = found.rows[0]
    with connection.cursor() as cursor:  # a rewrite of the page: same content, another place
        cursor.execute(f"UPDATE {TABLE} SET notes = notes WHERE id = %s", ranked)
    connection.commit()
    assert remove(connection, plan, found).removed == 25


def test_a_keeper_that_somebody_keeps_updating_is_found_by_its_key_in_the_second_round(
    connection: Connection, login: Login, plan: Plan, example: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each batch finds it elsewhere than it was when it was ranked."""
    monkeypatch.setattr(surplus_rows, "_ROUNDS", 2)
    found = surplus_rows.report(connection, plan)

    def update(*_: Any) -> float:
        with connect(login) as other:
            run(other, f"UPDATE {TABLE} SET notes = notes WHERE id = %s", found.groups[0].keep["id"])
        return 0.0

    done = remove(connection, plan, found, checkpoint=update)
    assert (done.removed, done.batches, done.rows_left) == (25, 2, 0)


@pytest.mark.thorough  # costs the server a gigabyte of memory; how a batch is taken back is tested above
def test_a_row_too_large_for_the_archive_stays_and_the_limit_is_said(
    connection: Connection, plan: Plan, example: Any
) -> None:
    found = surplus_rows.report(connection, plan)
    run(connection, f"UPDATE {TABLE} SET notes = repeat('x', 268435456) WHERE id = %s", found.rows[-1][0])
    with pytest.raises(OperatorError, match=r"268435455 bytes \(SQLSTATE 54000\)") as stop:
        remove(connection, plan, found, pace=GROUP_BY_GROUP)
    assert "256 MB of text" in stop.value.expected
    assert "find the row that is larger" in stop.value.next_step
    assert keys(found.rows) - ids(connection) == {
        row for (row,) in run(connection, "SELECT primary_key ->> 'id' FROM at_most_one.archived_row")
    }
    assert stop.value.details["removed"] == archived(connection) < 25


@pytest.mark.parametrize("check", [True, False])
def test_each_row_that_is_not_archived_is_named_with_why(
    connection: Connection, plan: Plan, example: Any, check: bool
) -> None:
    found = surplus_rows.report(connection, plan)
    earlier, closed, deleted, _ = (group.surplus[0]["id"] for group in found.groups[:4])
    keeper = found.groups[3].keep["id"]
    promoted = found.groups[3].surplus[0]["id"]
    for row, run_id in ((str(deleted), "run-00"), (str(earlier), "run-0")):
        surplus_rows.remove(connection, plan, rows=[[row]], digest=surplus_rows.digest([[row]]), run_id=run_id)
    assert restore(connection, plan, run_id="run-00").restored == 1  # so the archive has it no more
    run(connection, f"UPDATE {TABLE} SET status = 'completed' WHERE id IN (%s, %s)", closed, keeper)
    run(connection, f"DELETE FROM {TABLE} WHERE id = %s", deleted)
    done = remove(connection, plan, found, check=check)
    assert {(row.row[0], row.why) for row in done.unarchived} == {
        (earlier, "archived"), (closed, "outside"), (deleted, "gone"), (promoted, "keeper")
    }  # fmt: skip
    assert done.archived + len(done.unarchived) == 25
    assert (done.kept_meanwhile, done.gone_meanwhile) == (2, 2)


def test_of_many_rows_that_are_not_archived_the_first_are_named(
    connection: Connection, plan: Plan, example: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surplus_rows, "EXAMPLES", 1)
    monkeypatch.setattr(batches, "EXAMPLES", 2)
    found = surplus_rows.report(connection, plan)
    closed, deleted = sorted(example.surplus)[:2], sorted(example.surplus)[2:5]
    run(connection, f"DELETE FROM {TABLE} WHERE id = ANY (%s::uuid[])", deleted)
    gone = remove(connection, plan, found, check=True, describe=True)
    assert (gone.gone_meanwhile, [row.row for row in gone.unarchived]) == (3, [deleted[:1]])
    assert [(group.keep, group.surplus) for group in gone.groups] == [(found.groups[0].keep, [])]
    run(connection, f"UPDATE {TABLE} SET status = 'completed' WHERE id = ANY (%s::uuid[])", closed)
    done = remove(connection, plan, found, pace=GROUP_BY_GROUP)
    assert (done.kept_meanwhile, done.gone_meanwhile, done.kept_examples) == (2, 3, [closed[:1]])
    assert [row.row for row in done.unarchived] == [closed[:1]]
    assert done.removed_examples == [[row["id"]] for row in found.groups[0].surplus[:2]]


class TestWhatIsWrittenToOtherRows:
    """Neither is silent: a table that is emptied counts no rows, and a row may set off something only as it returns."""

    @pytest.fixture(autouse=True)
    def log(self, connection: Connection) -> None:
        run(connection, "CREATE TABLE aedpics.log (id uuid); INSERT INTO aedpics.log VALUES (NULL)")
        run(connection, "CREATE TABLE aedpics.also (id uuid)")

    def test_a_table_that_a_trigger_empties_is_named(self, connection: Connection, plan: Plan, example: Any) -> None:
        trigger(connection, "AFTER DELETE", "TRUNCATE aedpics.log; RETURN NULL;", each="STATEMENT")
        allowed = replace(plan, surplus=replace(plan.surplus, triggers=("meddle",)))
        before = content(connection)
        for attempt in (
            lambda: try_out(connection, allowed),
            lambda: remove(connection, allowed, surplus_rows.report(connection, allowed)),
        ):
            with pytest.raises(OperatorError, match=r"triggers write to aedpics\.log"):
                attempt()
            assert (content(connection), archived(connection)) == (before, 0)
        assert run(connection, "SELECT count(*) FROM aedpics.log") == [(1,)]

    def test_a_table_that_refers_to_it_is_another_one_where_no_row_is_repointed(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        run(connection, f"ALTER TABLE aedpics.log ADD COLUMN kept uuid REFERENCES {TABLE}")
        trigger(connection, "AFTER DELETE", "INSERT INTO aedpics.log VALUES (OLD.id); RETURN NULL;")
        allowed = replace(plan, surplus=replace(plan.surplus, triggers=("meddle",)))
        with pytest.raises(OperatorError, match=r"triggers write to aedpics\.log"):
            try_out(connection, allowed)

    @pytest.mark.versions
    @pytest.mark.parametrize(
        ("write", "named"),
        [
            ("INSERT INTO aedpics.log VALUES (NEW.id);", "aedpics.log"),
            ("TRUNCATE aedpics.log;", "aedpics.log"),
            (f"UPDATE {TABLE} SET notes = 'again' WHERE equipment_serial = 'AED-0011';", TABLE),
            (
                "INSERT INTO aedpics.log VALUES (NEW.id); INSERT INTO aedpics.also VALUES (NEW.id);",
                "aedpics.also, aedpics.log",
            ),
        ],
        ids=["inserted", "emptied", "another row of the table", "inserted into two"],
    )
    def test_a_row_with_which_others_are_written_does_not_return(
        self, connection: Connection, plan: Plan, example: Any, write: str, named: str
    ) -> None:
        before = content(connection)
        found = surplus_rows.report(connection, plan)
        assert remove(connection, plan, found).removed == 25
        barred = found.groups[0].surplus[0]["id"]
        trigger(connection, "AFTER INSERT", f"IF NEW.id = '{barred}' THEN {write} END IF; RETURN NULL;")
        for check in (True, False):
            back = restore(connection, plan, run_id="run-1", check=check, possible=True)
            assert [(one.reason, one.name, one.rows) for one in back.left] == [("writes", named, [[barred]])]
            assert back.restored == 24
        assert [row for row in before if row not in content(connection)] == [row for row in before if barred in row[0]]
        assert run(connection, "SELECT count(*) FROM aedpics.log") == [(1,)]
        allowed = replace(plan, surplus=replace(plan.surplus, triggers=("meddle",), writes=tuple(named.split(", "))))
        last = restore(connection, allowed, run_id="run-1", possible=True)
        assert (last.restored, len(last.left)) == ((0, 1) if named == TABLE else (1, 0))


def test_rows_that_are_not_there_are_found_by_a_join(
    connection: Connection, plan: Plan, found: surplus_rows.Report
) -> None:
    """NOT IN, of a table that does not fit into work_mem, reads all of it again for each row that was given."""
    nobody = sql.SQL("SELECT NULL::uuid WHERE false")
    with connection.cursor() as cursor:
        columns = columns_of(cursor, plan)
        worklist.load(cursor, plan, columns, found.rows)
        asks: list[Callable[..., Any]] = [
            worklist.absent,
            functools.partial(worklist.gone, archived=nobody, went=nobody, limit=10),
        ]
        for ask in asks:
            assert not ask(cursor, plan)
            cursor.execute(b"EXPLAIN " + (cursor.query or b""))
            shown = "\n".join(line for (line,) in cursor.fetchall())
            assert "Anti Join" in shown, shown
            assert "SubPlan" not in shown, shown
    connection.rollback()
