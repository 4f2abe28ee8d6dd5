"""A plan: one "at most one" rule, its clean-up, its indexes and its Prisma migration, as validated data.

``parse`` turns the mapping read from ``plans/<id>.yml`` into a :class:`Plan` or raises an :class:`OperatorError` that
names every key at fault. Nothing here talks to a database: whether table and columns exist is asked elsewhere.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

from .errors import OperatorError
from .findings import Finding, observed, say

Place = tuple[Union[str, int], ...]  # of a value in a plan: names of keys, numbers of entries


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
class Request:
    """One request to the service; without a body the inventory's own (app_canary) stands in."""

    method: str
    path: str
    body: Mapping[str, Any] | None


@dataclass(frozen=True)
class Proof:
    """How the service creates a row under the rule and undoes it, so that a race for one can be held."""

    create: Request
    undo: Request  # {id} in its path and its body is the id that the creation answered
    accepts: tuple[int, ...] = (200, 201)  # statuses of a creation that has come to a row
    refuses: tuple[int, ...] = (409,)  # and of one that the rule has refused
    by: str = "user"  # user | admin
    id: str | None = None  # where the answer has the row's id, key by key: order.id


@dataclass(frozen=True)
class Tenants:
    """The tenants by name, in each of which the rule holds. Neither of the two: the inventory has the list."""

    schemas: tuple[str, ...] = ()
    query: str | None = None  # one that answers their names


@dataclass(frozen=True)
class Plan:
    """The whole plan. ``rule_index`` is the unique index that will enforce the rule."""

    id: str
    title: Mapping[str, str]  # by language: en, ko; the English one where there is no Korean one
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
    proof: Proof | None = None
    tenants: Tenants | None = None  # None: the one schema

    @property
    def file(self) -> str:
        """The name of its file, which is the same for the plan of every tenant."""
        return self.id.partition("@")[0]


_UNREAD = "?"  # stands in for a text that is missing
_TENANT = re.compile(r"(?:[\w$-]+\.)?[\w$-]+")
_LONGEST_NAME = 63  # bytes: https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS
_LITERAL = re.compile(r"'(?:[^']|'')*'")


@dataclass(frozen=True)
class Fault:
    """One value that is not as it has to be: where it stands, what it is, what belongs there."""

    place: Place
    seen: str
    expected: str

    @property
    def key(self) -> str:
        """The place as people write it: ``indexes[0].columns``."""
        text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.place)
        return text.lstrip(".") or "(top level)"


class _Reader:
    """Reads typed values from one mapping. What is wrong goes to ``faults``; a value of the right type stands in."""

    def __init__(
        self, faults: list[Fault], place: Place, data: Any, known: Sequence[str], readable: bool = True
    ) -> None:
        self.faults, self.place, self.readable = faults, place, readable
        if not isinstance(data, Mapping):
            self.fault((), _kind(data), "a mapping")
            self.readable = False  # each of its keys would be missing as well
        self.data: Mapping[str, Any] = data if self.readable else {}
        for key in sorted(set(map(str, self.data)) - set(known)):
            alike = difflib.get_close_matches(key, known, n=1)
            hint = say("perhaps {key}; ", key=alike[0]) if alike else ""
            self.fault(
                (key,), say("an unknown key"), say("{hint}the keys here are {known}", hint=hint, known=", ".join(known))
            )

    def fault(self, place: Place, seen: str, expected: str) -> None:
        if self.readable:
            self.faults.append(Fault((*self.place, *place), seen, expected))

    def text(self, key: str, default: str | None = None) -> str:
        value = self.data.get(key, default)
        if not isinstance(value, str) or not value.strip():
            self.fault((key,), _kind(value), say("a non-empty text"))
            return _UNREAD
        return value.strip()

    def optional_text(self, key: str) -> str | None:
        return None if self.data.get(key) is None else self.text(key)

    def choice(self, key: str, choices: Sequence[str], default: str | None = None) -> str:
        """The chosen word; empty for any other, after its fault."""
        value = self.data.get(key, default)
        if value not in choices:
            self.fault(
                (key,),
                say("missing") if value is None else repr(value),
                say("one of {choices}", choices=", ".join(choices)),
            )
            return ""
        return str(value)

    def optional_choice(self, key: str, choices: Sequence[str]) -> str | None:
        return None if self.data.get(key) is None else self.choice(key, choices)

    def flag(self, key: str) -> bool:
        value = self.data.get(key, False)
        if not isinstance(value, bool):
            self.fault((key,), _kind(value), say("true or false"))
        return value is True

    def count(self, key: str) -> int | None:
        value = self.data.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            self.fault((key,), repr(value), say("a whole number, zero or more"))
            return 0
        return value

    def statuses(self, key: str, default: tuple[int, ...], hundreds: int) -> tuple[int, ...]:
        """Different statuses of HTTP, at least one, that begin with the same digit."""
        value = self.data.get(key, list(default))
        good = isinstance(value, list) and all(
            isinstance(one, int) and not isinstance(one, bool) and one // 100 == hundreds for one in value
        )
        if not good or not value or len(set(value)) != len(value):
            self.fault(
                (key,),
                _kind(value),
                say("a list of different statuses from {hundreds}00 to {hundreds}99", hundreds=hundreds),
            )
            return default
        return tuple(value)

    def names(self, key: str, *, required: bool = False) -> tuple[str, ...]:
        value = self.data.get(key, [])
        if not isinstance(value, list):
            self.fault((key,), _kind(value), say("a list of names"))
            return ()
        if others := [entry for entry in value if not isinstance(entry, str) or not entry]:
            seen = f"{others[0]!r} ({type(others[0]).__name__})"
            self.fault(
                (key,),
                say("a list with {seen} in it", seen=seen),
                say('a list of names, in quotes what YAML reads as something else, such as "no"'),
            )
            return ()
        if required and not value:
            self.fault((key,), say("empty or missing"), say("at least one name"))
        if len(set(value)) != len(value):
            self.fault((key,), say("a list that names something twice"), say("each name once"))
        return tuple(value)

    def entries(self, key: str) -> list[tuple[Place, Any]]:
        """The entries of a list, each with its place."""
        value = self.data.get(key)
        if not isinstance(value, list) or not value:
            self.fault((key,), _kind(value), say("a list with at least one entry"))
            return []
        return [((*self.place, key, number), entry) for number, entry in enumerate(value)]


def _kind(value: Any) -> str:
    if value is None:
        return say("missing")
    if isinstance(value, (str, int, float)):
        return f"{value!r} ({type(value).__name__})"
    return say("a {kind}", kind=type(value).__name__)


_PLAN_KEYS = (
    *("id", "title", "schema", "table", "primary_key", "key", "predicate", "keep", "show"),
    *("surplus", "expected", "ceiling", "indexes", "family", "migration", "proof", "tenants"),
)
_INDEX_KEYS = ("name", "table", "columns", "unique", "method", "include", "predicate", "nulls_not_distinct")
_COLUMN_KEYS = ("column", "expression", "order", "nulls", "opclass", "collation")


def parse(data: Any) -> Plan:
    """Validate the mapping read from a plan file. Raises OperatorError naming the plan, and every key at fault."""
    plan, found = _read(data)
    if found:
        plan_id = plan.id
        raise OperatorError.of(
            [
                Finding(
                    fault.key,
                    observed(
                        "AMO-2101", "Plan {plan_id}: {key} is {seen}.", plan_id=plan_id, key=fault.key, seen=fault.seen
                    ),
                    say("{expected}.", expected=fault.expected),
                    say("correct plans/{plan_id}.yml; plans/README.md describes every key.", plan_id=plan_id),
                )
                for fault in found
            ],
            plan=plan_id,
            key=found[0].key,
            keys=[fault.key for fault in found],
        )
    return plan


def faults(data: Any) -> list[Fault]:
    """Everything that is wrong with the content of a plan file, in the order of plans/README.md."""
    return _read(data)[1]


def filled(data: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a valid plan with its title in every language: English stands where there is no Korean one."""
    title = {language: text for language, text in data["title"].items() if text is not None}
    return {**data, "title": {"ko": title["en"], **title}}


def for_tenant(data: Mapping[str, Any], tenant: str) -> dict[str, Any]:
    """The content of a valid plan with tenants as that of one of them, by its name: a plan of its own.

    The id is its own too, so that runs, archived rows and reports of one tenant are never those of another.
    """
    own, schema = f"{data['schema'].strip()}.", tenant_place(tenant)[1]
    content = {key: value for key, value in filled(data).items() if key != "tenants"}
    surplus = dict(content["surplus"])
    if surplus.get("writes"):
        moved = [f"{schema}.{name.removeprefix(own)}" if name.startswith(own) else name for name in surplus["writes"]]
        surplus["writes"] = list(dict.fromkeys(moved))
    return {
        **content,
        "id": f"{data['id'].strip()}@{tenant}",
        "title": {language: f"{text} [{tenant}]" for language, text in content["title"].items()},
        "schema": schema,
        "surplus": surplus,
    }


def for_other_tenant(data: Mapping[str, Any], tenant: str) -> dict[str, Any]:
    """The content of a tenant's plan as :func:`for_tenant` has it for another tenant of the same plan."""
    plan_id, own = data["id"].partition("@")[::2]
    title = {language: text.removesuffix(f" [{own}]") for language, text in data["title"].items()}
    return for_tenant({**data, "id": plan_id, "title": title}, tenant)


def is_tenant(name: Any) -> bool:
    """Whether this may name a tenant: <schema> or <database>.<schema>. It stands in commands and names of files."""
    if not isinstance(name, str) or not _TENANT.fullmatch(name):
        return False
    return all(len(part.encode()) <= _LONGEST_NAME for part in name.split("."))


def tenant_place(name: str) -> tuple[str, str]:
    """The database of a tenant, empty for the environment's own, and its schema. No part of a name has a point."""
    *database, schema = name.rsplit(".", 1)
    return "".join(database), schema


def _read(data: Any) -> tuple[Plan, list[Fault]]:
    """The plan, and what is wrong with it: only without a fault does the plan count."""
    found: list[Fault] = []
    top = _Reader(found, (), data, _PLAN_KEYS)
    plan_id, title, schema, table = top.text("id"), _title(top), top.text("schema"), top.text("table")
    primary_key, key = top.names("primary_key", required=True), top.names("key", required=True)
    predicate = top.text("predicate")
    keep = tuple(_sort_key(found, *entry) for entry in top.entries("keep"))
    show, surplus, expected = top.names("show"), _surplus(top), _expected(top)
    ceiling = top.count("ceiling")
    if ceiling is None:
        top.fault(("ceiling",), say("missing"), say("the largest number of rows that may leave in one run"))
    before = len(found)
    indexes = tuple(_index(found, *entry, table) for entry in top.entries("indexes"))
    names = [index.name for index in indexes if index.name != _UNREAD]
    if len(set(names)) != len(names):
        top.fault(("indexes",), say("a list in which two indexes share a name"), say("each index once"))
    comparable = len(found) == before and {"table", "key", "predicate"}.isdisjoint(fault.key for fault in found)
    rule_index = _rule_index(indexes, table, key, predicate)
    if rule_index is None and comparable:
        top.fault(("indexes",), *_without_rule_index(indexes, table, key, predicate))
    family, migration, proof, tenants = _family(top), top.text("migration"), _proof(top), _tenants(top)
    if tenants is not None:
        _refuse_schema(top, schema, predicate, indexes)
    plan = Plan(
        id=plan_id,
        title=title,
        schema=schema,
        table=table,
        primary_key=primary_key,
        key=key,
        predicate=predicate,
        keep=keep,
        show=show,
        surplus=surplus,
        expected=expected,
        ceiling=ceiling or 0,
        indexes=indexes,
        family=family,
        rule_index=rule_index or Index(_UNREAD, table, (), True, "btree", (), predicate, False),
        migration=migration,
        sha256="" if found else _digest(filled(data)),
        proof=proof,
        tenants=tenants,
    )
    return plan, found


def _digest(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _part(parent: _Reader, key: str, known: Sequence[str], default: Any = None) -> _Reader:
    """The reader of the mapping that a key of another one holds."""
    value = parent.data.get(key)
    return _Reader(parent.faults, (*parent.place, key), default if value is None else value, known, parent.readable)


def _title(top: _Reader) -> Mapping[str, str]:
    reader = _part(top, "title", ("en", "ko"))
    english = reader.text("en")
    return {"en": english, "ko": reader.optional_text("ko") or english}


def _family(top: _Reader) -> Family:
    reader = _part(top, "family", ("pattern", "neighbours"))
    pattern = reader.text("pattern")
    try:
        re.compile(pattern if pattern != _UNREAD else "")
    except re.error as broken:
        reader.fault(
            ("pattern",), say("not a regular expression ({broken})", broken=broken), say("one that matches index names")
        )
    return Family(pattern, reader.names("neighbours"))


def _sort_key(found: list[Fault], place: Place, data: Any) -> SortKey:
    reader = _Reader(found, place, data, ("column", "direction", "nulls"))
    return SortKey(
        reader.text("column"), reader.choice("direction", ("asc", "desc")), reader.choice("nulls", ("first", "last"))
    )


_ALLOWED = ("triggers", "writes", "publications")


def _surplus(top: _Reader) -> Surplus:
    reader = _part(top, "surplus", ("action", "values", "references", *_ALLOWED))
    action = reader.choice("action", ("delete", "update"))
    values = reader.data.get("values") or {}
    if not isinstance(values, Mapping) or not all(
        isinstance(v, (str, int, float, type(None))) for v in values.values()
    ):
        reader.fault(("values",), _kind(values), say("a mapping of column to value"))
        values = {}
    elif action and (action == "update") != bool(values):
        reader.fault(
            ("values",), say("given") if values else say("missing"), say("values with action update, and only with it")
        )
    texts = {str(column): None if value is None else str(value) for column, value in values.items()}
    return Surplus(
        action,
        texts,
        reader.choice("references", ("stop", "repoint"), "stop"),
        *map(reader.names, _ALLOWED),
    )


def _proof(top: _Reader) -> Proof | None:
    if top.data.get("proof") is None:
        return None
    reader = _part(top, "proof", ("create", "undo", "accepts", "refuses", "as", "id"))
    create, undo = _request(reader, "create"), _request(reader, "undo")
    if undo.path.startswith("/") and "{id}" not in json.dumps([undo.path, undo.body]):
        reader.fault(
            ("undo",),
            say("the same request for every row"),
            say("{{id}} in its path or its body, for the created row's id"),
        )
    return Proof(
        create,
        undo,
        reader.statuses("accepts", Proof.accepts, 2),
        reader.statuses("refuses", Proof.refuses, 4),
        reader.choice("as", ("user", "admin"), Proof.by),
        reader.optional_text("id"),
    )


def _tenants(top: _Reader) -> Tenants | None:
    """None where the key is not there at all; with nothing in it the inventory has the list."""
    if "tenants" not in top.data:
        return None
    reader = _part(top, "tenants", ("schemas", "query"), {})
    schemas = reader.names("schemas", required=True) if "schemas" in reader.data else ()
    for number, name in enumerate(schemas):
        if not is_tenant(name):
            reader.fault(
                ("schemas", number),
                repr(name),
                say(
                    "a schema, or <database>.<schema>: letters, digits, _, $ and -, at most {most} bytes each",
                    most=_LONGEST_NAME,
                ),
            )
    query = reader.optional_text("query")
    if schemas and query is not None:
        reader.fault((), say("a list and a query"), say("one of the two"))
    return Tenants(schemas, query)


def _refuse_schema(top: _Reader, schema: str, predicate: str, indexes: Sequence[Index]) -> None:
    """What names the plan's schema in a condition or an expression would be that of one tenant in each of them."""
    texts: list[tuple[Place, str | None]] = [(("predicate",), predicate)]
    for number, index in enumerate(indexes):
        texts.append((("indexes", number, "predicate"), index.predicate))
        texts += [
            (("indexes", number, "columns", column, "expression"), key.expression)
            for column, key in enumerate(index.keys)
        ]
    for place, text in texts:
        if text is not None and _names_schema(text, schema):
            top.fault(
                place,
                say("a text that names the schema {schema}", schema=schema),
                say("one that means the same in each tenant: columns and literals alone, or a schema that all share"),
            )


def _names_schema(text: str, schema: str) -> bool:
    """Whether the text names something of the schema, outside of its literals."""
    quoted = re.escape('"' + schema.replace('"', '""') + '"')
    plain = rf'(?<![\w$".]){re.escape(schema)}'
    return bool(re.search(rf"(?:{plain}|{quoted})\s*\.", _LITERAL.sub("''", text), re.IGNORECASE))


def _request(parent: _Reader, key: str) -> Request:
    reader = _part(parent, key, ("method", "path", "body"))
    path, body = reader.text("path"), reader.data.get("body")
    if path != _UNREAD and not path.startswith("/"):
        reader.fault(("path",), repr(path), say("a path of the service, which begins with /"))
    if body is not None and not isinstance(body, Mapping):
        reader.fault(("body",), _kind(body), say("a mapping, sent as JSON"))
        body = None
    try:
        json.dumps(body, sort_keys=True)
    except TypeError:  # YAML reads a day without quotes as a day
        reader.fault(
            ("body",), say("not to be written as JSON"), say("texts, numbers, lists and mappings; a day in quotes")
        )
        body = None
    return Request(reader.choice("method", ("POST", "PUT", "PATCH", "DELETE"), "POST"), path, body)


def _expected(top: _Reader) -> Expected:
    reader = _part(top, "expected", ("groups", "rows"), {})
    return Expected(reader.count("groups"), reader.count("rows"))


def _index(found: list[Fault], place: Place, data: Any, default_table: str) -> Index:
    reader = _Reader(found, place, data, _INDEX_KEYS)
    name = reader.text("name")
    if (size := len(name.encode())) > _LONGEST_NAME:
        reader.fault(
            ("name",),
            say("{size} bytes long", size=size),
            say(
                "{longest} at most: PostgreSQL cuts a longer one, and nobody finds the index by its whole name",
                longest=_LONGEST_NAME,
            ),
        )
    return Index(
        name=name,
        table=reader.text("table", default_table),
        keys=tuple(_index_key(found, *entry) for entry in reader.entries("columns")),
        unique=reader.flag("unique"),
        method=reader.text("method", "btree"),
        include=reader.names("include"),
        predicate=reader.optional_text("predicate"),
        nulls_not_distinct=reader.flag("nulls_not_distinct"),
    )


def _index_key(found: list[Fault], place: Place, data: Any) -> IndexKey:
    reader = _Reader(found, place, {"column": data} if isinstance(data, str) else data, _COLUMN_KEYS)
    column, expression = reader.optional_text("column"), reader.optional_text("expression")
    if (column is None) == (expression is None):
        reader.fault((), say("not exactly one of column and expression"), say("one of the two"))
    return IndexKey(
        column,
        expression,
        reader.optional_choice("order", ("asc", "desc")),
        reader.optional_choice("nulls", ("first", "last")),
        reader.optional_text("opclass"),
        reader.optional_text("collation"),
    )


def _rule_index(indexes: Sequence[Index], table: str, key: Sequence[str], predicate: str) -> Index | None:
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
    return None


def _without_rule_index(indexes: Sequence[Index], table: str, key: Sequence[str], predicate: str) -> tuple[str, str]:
    """What is seen and what is expected where no index enforces the rule."""
    for index in indexes:
        if index.unique and index.table == table and None in [k.column for k in index.keys]:
            return (
                say("a list without the index that enforces the rule: {index} is over an expression", index=index.name),
                say("a unique index over columns: add a generated column for the expression, and make that the key"),
            )
    return (
        say("a list without the index that enforces the rule"),
        say(
            "a unique index on {table} ({key}) with the plan's own predicate, {predicate}",
            table=table,
            key=", ".join(key),
            predicate=repr(predicate),
        ),
    )
