"""Candidate rules: the conditions of a table's status columns times its references and natural keys, ranked.

A rule is likely where its key already tells most rows inside the condition apart: with few duplicates, somebody meant
each key to occur once. Before counting, the server's statistics say how likely that is; afterwards, the count does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from . import statuses
from .catalog_facts import Column, Table, is_status
from .statuses import Condition

_KEY_TYPES = frozenset(("int2", "int4", "int8", "uuid", "text", "varchar", "bpchar", "citext", "numeric"))
_KEY_NAMES = frozenset(
    ("id", "no", "number", "code", "serial", "key", "sn", "uuid", "email", "slug", "username", "ref")
)
_PAIRS = 3  # of a table's references, the most likely ones
_ENTRY = 16  # bytes of an index entry beside its key: its header and its place in the page
_FILL = 0.9  # of a page of a new B-tree


@dataclass(frozen=True)
class Key:
    """Columns that may name what a rule is about."""

    columns: tuple[str, ...]
    weight: float
    dated: bool = False  # one of them is a day


@dataclass(frozen=True)
class Count:
    """Rows inside the condition, their keys, and those that occur more than once.

    ``how``: exact; sample, where every figure is the least that there can be; estimate, by statistics, without groups.
    """

    how: str
    rows: int | None
    keys: int | None
    groups: int | None = None
    surplus: int | None = None


@dataclass(frozen=True)
class Candidate:
    """One rule that may be wanted; ``score`` orders them, from 0 to 1."""

    table: Table
    key: Key
    condition: Condition
    count: Count
    score: float
    table_bytes: int | None = None

    @property
    def index_bytes(self) -> int | None:
        """An estimate of the size of the rule's index: the rows inside the condition, with the width of the key."""
        widths = [self.table.columns[name].width for name in self.key.columns]
        if self.count.rows is None or None in widths:
            return None
        return round(self.count.rows * (sum(width or 0 for width in widths) + _ENTRY) / _FILL)


def of_tables(tables: Iterable[Table], key: Sequence[str] = ()) -> list[Candidate]:
    """Every candidate, the likeliest first; with ``key`` only those with exactly these columns."""
    found = [
        _estimated(table, one, condition)
        for table in tables
        if table.primary_key
        for one in ([Key(tuple(key), 1.0, _dated(table, key))] if key else _keys(table))
        if set(one.columns) <= set(table.columns) and not _unique_already(table, one.columns)
        for condition in conditions(table)
        if condition.column not in one.columns
    ]
    return sorted(found, key=_order)


def counted(candidate: Candidate, count: Count, table_bytes: int | None) -> Candidate:
    """The candidate with what was counted: one without duplicates comes after all that have some."""
    score = _score(candidate.key, candidate.condition, _share(count.keys, count.rows))
    if count.how == "exact" and not count.groups:
        score *= 0.05
    return replace(candidate, count=count, score=score, table_bytes=table_bytes)


def ranked(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The likeliest first, without those that say the same of a table as a likelier one, or that an index enforces."""
    kept: list[Candidate] = []
    for one in sorted(candidates, key=_order):
        partial = (frozenset(one.key.columns), True) in one.table.unique
        same = any(
            other.table.number == one.table.number
            and other.key.columns == one.key.columns
            and other.count == one.count
            and one.count.how == "exact"
            for other in kept
        )
        if not same and not (partial and one.count.how == "exact" and not one.count.groups):
            kept.append(one)
    return kept


def conditions(table: Table) -> list[Condition]:
    """The conditions that the table's columns suggest."""
    found: list[Condition] = []
    for column in table.columns.values():
        if is_status(column):
            values = [*dict.fromkeys((*column.labels, *column.checks, *sorted(column.frequent)))]
            fixed = bool(column.labels or column.checks)
            if fixed or statuses.are_statuses(values):
                found += statuses.of_values(column.name, column.quoted, values, fixed=fixed)
        elif column.type == "bool":
            found += statuses.of_flag(column.name, column.quoted)
        elif column.type in ("timestamptz", "timestamp", "date") and not column.not_null:
            found += statuses.of_moment(column.name, column.quoted)
    return found


def _order(candidate: Candidate) -> tuple[float, str, str, tuple[str, ...], str]:
    table = candidate.table
    return -candidate.score, table.schema, table.name, candidate.key.columns, candidate.condition.sql


def _keys(table: Table) -> list[Key]:
    alone = {columns[0]: 0.5 if itself or _person(columns[0]) else 1.0 for columns, itself in _single(table)}
    for name, column in table.columns.items():
        if name not in alone and name not in table.primary_key and column.type in _KEY_TYPES:
            if name in table.shared:
                alone[name] = 1.0
            elif statuses.words(name)[-1:] and statuses.words(name)[-1] in _KEY_NAMES:
                alone[name] = 0.7
    likely = sorted(alone, key=lambda name: (-alone[name], list(table.columns).index(name)))
    days = [name for name, column in table.columns.items() if column.type == "date"]
    keys = [Key((name,), alone[name]) for name in likely]
    keys += [Key(columns, 0.9) for columns, _ in table.foreign_keys if len(columns) > 1]
    keys += [Key((name, day), 0.95 * alone[name], dated=True) for name in likely for day in days]
    keys += [Key(pair, 0.4 * min(alone[name] for name in pair)) for pair in list(combinations(likely, 2))[:_PAIRS]]
    return keys


def _single(table: Table) -> list[tuple[tuple[str, ...], bool]]:
    return [(columns, itself) for columns, itself in table.foreign_keys if len(columns) == 1]


def _person(name: str) -> bool:
    """Whether a reference names who did something: a rule is seldom about them."""
    return "by" in statuses.words(name)


def _dated(table: Table, key: Sequence[str]) -> bool:
    return any(name in table.columns and table.columns[name].type == "date" for name in key)


def _unique_already(table: Table, key: Sequence[str]) -> bool:
    return any(columns <= set(key) and not partial for columns, partial in table.unique)


def _estimated(table: Table, key: Key, condition: Condition) -> Candidate:
    rows = None if table.rows is None else table.rows * _inside(table.columns[condition.column], condition)
    distinct = [table.columns[name].distinct for name in key.columns]
    keys = None
    if rows is not None and None not in distinct:
        # How many different keys so many rows meet, drawn from all keys of the table.
        most = min(math.prod(max(1.0, value or 1.0) for value in distinct), max(1.0, table.rows or 1.0))
        keys = most * (1 - math.exp(-rows / most))
    count = Count("estimate", None if rows is None else round(rows), None if keys is None else round(keys))
    return Candidate(table, key, condition, count, _score(key, condition, _share(keys, rows)))


def _inside(column: Column, condition: Condition) -> float:
    """The share of the rows that the condition takes, by the statistics; a half where they say nothing."""
    if condition.kind == "unset":
        return 0.5 if column.null_share is None else column.null_share
    if not column.frequent:
        return 0.5
    named = sum(column.frequent.get(value, 0.0) for value in condition.values)
    return max(0.0, 1 - named - (column.null_share or 0.0)) if condition.negated else named


def _share(keys: float | None, rows: float | None) -> float:
    return 0.5 if keys is None or rows is None else min(1.0, keys / rows) if rows else 0.0


def _score(key: Key, condition: Condition, share: float) -> float:
    """Between 0 and 1: how likely somebody wants this rule, by its names and by how nearly it holds.

    What is valid is finished too: without a day in its key it would count a thing's whole history.
    """
    fits = 1.0
    if condition.kind == "valid" and not key.dated:
        fits = 0.3
    elif condition.kind != "valid" and key.dated:
        fits = 0.5
    return key.weight * condition.weight * fits * (0.3 + 0.7 * share)
