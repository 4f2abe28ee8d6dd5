"""surplus.references repoint: who pointed to a surplus row points to its keeper, and back again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import psycopg2.errors
import pytest
from at_most_one.duplicates import references, surplus_rows
from at_most_one.duplicates.batches import Pace
from at_most_one.duplicates.restore import restore
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan
from at_most_one.postgres.catalog import columns_of
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.preflight.out_and_back import try_out

from tests.database.citext import make_citext
from tests.database.cleaning import TABLE, clean_up, run


@pytest.fixture
def repointing(plan: Plan) -> Plan:
    return replace(plan, surplus=replace(plan.surplus, references="repoint"))


@pytest.fixture
def photos(connection: Connection, example: Any) -> list[tuple[Any, ...]]:
    """A photo of every session, by its id and by its code, which is unique as well; CASCADE would take them along."""
    run(connection, f"ALTER TABLE {TABLE} ADD COLUMN code int GENERATED ALWAYS AS IDENTITY UNIQUE")
    run(
        connection,
        f"""CREATE TABLE aedpics.photos (
             id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
             "Session" uuid NOT NULL REFERENCES {TABLE} (id) ON DELETE CASCADE,
             session_code int REFERENCES {TABLE} (code) ON DELETE SET NULL)""",
    )
    run(connection, f'INSERT INTO aedpics.photos ("Session", session_code) SELECT id, code FROM {TABLE}')
    return pointing(connection)


def pointing(connection: Connection) -> list[tuple[Any, ...]]:
    return run(connection, 'SELECT id, "Session"::text, session_code FROM aedpics.photos ORDER BY id')


@pytest.mark.versions
@pytest.mark.parametrize("size", [3, 500])
def test_everybody_points_to_the_keeper_and_then_back(
    connection: Connection, repointing: Plan, example: Any, photos: list[tuple[Any, ...]], size: int
) -> None:
    before = run(connection, f"SELECT t::text FROM {TABLE} AS t ORDER BY 1")
    found = surplus_rows.report(connection, repointing)
    assert {(r.constraint, r.on_delete, r.rows) for r in found.referenced} == {
        ("photos_Session_fkey", "CASCADE", 25),
        ("photos_session_code_fkey", "SET NULL", 25),
    }
    done = clean_up(connection, repointing, pace=Pace(first=size, smallest=size, largest=size))
    assert (done.removed, done.repointed, done.rows_left) == (25, 50, 0)
    assert run(connection, "SELECT count(*) FROM aedpics.photos") == [(len(photos),)]
    serials = run(
        connection,
        f"""SELECT count(*), count(*) FILTER (WHERE s.id = p."Session" AND s.code = p.session_code)
            FROM aedpics.photos p JOIN at_most_one.archived_row a ON true
            JOIN {TABLE} s ON s.id = (a.keeper ->> 'id')::uuid
            WHERE p.id IN (SELECT (primary_key ->> 'id')::int FROM at_most_one.repointed_row
                           WHERE before ->> 'Session' = a.primary_key ->> 'id')""",
    )
    assert serials == [(25, 25)], "each of the 25 points to the keeper of the very row that it pointed to"
    assert restore(connection, repointing, run_id="run-1", check=True).pointed_back == 50
    restored = restore(connection, repointing, run_id="run-1")
    assert (restored.restored, restored.pointed_back) == (25, 50)
    assert pointing(connection) == photos
    assert run(connection, f"SELECT t::text FROM {TABLE} AS t ORDER BY 1") == before


def test_who_was_pointed_elsewhere_since_refuses_the_way_back(
    connection: Connection, repointing: Plan, example: Any, photos: list[tuple[Any, ...]]
) -> None:
    clean_up(connection, repointing)
    history = min(example.history)
    run(
        connection,
        "UPDATE aedpics.photos SET \"Session\" = %s WHERE id = (SELECT min((primary_key ->> 'id')::int)"
        " FROM at_most_one.repointed_row)",
        history,
    )
    left = pointing(connection), run(connection, f"SELECT count(*) FROM {TABLE}")
    for check in (True, False):
        with pytest.raises(OperatorError, match=r"1 of aedpics\.photos: they no longer point"):
            restore(connection, repointing, run_id="run-1", check=check)
    assert (pointing(connection), run(connection, f"SELECT count(*) FROM {TABLE}")) == left


def test_rows_that_stay_as_they_are_pointed_are_named_by_their_whole_key(
    connection: Connection, repointing: Plan, example: Any
) -> None:
    run(
        connection,
        f"CREATE TABLE aedpics.notes (b text, a int, session uuid REFERENCES {TABLE}, PRIMARY KEY (b, a));"
        f"INSERT INTO aedpics.notes SELECT 'x', row_number() OVER (), id FROM {TABLE}",
    )
    clean_up(connection, repointing)
    ((first,),) = run(connection, "SELECT min((primary_key ->> 'a')::int) FROM at_most_one.repointed_row")
    run(connection, "UPDATE aedpics.notes SET session = %s WHERE a = %s", min(example.history), first)
    done = restore(connection, repointing, run_id="run-1", possible=True)
    assert [(left.reason, left.rows) for left in done.left] == [("moved", [[str(first), "x"]])], "a before b"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("DROP TABLE aedpics.photos", "there is no such table any more"),
        ("ALTER TABLE aedpics.photos DROP session_code", "the table no longer has column session_code"),
    ],
)
def test_a_referring_table_or_column_that_is_gone_is_named(
    connection: Connection, repointing: Plan, example: Any, photos: list[tuple[Any, ...]], change: str, words: str
) -> None:
    clean_up(connection, repointing)
    run(connection, change)
    left = run(connection, f"SELECT count(*) FROM {TABLE}")
    for check in (True, False):
        with pytest.raises(OperatorError, match=rf"aedpics\.photos: {words}"):
            restore(connection, repointing, run_id="run-1", check=check)
    assert run(connection, f"SELECT count(*) FROM {TABLE}") == left


@pytest.mark.parametrize(
    ("table", "seen"),
    [
        (f"CREATE TABLE aedpics.photos (session_id uuid REFERENCES {TABLE} (id))", r"photos, which has no primary key"),
        (f"ALTER TABLE {TABLE} ADD COLUMN previous uuid REFERENCES {TABLE} (id)", "from the table itself"),
    ],
)
def test_references_without_a_way_back_are_refused_by_name(
    connection: Connection, repointing: Plan, example: Any, table: str, seen: str
) -> None:
    run(connection, table)
    for check in (True, False):
        with pytest.raises(OperatorError, match=seen):
            clean_up(connection, repointing, check=check)
    assert run(connection, "SELECT to_regnamespace('at_most_one')") == [(None,)]


def test_a_keeper_without_the_value_that_is_referred_to_takes_nobody_over(
    connection: Connection, repointing: Plan, example: Any
) -> None:
    """Left alone, the row would be set to NULL by the removal: the batch stops instead, and nothing of it stays."""
    run(connection, f"ALTER TABLE {TABLE} ADD COLUMN code text UNIQUE")
    run(connection, f"UPDATE {TABLE} SET code = id::text WHERE id = %s", min(example.surplus))
    run(
        connection,
        f"CREATE TABLE aedpics.photos (id int PRIMARY KEY, code text REFERENCES {TABLE} (code) ON DELETE SET NULL)",
    )
    run(connection, "INSERT INTO aedpics.photos VALUES (1, %s)", min(example.surplus))
    with pytest.raises(OperatorError, match=r"1 of aedpics\.photos by photos_code_fkey \(ON DELETE SET NULL\)") as stop:
        clean_up(connection, repointing)
    assert stop.value.details["removed"] == 0
    assert run(connection, "SELECT code FROM aedpics.photos") == [(min(example.surplus),)]


@pytest.mark.parametrize("repoints", [False, True])
def test_who_points_is_found_as_the_foreign_key_compares(
    connection: Connection, plan: Plan, repointing: Plan, example: Any, repoints: bool
) -> None:
    """A key of citext, whose own operator our empty search_path does not find: ``=`` would compare as text."""
    make_citext(connection)
    run(connection, f"ALTER DATABASE {connection.info.dbname} SET search_path = aedpics")  # nor does the service's
    run(connection, f"ALTER TABLE {TABLE} ADD COLUMN code public.citext UNIQUE")
    run(connection, f"UPDATE {TABLE} SET code = upper(id::text)::public.citext")
    run(
        connection,
        f"CREATE TABLE aedpics.photos (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
        f" session_code public.citext REFERENCES {TABLE} (code) ON DELETE CASCADE)",
    )
    run(connection, f"INSERT INTO aedpics.photos (session_code) SELECT lower(code::text)::public.citext FROM {TABLE}")
    ((photos,),) = run(connection, "SELECT count(*) FROM aedpics.photos")
    found = surplus_rows.report(connection, plan)
    assert [(r.constraint, r.rows) for r in found.referenced] == [("photos_session_code_fkey", 25)]
    if repoints:
        assert clean_up(connection, repointing).repointed == 25
    else:
        with pytest.raises(OperatorError, match=r"25 of aedpics\.photos by photos_session_code_fkey"):
            clean_up(connection, plan)
    assert run(connection, "SELECT count(*) FROM aedpics.photos") == [(photos,)]


@pytest.mark.parametrize("one_stays", [False, True])
def test_a_trigger_of_the_referring_table_finds_its_names_both_ways(
    connection: Connection, repointing: Plan, example: Any, photos: list[tuple[Any, ...]], one_stays: bool
) -> None:
    """As in a session of the service; also when a row that cannot return makes the batch go row by row."""
    path = run(connection, "SHOW search_path")
    run(connection, "CREATE TABLE public.moved (photo int)")
    run(
        connection,
        """CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS
           $$BEGIN INSERT INTO moved VALUES (NEW.id); RETURN NEW; END$$;
           CREATE TRIGGER note BEFORE UPDATE ON aedpics.photos FOR EACH ROW EXECUTE FUNCTION public.note()""",
    )
    allowing = replace(repointing, surplus=replace(repointing.surplus, triggers=("note",), writes=("public.moved",)))
    clean_up(connection, allowing)
    assert run(connection, "SELECT count(*) FROM public.moved") == [(50,)]
    if one_stays:
        run(
            connection,
            'SET LOCAL search_path = public; UPDATE aedpics.photos SET "Session" = %s'
            " WHERE id = (SELECT min(photo) FROM moved)",
            min(example.history),
        )
    run(connection, "TRUNCATE public.moved")
    done = restore(connection, allowing, run_id="run-1", possible=True)
    assert (done.pointed_back, [left.reason for left in done.left]) == (50 - one_stays, ["moved"] * one_stays)
    assert run(connection, "SELECT count(*) FROM public.moved") == [(50 - one_stays,)]
    assert run(connection, "SHOW search_path") == path


def test_a_trigger_that_changes_more_of_them_than_the_reference_stops_it_before(
    connection: Connection, repointing: Plan, photos: list[tuple[Any, ...]]
) -> None:
    """Nobody would take back what it writes into the row that is pointed elsewhere and back."""
    run(
        connection,
        """ALTER TABLE aedpics.photos ADD COLUMN touched int NOT NULL DEFAULT 0;
           CREATE FUNCTION public.touch() RETURNS trigger LANGUAGE plpgsql AS
           $$BEGIN NEW.touched := NEW.touched + 1; RETURN NEW; END$$;
           CREATE TRIGGER touch BEFORE UPDATE ON aedpics.photos FOR EACH ROW EXECUTE FUNCTION public.touch()""",
    )
    allowing = replace(repointing, surplus=replace(repointing.surplus, triggers=("touch",)))
    with pytest.raises(OperatorError, match=r"Rows of aedpics.photos .* are not as they were") as stop:
        try_out(connection, allowing)
    assert "trigger touch of aedpics.photos" in stop.value.seen
    run(connection, "ALTER TABLE aedpics.photos DISABLE TRIGGER touch")
    assert try_out(connection, allowing).rows == 5
    assert run(connection, "SELECT DISTINCT touched FROM aedpics.photos") == [(0,)]


def test_of_the_rows_that_refer_to_some_the_first_are_read_and_held(
    connection: Connection,
    login: Login,
    repointing: Plan,
    example: Any,
    photos: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The trial compares them with what they are once they have been there and back."""
    monkeypatch.setattr(references, "_MOST", 2)
    rows = [[row] for row in sorted(example.surplus)[:3]]
    first = sorted([str(number)] for number, session, _ in photos if [session] in rows)[:2]
    with connection.cursor() as cursor:
        found = references.pointing_rows(cursor, repointing, columns_of(cursor, repointing), rows)
        assert [(one.table, [list(key) for key in one.rows]) for one in found] == [("photos", first)] * 2
        change = "UPDATE aedpics.photos SET session_code = NULL WHERE id = %s"
        with connect(login, lock_timeout_ms=50) as other, pytest.raises(psycopg2.errors.LockNotAvailable):
            run(other, change, first[0][0])
        assert references.read_again(cursor, found[0]) == found[0]
        cursor.execute(change, (first[0][0],))
        assert references.read_again(cursor, found[0]) != found[0]
    connection.rollback()


@pytest.mark.parametrize(
    ("primary_key", "then", "refused"),
    [
        ("PRIMARY KEY (id) INCLUDE (note)", "", False),
        ("PRIMARY KEY (id) DEFERRABLE", "", True),
        (
            "PRIMARY KEY (id)",
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'aedpics.notes_pkey'::regclass",
            True,
        ),
        ("UNIQUE (id)", "", True),
    ],
)
def test_the_trial_knows_whose_rows_can_be_pointed_back(
    connection: Connection, repointing: Plan, example: Any, primary_key: str, then: str, refused: bool
) -> None:
    run(
        connection,
        f"CREATE TABLE aedpics.notes (id text, note text, session uuid REFERENCES {TABLE}, {primary_key});"
        f"INSERT INTO aedpics.notes SELECT (row_number() OVER ())::text, 'a', id FROM {TABLE}; {then}",
    )
    before = run(connection, "SELECT * FROM aedpics.notes ORDER BY id")
    if refused:
        with pytest.raises(OperatorError, match="has no primary key, or a deferrable one"):
            try_out(connection, repointing)
        return
    assert try_out(connection, repointing).rows == 5
    assert clean_up(connection, repointing).removed == 25
    assert restore(connection, repointing, run_id="run-1").restored == 25
    assert run(connection, "SELECT * FROM aedpics.notes ORDER BY id") == before


ANOTHER_KEY = (
    "ALTER TABLE aedpics.photos DROP CONSTRAINT photos_pkey, ADD COLUMN uid uuid PRIMARY KEY DEFAULT gen_random_uuid()"
)


@pytest.mark.parametrize(
    ("change", "reason", "name", "words"),
    [
        (ANOTHER_KEY, "key", "id", "their table has no unique index over id any more"),
        ("ALTER TABLE aedpics.photos RENAME TO pictures", "table", "", "there is no such table any more"),
    ],
    ids=["another primary key", "renamed"],
)
def test_rows_that_are_not_known_any_more_are_named_and_all_others_return(
    connection: Connection,
    repointing: Plan,
    example: Any,
    photos: list[tuple[Any, ...]],
    change: str,
    reason: str,
    name: str,
    words: str,
) -> None:
    run(
        connection,
        f"CREATE TABLE aedpics.notes (id int PRIMARY KEY, session uuid REFERENCES {TABLE});"
        f"INSERT INTO aedpics.notes SELECT row_number() OVER (), id FROM {TABLE}",
    )
    before = run(connection, "SELECT n::text FROM aedpics.notes AS n ORDER BY 1")
    clean_up(connection, repointing)
    run(connection, change)
    for check in (True, False):
        done = restore(connection, repointing, run_id="run-1", check=check, possible=True)
        assert (done.restored, done.pointed_back) == (25, 25), "the notes"
        assert [(left.table, left.reason, left.name, left.count) for left in done.left] == [
            ("aedpics.photos", reason, name, 50)
        ]
        assert words in str(done.left[0])
    assert run(connection, "SELECT n::text FROM aedpics.notes AS n ORDER BY 1") == before


def test_a_primary_key_that_goes_between_two_batches_stops_the_next_one(
    connection: Connection, login: Login, repointing: Plan, example: Any, photos: list[tuple[Any, ...]]
) -> None:
    """Who is pointed elsewhere could not be found again."""
    calls: list[None] = []

    def drop(*_: Any) -> float:
        calls.append(None)
        if len(calls) == 2:
            with connect(login) as other:
                run(other, "ALTER TABLE aedpics.photos DROP CONSTRAINT photos_pkey")
        return 0.0

    with pytest.raises(OperatorError, match=r"aedpics\.photos, which has no primary key"):
        clean_up(connection, repointing, pace=Pace(first=4, smallest=4, largest=4), checkpoint=drop)
    assert len(calls) == 2
    gone = run(connection, "SELECT count(*) FROM at_most_one.archived_row")
    assert run(connection, "SELECT count(*) FROM at_most_one.repointed_row WHERE primary_key ? 'id'") == [
        (2 * gone[0][0],)
    ]
    restore(connection, repointing, run_id="run-1", possible=True)
    assert run(connection, "SELECT count(*) FROM aedpics.photos") == [(len(photos),)]
