"""Where a statement ends and whether it builds an index: decided by PostgreSQL's lexical rules, not by semicolons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from at_most_one import migration_sql
from at_most_one.migration_sql import CreateIndex, split
from at_most_one.plan import Plan, parse

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "lab/app-after/prisma/migrations/20251110_add_partial_unique_indexes/migration.sql"


@pytest.fixture
def plan() -> Plan:
    data: Any = yaml.safe_load((ROOT / "plans/one-active-inspection-session.yml").read_text())
    return parse(data)


@pytest.mark.parametrize(
    ("text", "beginnings"),
    [
        ("", []),
        (" ; ;\n;", []),
        ("-- only a comment; SELECT 1;", []),
        ("/* a; /* nested; */ still; */", []),
        ("SELECT 1; SELECT 2", ["SELECT 1", "SELECT 2"]),
        ("select ';'; update t set a = 1", ["SELECT ';'", "UPDATE T"]),
        ("SELECT 'it''s;'; VACUUM", ["SELECT 'it''s;'", "VACUUM"]),
        (r"SELECT E'\';'; VACUUM", [r"SELECT E'\';'", "VACUUM"]),
        (r"SELECT '\'; VACUUM", [r"SELECT '\'", "VACUUM"]),  # no escape without the E
        ('ALTER "t;a""b"; VACUUM', ['ALTER "t;a""b"', "VACUUM"]),
        ("DO $$ BEGIN; END $$; VACUUM", ["DO $$ BEGIN; END $$", "VACUUM"]),
        ("DO $a$ ; $$ ; $b$ ; $a$; VACUUM", ["DO $a$ ; $$ ; $b$ ; $a$", "VACUUM"]),
        ("SELECT a$b$c; VACUUM", ["SELECT A$B$C", "VACUUM"]),  # a dollar inside a name opens no quote
        ("SELECT $1; VACUUM", ["SELECT $", "VACUUM"]),
        ("VACUUM -- a; b\n; SELECT 1", ["VACUUM", "SELECT 1"]),
        ("VACUUM /* a; */ t; SELECT 1", ["VACUUM T", "SELECT 1"]),
        ("\ufeffSELECT 1", ["\ufeff SELECT"]),  # PostgreSQL refuses it as well
        ("SELECT 1; /* open; SELECT 2;", ["SELECT 1", "something that never ends: /* open; SELECT 2;"]),
        ("SELECT 'open; SELECT 2;", ["something that never ends: 'open; SELECT 2;"]),
        ('SELECT "open; SELECT 2;', ['something that never ends: "open; SELECT 2;']),
        ("DO $x$ open; SELECT 2; $y$", ["something that never ends: $x$ open; SELECT 2; "]),
    ],
)
def test_where_statements_end(text: str, beginnings: list[str]) -> None:
    statements = split(text)
    assert [statement.beginning for statement in statements] == beginnings
    assert [statement.number for statement in statements] == list(range(1, len(beginnings) + 1))
    assert all(statement.index is None for statement in statements)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CREATE INDEX i ON t (a)", CreateIndex("i", None, "t", False, False, "(a)")),
        ("create unique index I on S.T using btree (a)", CreateIndex("i", "s", "t", True, False, "using btree (a)")),
        (
            'CREATE INDEX CONCURRENTLY IF NOT EXISTS "I" ON "a s"."T""" ("x;") WHERE y = \';\' -- end;',
            CreateIndex("I", "a s", 'T"', False, True, "(\"x;\") WHERE y = ';' -- end;"),
        ),
        ("CREATE/**/INDEX/*;*/i--;\nON t/* a */(a)", CreateIndex("i", None, "t", False, False, "(a)")),
    ],
)
def test_what_an_index_statement_says(text: str, expected: CreateIndex) -> None:
    (statement,) = split(text)
    assert statement.index == expected
    first, _ = split(f"{text}\n; VACUUM")
    assert first.index is not None
    assert first.index.rest.strip() == expected.rest


@pytest.mark.parametrize(
    "text",
    [
        "CREATE INDEX ON t (a)",  # PostgreSQL would make a name up
        "CREATE INDEX i ON ONLY t (a)",
        "CREATE INDEX i ON t",
        "CREATE INDEX i",
        "CREATE INDEX",
        'CREATE INDEX U&"i" ON t (a)',
        "CREATE TABLE i (a int)",
        "CREATE UNIQUE TABLE",
        "DROP INDEX i",
        "CREATE INDEX i ON t (a) WHERE b = 'open",
    ],
)
def test_what_is_not_recognised(text: str) -> None:
    (statement,) = split(text)
    assert statement.index is None


def test_the_shipped_migration_does_what_its_plan_says_and_nothing_else(plan: Plan) -> None:
    statements = split(SHIPPED.read_text())
    assert [statement.index and statement.index.name for statement in statements] == [i.name for i in plan.indexes]
    assert migration_sql.beyond(statements, plan) == []


@pytest.mark.parametrize(
    ("more", "phrase"),
    [
        ("ALTER TABLE t ADD COLUMN a int;", "statement 4 begins with ALTER TABLE"),
        ("CREATE INDEX other ON t (a);", "statement 4 builds other, which the plan does not name"),
        (
            "CREATE INDEX idx_inspection_schedules_active ON t (a);",
            "statement 4 builds idx_inspection_schedules_active a second time",
        ),
        ("COMMIT;", "statement 4 begins with COMMIT"),
        ("SELECT 'open", "statement 4 begins with something that never ends: 'open"),
    ],
)
def test_whatever_else_a_migration_does_is_named(plan: Plan, more: str, phrase: str) -> None:
    assert migration_sql.beyond(split(SHIPPED.read_text() + more), plan) == [phrase]


def test_an_index_that_nobody_builds_is_named(plan: Plan) -> None:
    assert migration_sql.beyond((), plan) == [
        f"no statement builds {name}" for name in sorted(index.name for index in plan.indexes)
    ]
