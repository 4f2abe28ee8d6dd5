"""Where a statement ends and whether it builds an index: decided by PostgreSQL's lexical rules, not by semicolons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from at_most_one.migration import scope
from at_most_one.plan import Plan, parse
from at_most_one.prisma.migration_sql import (
    Action,
    CommentOnIndex,
    CreateIndex,
    DropIndex,
    SetSearchPath,
    Transaction,
    split,
)

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
    assert all(statement.action is None for statement in statements)


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
        "CREATE INDEX i ON t (a) WHERE b = 'open",
        "DROP INDEX i",
        "DROP INDEX IF EXISTS i CASCADE",
        "DROP INDEX IF EXISTS i j",
        "DROP INDEX IF EXISTS i,",
        "DROP INDEX IF EXISTS a.b.c",
        "DROP TABLE IF EXISTS i",
        "COMMENT ON INDEX i IS",
        "COMMENT ON INDEX i IS 'a'\n'b'",
        "COMMENT ON INDEX i IS U&'a'",
        "COMMENT ON TABLE i IS 'a'",
        "SET search_path = DEFAULT",
        "SET search_path = s, DEFAULT",
        "SET search_path = s p",
        "SET search_path = ''",
        "SET search_path FROM CURRENT",
        "SET lock_timeout = 5",
        "RESET search_path",
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
        "START",
        "ROLLBACK",
        "COMMIT PREPARED 'a'",
    ],
)
def test_what_is_not_recognised(text: str) -> None:
    (statement,) = split(text)
    assert statement.action is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("DROP INDEX IF EXISTS i", DropIndex(((None, "i"),))),
        (
            'drop index concurrently if exists S.I, "J""k" restrict',
            DropIndex((("s", "i"), (None, 'J"k'))),
        ),
        ("COMMENT ON INDEX s.i IS 'it''s; this'", CommentOnIndex("i", "s", "'it''s; this'")),
        ("COMMENT ON INDEX i IS $a$b;$a$", CommentOnIndex("i", None, "$a$b;$a$")),
        ("comment on index i is null", CommentOnIndex("i", None, "null")),
        ("SET search_path = aedpics", SetSearchPath(("aedpics",))),
        ('SET SESSION search_path TO "Aed Pics", public', SetSearchPath(("Aed Pics", "public"))),
        ("SET LOCAL SEARCH_PATH TO 'aedpics', \"$user\"", SetSearchPath(("aedpics", "$user"))),
        ("BEGIN", Transaction(True)),
        ("start transaction", Transaction(True)),
        ("BEGIN WORK", Transaction(True)),
        ("COMMIT TRANSACTION", Transaction(False)),
        ("END", Transaction(False)),
    ],
)
def test_what_other_statements_do(text: str, expected: Action) -> None:
    (statement,) = split(f"/* first */ {text} -- last")
    assert statement.action == expected


def test_the_search_path_is_that_of_the_script_so_far() -> None:
    statements = split(
        "CREATE INDEX i ON t (a); SET search_path = a, b; DROP INDEX IF EXISTS i; SET search_path TO c; END"
    )
    assert [statement.search_path for statement in statements] == [(), (), ("a", "b"), ("a", "b"), ("c",)]


def test_the_shipped_migration_does_what_its_plan_says_and_nothing_else(plan: Plan) -> None:
    statements = split(SHIPPED.read_text())
    assert [found.index.name for found in statements if found.index] == [index.name for index in plan.indexes]
    assert scope.beyond(statements, plan) == []


RULE, DATE, ACTIVE = (
    "idx_inspection_sessions_active_session_per_equipment",
    "idx_inspection_schedules_equipment_date",
    "idx_inspection_schedules_active",
)
PLAIN = "".join(f"CREATE INDEX {name} ON t (a);" for name in (RULE, DATE, ACTIVE))


@pytest.mark.parametrize(
    "text",
    [
        f"BEGIN; SET LOCAL search_path TO aedpics; {PLAIN} COMMIT;",
        f"SET search_path = 'aedpics', public; DROP INDEX IF EXISTS {ACTIVE}, aedpics.{RULE}; {PLAIN}",
        f"{PLAIN} COMMENT ON INDEX aedpics.{RULE} IS 'one'; COMMENT ON INDEX {RULE} IS NULL",
        PLAIN.replace("INDEX", "INDEX CONCURRENTLY IF NOT EXISTS"),
    ],
)
def test_what_belongs_to_building_the_indexes(plan: Plan, text: str) -> None:
    assert scope.beyond(split(text), plan) == []


@pytest.mark.parametrize(
    ("before", "after", "phrase"),
    [
        ("", "ALTER TABLE t ADD COLUMN a int;", "statement 4 begins with ALTER TABLE"),
        ("", "CREATE INDEX other ON t (a);", "statement 4 builds other, which the plan does not name"),
        ("", f"CREATE INDEX {ACTIVE} ON t (a);", f"statement 4 builds {ACTIVE} a second time"),
        ("", "COMMIT;", "statement 4 ends a transaction that no statement has begun"),
        ("BEGIN;", "", "statement 1 begins a transaction that no statement ends"),
        ("BEGIN;", "START TRANSACTION; COMMIT", "statement 5 begins a transaction inside that of statement 1"),
        ("", "SELECT 'open", "statement 4 begins with something that never ends: 'open"),
        (
            "SET search_path = public, aedpics;",
            "",
            "statement 1 sets search_path to public, aedpics, which does not begin",
        ),
        ("DROP INDEX IF EXISTS other;", "", "statement 1 drops other, which the plan does not name"),
        (f"DROP INDEX IF EXISTS public.{RULE};", "", f"statement 1 drops public.{RULE}, which the plan does not name"),
        (f"DROP INDEX {RULE};", "", "statement 1 begins with DROP INDEX"),
        ("", f"DROP INDEX IF EXISTS {RULE};", f"statement 4 drops {RULE} after it was built"),
        (f"COMMENT ON INDEX {RULE} IS 'a';", "", f"statement 1 comments on {RULE} before it is built"),
        ("", "COMMENT ON INDEX other IS 'a';", "statement 4 comments on other, which the plan does not name"),
    ],
)
def test_whatever_else_a_migration_does_is_named(plan: Plan, before: str, after: str, phrase: str) -> None:
    (found,) = scope.beyond(split(before + PLAIN + after), plan)
    assert found.startswith(phrase)


def test_the_last_comment_counts_and_a_lost_index_is_found() -> None:
    comments = f"COMMENT ON INDEX {RULE} IS 'a'; COMMENT ON INDEX {RULE} IS 'b';"
    again = f"DROP INDEX IF EXISTS {DATE}, {ACTIVE}; CREATE INDEX {ACTIVE} ON t (a)"
    statements = split(f"DROP INDEX IF EXISTS {RULE}; {PLAIN} {comments} {again}")
    assert [comment.text for comment in scope.comments(statements)] == ["'b'"]
    assert scope.lost(statements) == [(7, DATE)]


def test_an_index_that_nobody_builds_is_named(plan: Plan) -> None:
    assert scope.beyond((), plan) == [
        f"no statement builds {name}" for name in sorted(index.name for index in plan.indexes)
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("SELECT 1", []),
        (f"DROP INDEX {RULE}", [(1, RULE)]),
        (f'SELECT 1; DROP INDEX IF EXISTS "aedpics"."{RULE}"', [(2, RULE)]),
        (f"DROP INDEX {RULE.upper()}", [(1, RULE)]),  # folded
        (f'DROP INDEX "{RULE.upper()}"', []),  # another index
        (f"-- DROP INDEX {RULE};\nSELECT 1", []),
        (f"DROP INDEX a, {RULE} CASCADE", [(1, RULE)]),
        (f"CREATE UNIQUE INDEX {RULE} ON inspection_sessions (equipment_serial)", [(1, RULE)]),
        (f"ALTER INDEX {RULE} RENAME TO x", [(1, RULE)]),
        (f"COMMENT ON INDEX {RULE} IS 'the rule'", []),
        (f"DO $$ BEGIN EXECUTE 'DROP INDEX {RULE}'; END $$", [(1, RULE)]),
        (f"DO $do$ BEGIN DROP INDEX {RULE}; END $do$", [(1, RULE)]),
        ("DROP TABLE inspection_sessions", [(1, RULE)]),
        ("DROP TABLE inspection_photos", []),
        ("ALTER TABLE inspection_sessions DROP COLUMN equipment_serial", [(1, RULE)]),
        ('ALTER TABLE "inspection_sessions" DROP COLUMN "status"', [(1, RULE)]),  # of the predicate
        ("ALTER TABLE inspection_sessions DROP COLUMN notes", []),
        ("ALTER TABLE inspection_sessions ADD COLUMN status2 text", []),
        ("DROP SCHEMA aedpics CASCADE", [(1, RULE), (1, DATE), (1, ACTIVE)]),
    ],
)
def test_what_another_migration_does_to_a_planned_index(plan: Plan, text: str, found: list[tuple[int, str]]) -> None:
    assert scope.against(split(text), plan) == found
