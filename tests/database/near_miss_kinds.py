"""The ways to miss a definition, and the ways to write the same one: each a function to the cases that it allows."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.database.near_misses import (
    GROUPS,
    INDEX,
    OPERATORS,
    OTHER,
    PATTERN_OPS,
    RANGES,
    SCHEMA,
    TABLE,
    TEXTS,
    TWIN,
    TYPES,
    VALUES,
    Condition,
    Definition,
    Key,
    Miss,
    condition,
    group,
    quoted,
)  # fmt: skip

Kind = Callable[[Definition, random.Random, int], Iterator[Miss]]
_NAME = f"{quoted(SCHEMA)}.{quoted(INDEX)}"
_REGCLASS = "'" + _NAME.replace("'", "''") + "'::regclass"


def _made(kind: str, made: Definition, *parts: str, only_order: bool = False) -> Miss:
    return Miss(kind, (made.statement(),), frozenset(parts), only_order=only_order)


def columns(base: Definition, chance: random.Random, _version: int) -> Iterator[Miss]:
    keys, spare = base.keys, [name for name in TYPES if name not in {key.column for key in base.keys} - {*RANGES}]
    plain_spare = [name for name in spare if name not in RANGES]
    if len(keys) > 1:
        yield _made("column order", replace(base, keys=(keys[-1], *keys[1:-1], keys[0])), "columns", only_order=True)
        yield _made("a column less", replace(base, keys=keys[:-1]), "columns")
    yield _made("another column", replace(base, keys=(Key(chance.choice(plain_spare)), *keys[1:])), "columns")
    yield _made("a column more", replace(base, keys=(*keys, Key(chance.choice(plain_spare)))), "columns")
    place = chance.randrange(len(keys))
    if group(keys[place].column) is TEXTS:
        other = replace(keys[place], folded=not keys[place].folded)
        yield _made("a function of it", replace(base, keys=(*keys[:place], other, *keys[place + 1 :])), "columns")
        if keys[place].folded:
            statement = base.statement(fold=f"{OTHER}.fold")
            yield Miss("another schema's function", (statement,), frozenset({"columns"}))


def key_options(base: Definition, chance: random.Random, _version: int) -> Iterator[Miss]:
    place = chance.randrange(len(base.keys))
    key = base.keys[place]

    def made(kind: str, part: str, **changes: object) -> Miss:
        other = replace(key, **changes)  # type: ignore[arg-type]  # the fields' own types
        return _made(kind, replace(base, keys=(*base.keys[:place], other, *base.keys[place + 1 :])), part)

    yield made("order", "order", descending=not key.descending)
    yield made("nulls", "order", nulls_first=not key.nulls_first)
    if group(key.column) in PATTERN_OPS:
        pattern = PATTERN_OPS[group(key.column)]
        yield made("operator class", "opclass", opclass=None if key.opclass else pattern)
        yield made("collation", "collation", collation="POSIX" if key.collation == "C" else "C")


def predicate(base: Definition, chance: random.Random, _version: int) -> Iterator[Miss]:
    conditions = base.conditions
    more = condition(chance)
    if more.column not in {one.column for one in conditions}:
        yield _made("a condition more", replace(base, conditions=(*conditions, more)), "predicate")
    if not conditions:
        return
    yield _made("no predicate", replace(base, conditions=()), "predicate")
    yield _made("negated", replace(base, negated=True), "predicate")
    if len(conditions) > 1:
        yield _made("a condition less", replace(base, conditions=conditions[1:]), "predicate")
        yield _made("conditions in another order", replace(base, conditions=conditions[::-1]), "predicate",
                    only_order=True)  # fmt: skip
        yield _made("or instead of and", replace(base, joined_by=" OR "), "predicate")
    place = chance.randrange(len(conditions))
    one = conditions[place]

    def made(kind: str, other: Condition, *, only_order: bool = False) -> Miss:
        changed = (*conditions[:place], other, *conditions[place + 1 :])
        return _made(kind, replace(base, conditions=changed), "predicate", only_order=only_order)

    yield made("operator", replace(one, operator=OPERATORS[one.operator]))
    (other_column,) = [name for name in group(one.column) if name != one.column]
    yield made("a condition on another column", replace(one, column=other_column))
    unused = [value for value in VALUES[group(one.column)] if value not in one.values]
    if one.values and unused:
        yield made("constant", replace(one, values=(chance.choice(unused), *one.values[1:])))
    if one.operator in ("IN", "NOT IN"):
        yield made("values in another order", replace(one, values=(*one.values[1:], one.values[0])), only_order=True)
        if len(one.values) > 2:
            yield made("a value less", replace(one, values=one.values[1:]))
        if unused:
            yield made("a value more", replace(one, values=(*one.values, chance.choice(unused))))


def whole(base: Definition, chance: random.Random, version: int) -> Iterator[Miss]:
    spare = [name for name in TYPES if name not in {*base.include, *(key.column for key in base.keys)}]
    yield _made("an included column more", replace(base, include=(*base.include, chance.choice(spare))), "include")
    if base.include:
        yield _made("an included column less", replace(base, include=base.include[1:]), "include")
    if not base.nulls_not_distinct:
        yield _made("uniqueness", replace(base, unique=not base.unique), "unique")
    if base.unique and version >= 150_000:
        other = replace(base, nulls_not_distinct=not base.nulls_not_distinct)
        yield _made("nulls not distinct", other, "nulls_not_distinct")
    (first, *others) = base.keys
    if not others and first == replace(first, descending=False, nulls_first=False, opclass=None):
        parts = ["method", *(["unique"] * base.unique), *(["nulls_not_distinct"] * base.nulls_not_distinct)]
        bare = replace(base, unique=False, nulls_not_distinct=False)
        if not base.include:
            yield _made("method hash", replace(bare, method="hash"), *parts)
        if first.column in RANGES:
            yield _made("method gist", replace(bare, method="gist"), *parts)
    if deferrable := base.constraint("DEFERRABLE"):
        yield Miss("deferrable", (deferrable,), frozenset({"deferrable"}))


def place(base: Definition, _chance: random.Random, _version: int) -> Iterator[Miss]:
    elsewhere = base.statement(table=f"{quoted(SCHEMA)}.{quoted(TWIN)}")
    yield Miss("another table", (elsewhere,), frozenset({"table"}))
    yield Miss("another schema", (base.statement(table=f"{OTHER}.{quoted(TABLE)}"),), verdict="missing")
    unqualified = (f"SET LOCAL search_path = {OTHER}, {quoted(SCHEMA)}", base.statement(table=quoted(TABLE)))
    yield Miss("another schema, by search_path", unqualified, verdict="missing")
    yield Miss("nothing", (), verdict="missing")
    yield Miss("a view", (f"CREATE VIEW {_NAME} AS SELECT 1",), frozenset({"kind"}))


def health(base: Definition, chance: random.Random, _version: int) -> Iterator[Miss]:
    """As an interrupted CREATE or DROP INDEX CONCURRENTLY leaves it (test_indexes.py interrupts real ones)."""
    for flags in (("valid",), ("valid", "ready"), ("valid", "ready", "live")):
        values = ", ".join(f"indis{flag} = false" for flag in flags)
        damage = f"UPDATE pg_catalog.pg_index SET {values} WHERE indexrelid = {_REGCLASS}"
        statements = (base.statement(), damage)
        yield Miss(f"not {' and '.join(flags)}", statements, frozenset(flags), verdict="invalid")
    if not base.nulls_not_distinct:
        wrong = replace(base, unique=not base.unique).statement()
        yield Miss("invalid and not the one", (wrong, damage), frozenset({"unique", *flags}))


def equivalent(base: Definition, chance: random.Random, _version: int) -> Iterator[Miss]:
    """The control group: other words, the same index. ``present`` is the only right verdict."""

    def same(kind: str, *statements: str) -> Miss:
        return Miss(f"the same, {kind}", statements, verdict="present")

    unqualified = f"SET LOCAL search_path = {quoted(SCHEMA)}, {OTHER}"
    yield same("to the letter", base.statement())
    yield same("everything said", base.statement(explicit=True))
    yield same("lists as arrays", base.statement(any_form=True))
    yield same("odd operators and parentheses", base.statement(odd=True))
    yield same("all of this", base.statement(explicit=True, any_form=True, odd=True))
    yield same("by search_path", unqualified, base.statement(table=quoted(TABLE), fold="fold"))
    if base.include[1:]:
        yield same("included in another order", replace(base, include=base.include[::-1]).statement())
    if constraint := base.constraint():
        yield same("as a constraint", constraint)
    if not base.constraint():
        for times in (1, 2):
            yield same(f"restored {times}", base.statement(odd=True), *["RESTORE"] * times)


MISSES: tuple[Kind, ...] = (columns, key_options, predicate, predicate, whole, place, health)
assert all(len(names) in (1, 2) for names in GROUPS), "a condition's other column is the only other one"
assert TABLE != TWIN
