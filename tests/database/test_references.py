"""Foreign keys into the planned table, as the catalog has them: each column beside the one that it refers to."""

from __future__ import annotations

from dataclasses import replace

from at_most_one.duplicates.references import foreign_keys
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Connection

from tests.database.cleaning import run


def test_they_are_read_in_the_order_of_their_columns_and_no_others(connection: Connection, plan: Plan) -> None:
    run(
        connection,
        """CREATE TABLE aedpics.t (a int, b text COLLATE "POSIX", c text UNIQUE CHECK (c <> ''), PRIMARY KEY (b, a));
        CREATE TABLE aedpics.pointing (x int, y text, z text CONSTRAINT one REFERENCES aedpics.t (c),
            CONSTRAINT two FOREIGN KEY (y, x) REFERENCES aedpics.t (b, a) ON DELETE SET NULL) PARTITION BY LIST (x);
        CREATE TABLE aedpics.pointing_1 PARTITION OF aedpics.pointing FOR VALUES IN (1);
        CREATE SCHEMA other;
        CREATE TABLE other.t (LIKE aedpics.t INCLUDING ALL);
        CREATE TABLE other.beside (LIKE aedpics.t INCLUDING ALL);
        CREATE TABLE other.pointing (x int, y text, FOREIGN KEY (y, x) REFERENCES other.t,
            FOREIGN KEY (y, x) REFERENCES other.beside)""",
    )
    with connection, connection.cursor() as cursor:
        found = foreign_keys(cursor, replace(plan, table="t"))
    equal = " OPERATOR(pg_catalog.=)"
    assert found == [
        ("one", "aedpics", "pointing", ["z"], ["c"], "a", [equal]),
        ("two", "aedpics", "pointing", ["y", "x"], ["b", "a"], "n", [f'COLLATE pg_catalog."POSIX"{equal}', equal]),
    ]
