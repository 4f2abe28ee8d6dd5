"""Which unique index says that an archived row is in its table again: one that every row of the table is in."""

from __future__ import annotations

from at_most_one.duplicates.returning import UniqueKey, unique_key
from at_most_one.postgres.connection import Connection

from tests.database.cleaning import run

# The names of those that do not count come first.
_INDEXES = """
CREATE TABLE aedpics.t (a int NOT NULL, b text COLLATE "POSIX" NOT NULL, d text NOT NULL, more int);
CREATE INDEX a1 ON aedpics.t (a, b, d);
CREATE UNIQUE INDEX a2 ON aedpics.t (a, b, d) WHERE a > 0;
CREATE UNIQUE INDEX a3 ON aedpics.t (a, b, d, (more + 1));
CREATE UNIQUE INDEX a4 ON aedpics.t (a, b, d) INCLUDE (more);
ALTER TABLE aedpics.t ADD CONSTRAINT a5 UNIQUE (a, b, d) DEFERRABLE;
CREATE UNIQUE INDEX a6 ON aedpics.t (a, b, d);
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'aedpics.a6'::regclass;
CREATE UNIQUE INDEX a7 ON aedpics.t (a, b, d, more);
CREATE UNIQUE INDEX a8 ON aedpics.t (a, b);
CREATE TABLE aedpics.beside (LIKE aedpics.t INCLUDING ALL);
CREATE UNIQUE INDEX a9 ON aedpics.beside (a, b, d);
CREATE UNIQUE INDEX z ON aedpics.t (d, b, a);
CREATE UNIQUE INDEX m ON aedpics.t (d, b, a);
"""


def test_it_is_over_exactly_these_columns_and_judges_every_row_at_once(connection: Connection) -> None:
    run(connection, _INDEXES)
    with connection, connection.cursor() as cursor:
        found = unique_key(cursor, "aedpics", "t", ["a", "b", "d"])
        assert found is not None
        equal = "OPERATOR(pg_catalog.=)"
        columns = {"d": (equal, ""), "b": (equal, ' COLLATE pg_catalog."POSIX"'), "a": (equal, "")}
        assert found == UniqueKey("m", columns)
        assert list(found.columns) == ["d", "b", "a"]
        cursor.execute("SAVEPOINT alone; DROP INDEX aedpics.m, aedpics.z")
        without = unique_key(cursor, "aedpics", "t", ["a", "b", "d"])
        assert without is not None
        assert without.index == "a4", "without what it INCLUDEs"
        cursor.execute("ROLLBACK TO SAVEPOINT alone")
        cursor.execute("ALTER TABLE aedpics.t ADD CONSTRAINT zz PRIMARY KEY (b, d, a)")
        primary = unique_key(cursor, "aedpics", "t", ["a", "b", "d"])
        assert primary is not None
        assert primary.index == "zz"
        assert unique_key(cursor, "aedpics", "t", ["a", "more"]) is None
