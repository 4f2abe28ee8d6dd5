"""Whether a migration.sql does what its plan says and nothing else, and what another one does to it, by their text."""

from __future__ import annotations

from collections.abc import Sequence

from ..findings import say
from ..plan import Index, Plan
from ..prisma import migration_sql
from ..prisma.migration_sql import CommentOnIndex, CreateIndex, DropIndex, SetSearchPath, Statement


def beyond(statements: Sequence[Statement], plan: Plan) -> list[str]:
    """What the migration does besides building each planned index once, as phrases; empty when it does just that.

    To drop a planned name before it is built, to comment on it afterwards, a transaction around it and a search_path
    that begins with the plan's schema are part of that.
    """
    planned = {index.name for index in plan.indexes}
    phrases: list[str] = []
    built: set[str] = set()
    open_since: int | None = None
    for statement in statements:
        number, action = statement.number, statement.action
        where = say("statement {number}", number=number)
        if action is None:
            phrases.append(say("{where} begins with {beginning}", where=where, beginning=statement.beginning))
        elif isinstance(action, CreateIndex):
            if action.name not in planned:
                phrases.append(
                    say("{where} builds {action}, which the plan does not name", where=where, action=action.name)
                )
            elif action.name in built:
                phrases.append(say("{where} builds {action} a second time", where=where, action=action.name))
            else:
                built.add(action.name)
        elif isinstance(action, DropIndex):
            for schema, name in action.targets:
                if name not in planned or schema not in (None, plan.schema):
                    phrases.append(
                        say(
                            "{where} drops {dotted}, which the plan does not name",
                            where=where,
                            dotted=_dotted(schema, name),
                        )
                    )
                elif name in built:
                    phrases.append(say("{where} drops {name} after it was built", where=where, name=name))
        elif isinstance(action, CommentOnIndex):
            if action.name not in planned or action.schema not in (None, plan.schema):
                name = _dotted(action.schema, action.name)
                phrases.append(say("{where} comments on {name}, which the plan does not name", where=where, name=name))
            elif action.name not in built:
                phrases.append(say("{where} comments on {action} before it is built", where=where, action=action.name))
        elif isinstance(action, SetSearchPath):
            if action.schemas[0] != plan.schema:
                phrases.append(
                    say(
                        "{where} sets search_path to {schemas}, which does not begin with {schema}",
                        where=where,
                        schemas=", ".join(action.schemas),
                        schema=plan.schema,
                    )
                )
        elif action.begins and open_since is None:
            open_since = number
        elif action.begins:
            phrases.append(
                say(
                    "{where} begins a transaction inside that of statement {open_since}",
                    where=where,
                    open_since=open_since,
                )
            )
        elif open_since is None:
            phrases.append(say("{where} ends a transaction that no statement has begun", where=where))
        else:
            open_since = None
    if open_since is not None:
        phrases.append(say("statement {open_since} begins a transaction that no statement ends", open_since=open_since))
    return phrases + [say("no statement builds {name}", name=name) for name in sorted(planned - built)]


def comments(statements: Sequence[Statement]) -> tuple[CommentOnIndex, ...]:
    """The last comment on each index, in the order of the script."""
    found = [statement.action for statement in statements if isinstance(statement.action, CommentOnIndex)]
    last = {comment.name: comment for comment in found}
    return tuple(last.values())


def lost(statements: Sequence[Statement]) -> list[tuple[int, str]]:
    """The names that the script builds and then drops again, with the number of the statement that does so."""
    dropped: dict[str, int] = {}
    built: set[str] = set()
    for statement in statements:
        if statement.index is not None:
            built.add(statement.index.name)
            dropped.pop(statement.index.name, None)
        elif isinstance(statement.action, DropIndex):
            dropped |= {name: statement.number for _, name in statement.action.targets if name in built}
    return [(number, name) for name, number in dropped.items()]


def against(statements: Sequence[Statement], plan: Plan) -> list[tuple[int, str]]:
    """What another migration does to a planned index, by the number of the statement: to drop, build or rename it, or
    to drop the table or a column that it is on.

    A statement that names a planned index counts, whatever it does, unless it only comments on it.
    """
    found = []
    for statement in statements:
        names, beginning = statement.names, statement.beginning
        for index in plan.indexes:
            falls = beginning == "DROP SCHEMA" and plan.schema in names
            falls |= beginning == "DROP TABLE" and index.table in names
            falls |= beginning == "ALTER TABLE" and {index.table, "drop"} <= names and bool(_columns(index) & names)
            if falls or (index.name in names and not isinstance(statement.action, CommentOnIndex)):
                found.append((statement.number, index.name))
    return found


def _columns(index: Index) -> frozenset[str]:
    """The columns of an index, those of its expressions and its predicate too, with the other words in these."""
    texts = [text for text in (index.predicate, *(key.expression for key in index.keys)) if text]
    named = {key.column for key in index.keys if key.column} | set(index.include)
    return frozenset(named.union(*(migration_sql.names_in(migration_sql.tokens_of(text)) for text in texts)))


def _dotted(schema: str | None, name: str) -> str:
    return f"{schema}.{name}" if schema is not None else name
