"""A plan: one "at most one" rule, its clean-up, its indexes and its Prisma migration, as validated data.

``parse`` turns the mapping read from ``plans/<id>.yml`` into a :class:`Plan` or raises an :class:`OperatorError` that
names the key at fault. Nothing here talks to a database: whether table and columns exist is asked elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import OperatorError


@dataclass(frozen=True)
class SortKey:
    """One column of the order that picks the row to keep; NULL placement is always explicit."""

    column: str
    direction: str  # asc | desc
    nulls: str  # first | last


@dataclass(frozen=True)
class IndexKey:
    """One key of an index: a column or an expression; ``None`` means what PostgreSQL takes by default."""

    column: str | None
    expression: str | None
    order: str | None  # asc | desc
    nulls: str | None  # first | last
    opclass: str | None
    collation: str | None


@dataclass(frozen=True)
class Index:
    """A planned index, complete enough to be built and to be compared."""

    name: str
    table: str
    keys: tuple[IndexKey, ...]
    unique: bool
    method: str
    include: tuple[str, ...]
    predicate: str | None
    nulls_not_distinct: bool


@dataclass(frozen=True)
class Family:
    """Which other indexes belong to the planned ones' family, and which of those are known neighbours."""

    pattern: str  # a POSIX regular expression over index names
    neighbours: tuple[str, ...]


@dataclass(frozen=True)
class Surplus:
    """What happens to a surplus row, and to rows that reference one."""

    action: str  # delete | update
    values: Mapping[str, str | None]  # column to text value, for update
    references: str  # stop | repoint
    triggers: tuple[str, ...] = ()  # what the change may set off, by name
    writes: tuple[str, ...] = ()  # other tables that those may write to, with their schema
    publications: tuple[str, ...] = ()  # that carry the schema at_most_one to subscribers that have its tables


@dataclass(frozen=True)
class Expected:
    """What the author of the plan counted: more than this stops the run, fewer is reported. ``None``: not stated."""

    groups: int | None
    rows: int | None


@dataclass(frozen=True)
class Plan:
    """The whole plan. ``rule_index`` is the unique index that will enforce the rule."""

    id: str
    title: Mapping[str, str]  # by language: en, ko
    schema: str
    table: str
    primary_key: tuple[str, ...]
    key: tuple[str, ...]
    predicate: str
    keep: tuple[SortKey, ...]
    show: tuple[str, ...]
    surplus: Surplus
    expected: Expected
    ceiling: int  # rows; never more than this leave in one run
    indexes: tuple[Index, ...]
    family: Family
    rule_index: Index
    migration: str
    sha256: str


class _Reader:
    """Reads typed keys from one mapping and knows the path to name in an error."""

    def __init__(self, plan_id: str, path: str, data: Any, known: Sequence[str]) -> None:
        self.plan_id, self.path = plan_id, path
        if not isinstance(data, Mapping):
            raise self.error("", f"{_kind(data)}", "a mapping")
        self.data: Mapping[str, Any] = data
        unknown = sorted(set(map(str, data)) - set(known))
        if unknown:
            raise self.error(unknown[0], "an unknown key", f"only {', '.join(known)}")

    def error(self, key: str, seen: str, expected: str) -> OperatorError:
        where = ".".join(part for part in (self.path, key) if part) or "(top level)"
        return OperatorError(
            f"Plan {self.plan_id}: {where} is {seen}.",
            expected=f"{expected}.",
            next_step=f"correct {where} in plans/{self.plan_id}.yml; plans/README.md describes every key.",
            plan=self.plan_id,
            key=where,
        )

    def text(self, key: str, default: str | None = None) -> str:
        value = self.data.get(key, default)
        if not isinstance(value, str) or not value.strip():
            raise self.error(key, _kind(value), "a non-empty text")
        return value.strip()

    def optional_text(self, key: str) -> str | None:
        return None if self.data.get(key) is None else self.text(key)

    def choice(self, key: str, choices: Sequence[str], default: str | None = None) -> str:
        value = self.data.get(key, default)
        if value not in choices:
            raise self.error(key, repr(value), f"one of {', '.join(choices)}")
        return str(value)

    def flag(self, key: str) -> bool:
        value = self.data.get(key, False)
        if not isinstance(value, bool):
            raise self.error(key, _kind(value), "true or false")
        return value

    def count(self, key: str) -> int | None:
        value = self.data.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            raise self.error(key, repr(value), "a whole number, zero or more")
        return value

    def names(self, key: str, *, required: bool = False) -> tuple[str, ...]:
        value = self.data.get(key, [])
        if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
            raise self.error(key, _kind(value), "a list of names")
        if required and not value:
            raise self.error(key, "empty or missing", "at least one name")
        if len(set(value)) != len(value):
            raise self.error(key, "a list that names something twice", "each name once")
        return tuple(value)

    def items(self, key: str) -> list[Any]:
        value = self.data.get(key)
        if not isinstance(value, list) or not value:
            raise self.error(key, _kind(value), "a list with at least one entry")
        return value


def _kind(value: Any) -> str:
    if value is None:
        return "missing"
    return (
        f"{value!r} ({type(value).__name__})" if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"
    )


_PLAN_KEYS = (
    *("id", "title", "schema", "table", "primary_key", "key", "predicate", "keep", "show"),
    *("surplus", "expected", "ceiling", "indexes", "family", "migration"),
)
_INDEX_KEYS = ("name", "table", "columns", "unique", "method", "include", "predicate", "nulls_not_distinct")
_COLUMN_KEYS = ("column", "expression", "order", "nulls", "opclass", "collation")


def parse(data: Any) -> Plan:
    """Validate the mapping read from a plan file. Raises OperatorError naming the plan, the key, what was seen."""
    plan_id = str(data.get("id", "?")) if isinstance(data, Mapping) else "?"
    top = _Reader(plan_id, "", data, _PLAN_KEYS)
    table = top.text("table")
    indexes = tuple(_index(plan_id, f"indexes[{n}]", item, table) for n, item in enumerate(top.items("indexes")))
    if len({index.name for index in indexes}) != len(indexes):
        raise top.error("indexes", "a list in which two indexes share a name", "each index once")
    ceiling = top.count("ceiling")
    if ceiling is None:
        raise top.error("ceiling", "missing", "the largest number of rows that may leave in one run")
    family = _Reader(plan_id, "family", data.get("family"), ("pattern", "neighbours"))
    try:
        re.compile(family.text("pattern"))
    except re.error as broken:
        raise family.error(
            "pattern", f"not a regular expression ({broken})", "one that matches index names"
        ) from broken
    key, predicate = top.names("key", required=True), top.text("predicate")
    return Plan(
        id=top.text("id"),
        title=_title(plan_id, data.get("title")),
        schema=top.text("schema"),
        table=table,
        primary_key=top.names("primary_key", required=True),
        key=key,
        predicate=predicate,
        keep=tuple(_sort_key(plan_id, f"keep[{n}]", item) for n, item in enumerate(top.items("keep"))),
        show=top.names("show"),
        surplus=_surplus(plan_id, data.get("surplus")),
        expected=_expected(plan_id, data.get("expected")),
        ceiling=ceiling,
        indexes=indexes,
        family=Family(family.text("pattern"), family.names("neighbours")),
        rule_index=_rule_index(top, indexes, table, key, predicate),
        migration=top.text("migration"),
        sha256=hashlib.sha256(json.dumps(data, sort_keys=True, ensure_ascii=False).encode()).hexdigest(),
    )


def _title(plan_id: str, data: Any) -> Mapping[str, str]:
    reader = _Reader(plan_id, "title", data, ("en", "ko"))
    return {"en": reader.text("en"), "ko": reader.text("ko")}


def _sort_key(plan_id: str, path: str, data: Any) -> SortKey:
    reader = _Reader(plan_id, path, data, ("column", "direction", "nulls"))
    return SortKey(
        reader.text("column"), reader.choice("direction", ("asc", "desc")), reader.choice("nulls", ("first", "last"))
    )


_ALLOWED = ("triggers", "writes", "publications")


def _surplus(plan_id: str, data: Any) -> Surplus:
    reader = _Reader(plan_id, "surplus", data, ("action", "values", "references", *_ALLOWED))
    action = reader.choice("action", ("delete", "update"))
    values = reader.data.get("values") or {}
    if not isinstance(values, Mapping) or not all(
        isinstance(v, (str, int, float, type(None))) for v in values.values()
    ):
        raise reader.error("values", _kind(values), "a mapping of column to value")
    if (action == "update") != bool(values):
        raise reader.error("values", "given" if values else "missing", "values with action update, and only with it")
    texts = {str(column): None if value is None else str(value) for column, value in values.items()}
    return Surplus(
        action,
        texts,
        reader.choice("references", ("stop", "repoint"), "stop"),
        *map(reader.names, _ALLOWED),
    )


def _expected(plan_id: str, data: Any) -> Expected:
    reader = _Reader(plan_id, "expected", data or {}, ("groups", "rows"))
    return Expected(reader.count("groups"), reader.count("rows"))


def _index(plan_id: str, path: str, data: Any, default_table: str) -> Index:
    reader = _Reader(plan_id, path, data, _INDEX_KEYS)
    return Index(
        name=reader.text("name"),
        table=reader.text("table", default_table),
        keys=tuple(_index_key(plan_id, f"{path}.columns[{n}]", item) for n, item in enumerate(reader.items("columns"))),
        unique=reader.flag("unique"),
        method=reader.text("method", "btree"),
        include=reader.names("include"),
        predicate=reader.optional_text("predicate"),
        nulls_not_distinct=reader.flag("nulls_not_distinct"),
    )


def _index_key(plan_id: str, path: str, data: Any) -> IndexKey:
    reader = _Reader(plan_id, path, {"column": data} if isinstance(data, str) else data, _COLUMN_KEYS)
    column, expression = reader.optional_text("column"), reader.optional_text("expression")
    if (column is None) == (expression is None):
        raise reader.error("", "not exactly one of column and expression", "one of the two")
    return IndexKey(
        column,
        expression,
        None if reader.data.get("order") is None else reader.choice("order", ("asc", "desc")),
        None if reader.data.get("nulls") is None else reader.choice("nulls", ("first", "last")),
        reader.optional_text("opclass"),
        reader.optional_text("collation"),
    )


def _rule_index(top: _Reader, indexes: Sequence[Index], table: str, key: Sequence[str], predicate: str) -> Index:
    """The unique index on exactly the rule's table, key and predicate: without it the plan would enforce nothing."""
    for index in indexes:
        columns = [k.column for k in index.keys]
        if (
            index.unique
            and index.table == table
            and sorted(map(str, columns)) == sorted(key)
            and index.predicate == predicate
        ):
            return index
    for index in indexes:
        if index.unique and index.table == table and None in [k.column for k in index.keys]:
            raise top.error(
                "indexes",
                f"a list without the index that enforces the rule: {index.name} is over an expression",
                "a unique index over columns: add a generated column for the expression, and make that the key",
            )
    raise top.error(
        "indexes",
        "a list without the index that enforces the rule",
        f"a unique index on {table} ({', '.join(key)}) with the plan's own predicate, {predicate!r}",
    )
