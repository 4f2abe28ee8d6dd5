"""Whether a migration.sql is written as its plan is: what can be compared without a server.

The catalog decides at the start of a run (``check_sql``), whatever both are written like. Here the same condition in
other words is a difference: written alike, two texts are the same for everybody who reads them, and for this.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..findings import say
from ..plan import Fault, Index, IndexKey, Plan
from ..prisma.migration_sql import Statement, Token, tokens_of
from . import scope

_Words = tuple[str, ...]  # of a text: names folded as PostgreSQL folds them, without the parentheses around it all


def faults(plan: Plan, statements: Sequence[Statement]) -> list[Fault]:
    """Where the migration builds something else than the plan says, or not all of it."""
    found = [
        Fault(
            ("migration",),
            say("{migration}, in which {phrase}", migration=plan.migration, phrase=phrase),
            say("a CREATE INDEX for each planned index, kept to the end"),
        )
        for phrase in _missing(plan, statements)
    ]
    for number, index in enumerate(plan.indexes):
        for statement in statements:
            if statement.index is not None and statement.index.name == index.name:
                found += _differences(plan, index, statement, number)
    return found


def notes(plan: Plan, statements: Sequence[Statement]) -> list[str]:
    """What the migration does beside that: Prisma runs it, and a concurrent build of the indexes is not possible."""
    missing = _missing(plan, statements)
    return [phrase for phrase in scope.beyond(statements, plan) if phrase not in missing]


def _missing(plan: Plan, statements: Sequence[Statement]) -> list[str]:
    built = {statement.index.name for statement in statements if statement.index}
    return [
        *(say("no statement builds {index}", index=index.name) for index in plan.indexes if index.name not in built),
        *(
            say("statement {number} drops {name} after it was built", number=number, name=name)
            for number, name in scope.lost(statements)
        ),
    ]


def _differences(plan: Plan, index: Index, statement: Statement, number: int) -> Iterator[Fault]:
    created = statement.index
    assert created is not None  # noqa: S101  (asked by the caller)
    where = say(
        "as statement {number} of {migration} has it; write both alike",
        number=statement.number,
        migration=plan.migration,
    )

    def fault(key: str, planned: str, written: str) -> Fault:
        return Fault(("indexes", number, key), planned, say("{written}, {where}", written=written, where=where))

    schema = created.schema or (statement.search_path or (plan.schema,))[0]
    if schema != plan.schema:
        yield Fault(("schema",), plan.schema, say("{written}, {where}", written=schema, where=where))
    if created.table != index.table:
        yield fault("table", index.table, created.table)
    if created.unique != index.unique:
        yield fault("unique", str(index.unique).lower(), str(created.unique).lower())
    written = _definition(created.rest)
    if written is None:
        yield fault("columns", say("not to be compared"), say("a CREATE INDEX in PostgreSQL's own order"))
        return
    if written.method != index.method:
        yield fault("method", index.method, written.method)
    if written.keys != tuple(map(_planned_key, index.keys)):
        yield fault("columns", ", ".join(map(_key_text, index.keys)), written.keys_text)
    if written.include != index.include:
        yield fault("include", ", ".join(index.include) or say("missing"), ", ".join(written.include) or say("nothing"))
    if written.nulls_not_distinct != index.nulls_not_distinct:
        yield fault(
            "nulls_not_distinct", str(index.nulls_not_distinct).lower(), str(written.nulls_not_distinct).lower()
        )
    if written.predicate != _words_of(index.predicate or ""):
        yield fault("predicate", index.predicate or say("missing"), written.predicate_text or say("no condition"))


@dataclass(frozen=True)
class _Key:
    """One key of an index, with what PostgreSQL takes where nothing is said."""

    words: _Words
    order: str
    nulls: str
    opclass: _Words
    collation: str


@dataclass(frozen=True)
class _Definition:
    """What stands behind the table's name, taken apart."""

    method: str
    keys: tuple[_Key, ...]
    keys_text: str
    include: _Words
    nulls_not_distinct: bool
    predicate: _Words
    predicate_text: str


def _planned_key(key: IndexKey) -> _Key:
    words = (key.column,) if key.column is not None else _words_of(key.expression or "")
    order = key.order or "asc"
    return _Key(words, order, key.nulls or _nulls(order), _words_of(key.opclass or ""), key.collation or "")


def _key_text(key: IndexKey) -> str:
    parts = (key.column or key.expression, key.collation and f"COLLATE {key.collation}", key.opclass, key.order)
    return " ".join([*filter(None, parts), *([f"nulls {key.nulls}"] if key.nulls else [])])


def _nulls(order: str) -> str:
    return "first" if order == "desc" else "last"


def _definition(text: str) -> _Definition | None:
    """Take apart [USING method] (keys) [INCLUDE (names)] [NULLS [NOT] DISTINCT] [WITH (...)] [WHERE condition]."""
    tokens = list(tokens_of(text))
    method = "btree"
    if len(tokens) > 1 and tokens[0].is_word("USING"):
        method, tokens = tokens[1].name or "", tokens[2:]
    inside, tokens = _parenthesized(tokens)
    if not inside:
        return None
    include: _Words = ()
    not_distinct = False
    while tokens and not tokens[0].is_word("WHERE"):
        first = tokens[0]
        if first.is_word("INCLUDE", "WITH"):
            found, tokens = _parenthesized(tokens[1:])
            if first.is_word("INCLUDE"):
                include = tuple(word for part in _split(found or []) for word in _words(part))
        elif first.is_word("NULLS"):
            not_distinct = tokens[1:2] != [] and tokens[1].is_word("NOT")
            tokens = tokens[3 if not_distinct else 2 :]
        elif first.is_word("TABLESPACE"):
            tokens = tokens[2:]
        else:
            return None
    keys = tuple(map(_written_key, _split(inside)))
    condition = tokens[1:]
    return _Definition(
        method, keys, _text(inside, text), include, not_distinct, _words(condition), _text(condition, text)
    )


def _written_key(tokens: list[Token]) -> _Key:
    order, nulls = "asc", ""
    if len(tokens) > 2 and tokens[-2].is_word("NULLS"):
        tokens, nulls = tokens[:-2], str(tokens[-1].name)
    if len(tokens) > 1 and tokens[-1].is_word("ASC", "DESC"):
        tokens, order = tokens[:-1], str(tokens[-1].name)
    name = 0 if tokens[0].text == "(" else 1  # of a column or a function
    arguments, after = _parenthesized(tokens[name:])
    end = len(tokens) - len(after) if arguments is not None else name
    expression, rest = tokens[:end], tokens[end:]
    collation = ""
    if len(rest) > 1 and rest[0].is_word("COLLATE"):
        size = 4 if len(rest) > 3 and rest[2].text == "." else 2
        collation, rest = "".join(_words(rest[1:size])), rest[size:]
    return _Key(_words(expression), order, nulls or _nulls(order), _words(rest), collation)


def _parenthesized(tokens: list[Token]) -> tuple[list[Token] | None, list[Token]]:
    """What stands in the parentheses that the tokens begin with, and what comes after; ``None`` without any."""
    depth = 0
    for number, token in enumerate(tokens):
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth == 0:
            return (tokens[1:number], tokens[number + 1 :]) if number else (None, tokens)
    return None, tokens


def _split(tokens: list[Token]) -> list[list[Token]]:
    """The parts between the commas that stand in no parentheses."""
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in tokens:
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if token.text == "," and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return [part for part in parts if part]


def _words_of(text: str) -> _Words:
    return _words(list(tokens_of(text)))


def _words(tokens: list[Token]) -> _Words:
    inside, after = _parenthesized(tokens)
    if inside and not after:
        return _words(inside)
    return tuple(token.name or token.text for token in tokens)


def _text(tokens: list[Token], text: str) -> str:
    return " ".join(text[tokens[0].start : tokens[-1].end].split()) if tokens else ""
