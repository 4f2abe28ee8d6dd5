"""Definitions that almost match: generated, built for real, and judged; not one verdict may be wrong.

The plan's index is drawn at random, and from it one thing that somebody else may have made: a near miss, or the same
index in other words. Both are in a schema, a table and columns whose names need quoting; a second schema holds a table,
a type and a function of the same names. Whoever builds and whoever inspects has a search_path of their own.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from at_most_one.indexes import verification
from at_most_one.plan import Plan, parse
from at_most_one.postgres.connection import Connection, Login, connect
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.database.near_miss_kinds import MISSES, equivalent
from tests.database.near_misses import (
    INDEX,
    OTHER,
    SCHEMA,
    STATES,
    STATUS,
    TABLE,
    TWIN,
    TYPES,
    VALUES,
    Definition,
    Miss,
    definition,
    quoted,
)  # fmt: skip

AT_LEAST = 200
PATHS = ("", quoted(SCHEMA), OTHER, f"{OTHER}, {quoted(SCHEMA)}", f"{quoted(SCHEMA)}, {OTHER}", "public, pg_catalog")


@pytest.fixture
def both_schemas(login: Login) -> Iterator[Connection]:
    with connect(login) as connection, connection.cursor() as cursor:
        for schema in (quoted(SCHEMA), OTHER):
            labels = ", ".join(f"'{label}'" for label in VALUES[STATES])
            cursor.execute(f"CREATE SCHEMA {schema}; CREATE TYPE {schema}.{quoted(STATUS)} AS ENUM ({labels})")
            cursor.execute(f"CREATE FUNCTION {schema}.fold(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1'")
            columns = ", ".join(f"{quoted(name)} {type_.format(schema=schema)}" for name, type_ in TYPES.items())
            for table in (TABLE, TWIN):
                cursor.execute(f"CREATE TABLE {schema}.{quoted(table)} (id int PRIMARY KEY, {columns})")
        connection.commit()
        yield connection


def plan_of(plan_data: dict[str, Any], base: Definition) -> Plan:
    rule = {"name": "the rule", "unique": True, "columns": ["id"], "predicate": "id > 0"}
    changes = {"schema": SCHEMA, "table": TABLE, "primary_key": ["id"], "key": ["id"], "show": [],
               "predicate": "id > 0", "keep": [{"column": "id", "direction": "asc", "nulls": "last"}],
               "indexes": [rule, base.planned()], "family": {"pattern": "^Near-Miss"}}  # fmt: skip
    return parse({**plan_data, **changes})


def make(connection: Connection, miss: Miss, path: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_catalog.set_config('search_path', %s, true)", (path,))
        for statement in miss.statements:
            if statement == "RESTORE":  # what pg_dump writes, and under its search_path
                cursor.execute("SELECT pg_catalog.set_config('search_path', '', true)")
                name = f"{quoted(SCHEMA)}.{quoted(INDEX)}"
                cursor.execute("SELECT pg_get_indexdef(%s::regclass)", (name,))
                ((statement,),) = cursor.fetchall()
                cursor.execute(f"DROP INDEX {name}")
            cursor.execute(statement)


def judge(connection: Connection, plan: Plan, path: str) -> verification.Verdict:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_catalog.set_config('search_path', %s, true)", (path,))
    return next(found for found in verification.inspect(connection, plan).verdicts if found.name == INDEX)


def check(found: verification.Verdict, miss: Miss) -> None:
    assert (found.verdict, {part.part for part in found.parts}) == (miss.verdict, set(miss.parts))
    said = {part.part for part in found.parts if part.seen.endswith("(the same parts in another order)")}
    assert said == (set(miss.parts) if miss.only_order else set())


@pytest.mark.versions
def test_no_generated_near_miss_gets_a_wrong_verdict(
    both_schemas: Connection, plan_data: dict[str, Any], record_property: Callable[[str, object], None]
) -> None:
    version = both_schemas.server_version
    judged: set[tuple[Any, ...]] = set()
    same: set[tuple[Any, ...]] = set()
    kinds: Counter[str] = Counter()

    @settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(
        st.integers(0, 2**63), st.sampled_from((*MISSES, equivalent)), st.sampled_from(PATHS), st.sampled_from(PATHS)
    )
    def one(seed: int, kind: Callable[..., Iterator[Miss]], builds: str, inspects: str) -> None:
        chance = random.Random(seed)
        base = definition(chance, version)
        cases = list(kind(base, chance, version))
        plan = plan_of(plan_data, base)
        for miss in chance.sample(cases, min(2, len(cases))):
            try:
                make(both_schemas, miss, builds)
                check(judge(both_schemas, plan, inspects), miss)
            except AssertionError as wrong:
                raise AssertionError(f"{miss.kind}: {miss.statements}\nplanned: {base.planned()}\n{wrong}") from None
            finally:
                both_schemas.rollback()
            kinds[miss.kind] += 1
            (same if miss.verdict == "present" else judged).add((base, miss.statements))

    one()
    record_property(
        "summary",
        f"near misses: {len(judged)} different ones of {len(kinds)} kinds, and {len(same)} other spellings of the "
        f"planned index: 0 wrong verdicts (PostgreSQL {version // 10_000})",
    )
    assert len(judged) >= AT_LEAST
    assert len(same) >= 20
