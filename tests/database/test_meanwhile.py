"""Somebody creates what acts on the rows while they leave or return: nothing that it does goes unseen."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from at_most_one.duplicates import surplus_rows
from at_most_one.duplicates.batches import Batches, Pace
from at_most_one.duplicates.restore import Size, restore
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan, Surplus
from at_most_one.postgres.connection import Connection, Login, connect

from tests.database.cleaning import TABLE, ids, keys, remove, run

GROUP_BY_GROUP = Pace(first=4, smallest=4, largest=4)
# Rows that belong to the sessions, which no foreign key says yet; and a trigger that does not act yet.
BESIDE = f"""
ALTER TABLE {TABLE} ADD UNIQUE (id, status);
CREATE TABLE aedpics.photos AS SELECT id AS session, status FROM {TABLE};
CREATE TABLE aedpics.log (id uuid);
CREATE FUNCTION aedpics.note() RETURNS trigger LANGUAGE plpgsql
    AS $$BEGIN INSERT INTO aedpics.log VALUES (OLD.id); RETURN NULL; END$$;
CREATE TRIGGER early AFTER DELETE ON {TABLE} FOR EACH ROW EXECUTE FUNCTION aedpics.note();
ALTER TABLE {TABLE} DISABLE TRIGGER early"""
KEY = "ALTER TABLE aedpics.photos ADD CONSTRAINT of_session FOREIGN KEY"
DELETING, CANCELLING = Surplus("delete", {}, "stop"), Surplus("update", {"status": "cancelled"}, "stop")
CREATED = {
    "a column": (
        DELETING,
        f"ALTER TABLE {TABLE} ADD COLUMN late text DEFAULT 'of value'",
        f"column late of {TABLE} (type: text)",
    ),
    "another type": (
        CANCELLING,
        f"ALTER TABLE {TABLE} ALTER COLUMN notes TYPE varchar",
        f"column notes of {TABLE} (type: character varying)",
    ),
    "a foreign key that takes rows along": (
        DELETING,
        f"{KEY} (session) REFERENCES {TABLE} ON DELETE CASCADE NOT VALID",
        "foreign key of_session of aedpics.photos (ON DELETE: CASCADE)",
    ),
    "a foreign key that forgets": (
        DELETING,
        f"{KEY} (session) REFERENCES {TABLE} ON DELETE SET NULL NOT VALID",
        "foreign key of_session of aedpics.photos (ON DELETE: SET NULL)",
    ),
    "a foreign key that follows": (
        CANCELLING,
        f"{KEY} (session, status) REFERENCES {TABLE} (id, status) ON UPDATE CASCADE NOT VALID",
        "foreign key of_session of aedpics.photos (ON UPDATE: CASCADE)",
    ),
    "a trigger": (
        DELETING,
        f"CREATE TRIGGER late AFTER DELETE ON {TABLE} FOR EACH ROW EXECUTE FUNCTION aedpics.note()",
        f"trigger late of {TABLE} (AFTER DELETE FOR EACH ROW: aedpics.note)",
    ),
    "a trigger on updates": (
        CANCELLING,
        f"CREATE TRIGGER late AFTER UPDATE ON {TABLE} FOR EACH ROW EXECUTE FUNCTION aedpics.note()",
        f"trigger late of {TABLE} (AFTER UPDATE FOR EACH ROW: aedpics.note)",
    ),
    "a trigger that was off": (
        DELETING,
        f"ALTER TABLE {TABLE} ENABLE TRIGGER early",
        f"trigger early of {TABLE} (AFTER DELETE FOR EACH ROW: aedpics.note)",
    ),
}


def beside(connection: Connection) -> list[tuple[Any, ...]]:
    """The rows of the other tables."""
    return run(connection, "SELECT p::text FROM aedpics.photos AS p UNION ALL SELECT l::text FROM aedpics.log AS l")


def before_the_second_batch(login: Login, statement: str) -> Callable[..., float]:
    calls = itertools.count(1)

    def checkpoint(*_: Any) -> float:
        if next(calls) == 2:
            with connect(login) as other:
                run(other, statement)
        return 0.0

    return checkpoint


@pytest.mark.versions
@pytest.mark.parametrize("what", CREATED)
def test_what_is_created_between_two_batches_stops_the_next_one(
    connection: Connection, login: Login, plan: Plan, example: Any, what: str
) -> None:
    surplus, statement, named = CREATED[what]
    run(connection, BESIDE)
    there, kept = beside(connection), replace(plan, surplus=surplus)
    with pytest.raises(OperatorError, match="created, changed or enabled after its rows had begun to leave") as stop:
        remove(
            connection,
            kept,
            surplus_rows.report(connection, kept),
            pace=GROUP_BY_GROUP,
            checkpoint=before_the_second_batch(login, statement),
        )
    assert named in stop.value.seen
    ((archived,),) = run(connection, "SELECT count(*) FROM at_most_one.archived_row")
    assert 0 < archived == stop.value.details["removed"] < 25
    assert sorted(beside(connection)) == sorted(there)
    if surplus is DELETING:
        assert len(example.surplus - ids(connection)) == archived


def test_what_only_acts_on_other_changes_stops_nothing(
    connection: Connection, login: Login, plan: Plan, example: Any
) -> None:
    """A trigger on inserts, and a foreign key that merely refuses: who points to a row is counted by the server."""
    run(connection, BESIDE)
    harmless = (
        f"CREATE TRIGGER late AFTER INSERT ON {TABLE} FOR EACH ROW EXECUTE FUNCTION aedpics.note();"
        f"CREATE TABLE aedpics.marks (session uuid REFERENCES {TABLE} ON UPDATE CASCADE)"
    )
    found = surplus_rows.report(connection, plan)
    checkpoint = before_the_second_batch(login, harmless)
    assert remove(connection, plan, found, pace=GROUP_BY_GROUP, checkpoint=checkpoint).removed == 25


def test_a_foreign_key_that_comes_between_the_count_and_the_removal_of_one_batch(
    connection: Connection, login: Login, plan: Plan, example: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are locked by then, and the table is not locked against it yet."""
    run(connection, BESIDE + f"; CREATE TABLE aedpics.marks (session uuid REFERENCES {TABLE})")
    there, before = beside(connection), ids(connection)
    counted = Batches._references

    def then_created(self: Batches, cursor: Any) -> int:
        done = counted(self, cursor)
        with connect(login) as other:
            run(other, CREATED["a foreign key that takes rows along"][1])
        return done

    monkeypatch.setattr(Batches, "_references", then_created)
    with pytest.raises(OperatorError, match=r"foreign key of_session of aedpics\.photos") as stop:
        remove(connection, plan, surplus_rows.report(connection, plan))
    assert "Nothing was written" in stop.value.seen
    assert (sorted(beside(connection)), ids(connection)) == (sorted(there), before)


def test_the_next_call_asks_what_it_does(connection: Connection, login: Login, plan: Plan, example: Any) -> None:
    run(connection, BESIDE)
    statement = CREATED["a foreign key that takes rows along"][1]
    found = surplus_rows.report(connection, plan)
    with pytest.raises(OperatorError, match="created, changed or enabled"):
        remove(connection, plan, found, pace=GROUP_BY_GROUP, checkpoint=before_the_second_batch(login, statement))
    with pytest.raises(OperatorError, match=r"of aedpics\.photos by of_session \(ON DELETE CASCADE\)"):
        remove(connection, plan, surplus_rows.report(connection, plan))
    run(connection, "DELETE FROM aedpics.photos")
    left = surplus_rows.report(connection, plan)
    assert remove(connection, plan, left).removed == len(keys(left.rows))
    assert not example.surplus & ids(connection)


def test_what_a_trigger_writes_that_comes_while_rows_return_is_seen(
    connection: Connection, login: Login, plan: Plan, example: Any
) -> None:
    run(connection, BESIDE)
    remove(connection, plan, surplus_rows.report(connection, plan))
    run(connection, "CREATE FUNCTION aedpics.seen() RETURNS trigger LANGUAGE plpgsql"
        " AS $$BEGIN INSERT INTO aedpics.log VALUES (NEW.id); RETURN NULL; END$$")  # fmt: skip
    calls = itertools.count(1)

    def hold(_: Connection) -> None:
        if next(calls) == 3:  # of the second batch; the first call is of what is read beforehand
            with connect(login) as other:
                run(other, f"CREATE TRIGGER late AFTER INSERT ON {TABLE} FOR EACH ROW EXECUTE FUNCTION aedpics.seen()")

    done = restore(connection, plan, run_id="run-1", possible=True, hold=hold, size=Size(5, largest=5))
    assert [(left.reason, left.name, left.count) for left in done.left] == [("writes", "aedpics.log", 20)]
    assert done.restored == 5
    assert run(connection, "SELECT count(*) FROM aedpics.log") == [(0,)]


def test_a_foreign_key_that_follows_and_came_after_prepare_takes_its_batch_back(
    connection: Connection, plan: Plan, example: Any
) -> None:
    """Prepare would have asked for its name; what it changes in the other table would not be taken back."""
    run(connection, BESIDE + ";" + CREATED["a foreign key that follows"][1])
    there, kept = beside(connection), replace(plan, surplus=CANCELLING)
    with pytest.raises(OperatorError, match=r"write to aedpics\.photos"):
        remove(connection, kept, surplus_rows.report(connection, kept))
    assert sorted(beside(connection)) == sorted(there)
