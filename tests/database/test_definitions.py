"""An index that came back from a backup is the same index; one that only looks the same is not.

PostgreSQL renders more casts than it was given, and renders them again differently once its own rendering was parsed.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from at_most_one.indexes import definitions, verification
from at_most_one.plan import Plan, parse
from at_most_one.postgres.connection import Connection, Login, connect

from tests.database.citext import make_citext
from tests.support.postgres import Server

TYPES = {
    "v": "varchar(20)",
    "t": "text",
    "e": "aedpics.session_status",
    "d": "aedpics.word",  # a domain over varchar
    "c": "public.citext",
    "f": "char(8)",
    "n": "numeric(6,2)",
    "b": "boolean",
    "at": "timestamptz",
    "many": "varchar(9)[]",
}
# Key, and predicate; each in the words a person would write.
DEFINITIONS: list[tuple[list[Any], str | None]] = [
    *(([column], f"{column} IN ('active', 'paused')") for column in "vtedcf"),
    *(([column], f"{column} NOT IN ('cancelled')") for column in "vtedcf"),
    *(([column], f"{column} = ANY (ARRAY['active', 'paused']::text[])") for column in "vtc"),
    *(([column], f"{column} <> 'active' AND ({column} LIKE 'p%' OR {column} IS NULL)") for column in "vtdcf"),
    *(([column], None) for column in TYPES),
    (["v", "n"], "n BETWEEN 1 AND 2.50 AND NOT b"),
    (["v"], "v::text IN ('a', 'b') AND n IN (1, 2.5) AND at > '2025-11-10 00:00+09'"),
    (["v"], "coalesce(v, t, 'x') IN ('a', 'b') AND CASE v WHEN 'a' THEN b ELSE true END"),
    (["v"], "v = ANY (many) AND 'x' <> ALL (many)"),
    (["v"], "(v, t) = ('a', 'b') OR v ~ '^[ab]' OR v SIMILAR TO 'a%'"),
    ([{"expression": "lower(v)"}, {"expression": "v || '-' || d"}, "e"], "substring(v from 1 for 2) IN ('AE', 'ae')"),
    ([{"expression": "(CASE WHEN v IN ('a', 'b') THEN v ELSE 'other' END)"}], "upper(d) IN ('A', 'B')"),
    ([{"expression": "at AT TIME ZONE 'Asia/Seoul'"}], "e = 'active'"),
    ([{"column": "v", "opclass": "varchar_pattern_ops", "collation": "pg_catalog.C", "order": "desc"}], "v > 'a'"),
]


@pytest.fixture
def table(login: Login) -> Iterator[Connection]:
    with connect(login) as connection:
        make_citext(connection)
        with connection, connection.cursor() as cursor:
            cursor.execute("CREATE DOMAIN aedpics.word AS varchar(30) CHECK (VALUE <> '')")
            columns = ", ".join(f"{name} {type_}" for name, type_ in TYPES.items())
            cursor.execute(f"CREATE TABLE aedpics.words (id int PRIMARY KEY, {columns})")
        yield connection


@pytest.fixture
def words(plan_data: dict[str, Any]) -> Plan:
    """All definitions as one plan; the rule is the first of them."""
    declared = [
        {"name": f"words_{n}", "unique": n == 0, "columns": columns, **({"predicate": where} if where else {})}
        for n, (columns, where) in enumerate(DEFINITIONS)
    ]
    first, predicate = DEFINITIONS[0]
    changes = {"table": "words", "primary_key": ["id"], "key": first, "predicate": predicate, "show": [],
               "keep": [{"column": "id", "direction": "asc", "nulls": "last"}], "indexes": declared,
               "family": {"pattern": "^words_", "neighbours": ["words_pkey"]}}  # fmt: skip
    return parse({**plan_data, **changes})


def build(connection: Connection, plan: Plan) -> None:
    with connection, connection.cursor() as cursor:
        for index in plan.indexes:
            cursor.execute(definitions.create_statement(index, plan.schema))


def faults(connection: Connection, plan: Plan) -> list[str]:
    with connection:
        return verification.inspect(connection, plan).faults()


def restore_from_renderings(connection: Connection) -> int:
    """What pg_dump writes is pg_get_indexdef(), and what a restore does is to execute it. Returns how many changed."""
    query = "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = %s::regclass"
    with connection, connection.cursor() as cursor:
        cursor.execute(query + " AND NOT indisprimary", ("aedpics.words",))
        before = dict(cursor.fetchall())
        for name, definition in before.items():
            cursor.execute(f"DROP INDEX {name}; {definition}")
        cursor.execute(query, ("aedpics.words",))
        after = dict(cursor.fetchall())
    return sum(after[name] != definition for name, definition in before.items())


@pytest.mark.versions
def test_restored_once_or_often_it_is_the_same_index(table: Connection, words: Plan) -> None:
    build(table, words)
    assert faults(table, words) == []
    assert restore_from_renderings(table) > 0, "no rendering changed: the test would prove nothing"
    assert faults(table, words) == []
    restore_from_renderings(table)
    assert faults(table, words) == []


@pytest.mark.versions
@pytest.mark.parametrize(
    ("where", "remark"),
    [
        ("v IN ('paused', 'active')", "the same parts in another order"),
        ("v IN ('active', 'paused ')", None),
        ("v IN ('active', 'PAUSED')", None),
        ("v NOT IN ('active', 'paused')", None),
        ("v IN ('active')", None),
        ("v::char(6) IN ('active', 'paused')", None),  # blanks at the end would not count
        ("v::char(3) IN ('active', 'paused')", None),
        ("v::varchar(3) IN ('active', 'paused')", None),
        ("v::public.citext IN ('active', 'paused')", None),  # nor upper and lower case
        ("v COLLATE \"C\" IN ('active', 'paused')", None),
        ("t IN ('active', 'paused')", None),
        ("v IN ('active', 'paused') OR v IS NULL", None),
    ],
)
def test_restored_or_not_another_predicate_stays_different(
    table: Connection, words: Plan, where: str, remark: str | None
) -> None:
    only = replace(words, indexes=(words.rule_index,))
    with table, table.cursor() as cursor:
        cursor.execute(f"CREATE UNIQUE INDEX words_0 ON aedpics.words (v) WHERE {where}")
    for _ in range(3):
        with table:
            (found,) = verification.inspect(table, only).verdicts
        assert (found.verdict, [part.part for part in found.parts]) == ("different", ["predicate"])
        assert found.parts[0].seen.endswith("(the same parts in another order)") == (remark is not None)
        restore_from_renderings(table)


def test_an_index_whose_expression_could_not_be_built_any_more_is_compared_as_it_is(
    table: Connection, words: Plan
) -> None:
    only = replace(words, indexes=(words.rule_index,))
    with table, table.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION aedpics.same(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1';"
            "CREATE UNIQUE INDEX words_0 ON aedpics.words (v) WHERE aedpics.same(v) IN ('active', 'paused');"
            "ALTER FUNCTION aedpics.same VOLATILE"
        )
    with table:
        (found,) = verification.inspect(table, only).verdicts
    assert (found.verdict, [part.part for part in found.parts]) == ("different", ["predicate"])


def dump_and_restore(server: Server, login: Login, target: str) -> Login:
    """The real thing, into another database."""
    server.run(f"CREATE DATABASE {target}")
    environment = {**os.environ, "PGPASSWORD": login.password, "PGHOST": login.host, "PGPORT": str(login.port),
                   "PGUSER": login.user, "PGOPTIONS": ""}  # fmt: skip
    dumped = subprocess.run(
        [server.binaries / "pg_dump", "--dbname", login.dbname], env=environment, check=True, capture_output=True
    )
    subprocess.run(
        [server.binaries / "psql", "--dbname", target, "--quiet", "--set", "ON_ERROR_STOP=1"],
        env=environment, check=True, input=dumped.stdout, capture_output=True,
    )  # fmt: skip
    return replace(login, dbname=target)


@pytest.mark.pg_dump
@pytest.mark.usefixtures("example")
def test_a_database_that_came_from_pg_dump_is_exact(
    server: Server, login: Login, table: Connection, words: Plan, plan: Plan
) -> None:
    build(table, words)
    with table, table.cursor() as cursor:
        cursor.execute("DELETE FROM aedpics.inspection_sessions")
    build(table, plan)
    once = dump_and_restore(server, login, f"{login.dbname}_once")
    twice = dump_and_restore(server, once, f"{login.dbname}_twice")
    try:
        for restored in (once, twice):
            with connect(restored) as connection:
                assert faults(connection, words) == []
                assert faults(connection, plan) == []
    finally:
        server.run(*(f"DROP DATABASE {restored.dbname} WITH (FORCE)" for restored in (once, twice)))
