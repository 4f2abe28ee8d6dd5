"""Index definitions, ways to write one, and ways to miss one nearly: what test_near_misses.py draws from.

Each :class:`Miss` says by construction what it is, so the verdict under test has nothing to do with the expectation.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

SCHEMA, OTHER, TABLE, TWIN, INDEX = 'Aed-픽스 "1"\'s', "other", "Session Rows", "Session Rows 2", "Near-Miss 색인"
STATUS = "Session Status"


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


TEXTS, VARCHARS, NUMBERS = ("serial", "Note 메모"), ("select", "Short-Name"), ("count", "Number of")
STATES, TIMES, RANGES = ("state", "State Before"), ("at", "Until"), ("span",)
TYPES = {
    **dict.fromkeys(TEXTS, "text"),
    **dict.fromkeys(VARCHARS, "varchar(40)"),
    **dict.fromkeys(NUMBERS, "integer"),
    **dict.fromkeys(STATES, "{schema}." + quoted(STATUS)),
    **dict.fromkeys(TIMES, "timestamptz"),
    **dict.fromkeys(RANGES, "int4range"),
}
GROUPS = (TEXTS, VARCHARS, NUMBERS, STATES, TIMES, RANGES)
VALUES: dict[tuple[str, ...], tuple[str, ...]] = {
    TEXTS: ("active", "paused", "it''s", "100% {x}", "", "활성"),
    VARCHARS: ("active", "paused", "it''s", "100% {x}", "", "활성"),
    NUMBERS: ("0", "1", "-7", "2147483647"),
    STATES: ("active", "paused", "in_progress", "completed", "cancelled"),
    TIMES: ("2025-11-10 00:00+09", "2025-11-10 00:00+00", "2024-02-29 12:00-03"),
}
PATTERN_OPS: dict[tuple[str, ...], str] = {TEXTS: "text_pattern_ops", VARCHARS: "varchar_pattern_ops"}
OPERATORS = {"=": "<>", "<>": "=", "<": "<=", "<=": "<", ">": ">=", ">=": ">", "IN": "NOT IN", "NOT IN": "IN",
             "LIKE": "NOT LIKE", "IS NULL": "IS NOT NULL", "IS NOT NULL": "IS NULL",
             "BETWEEN": "NOT BETWEEN"}  # fmt: skip


def group(column: str) -> tuple[str, ...]:
    return next(names for names in GROUPS if column in names)


@dataclass(frozen=True)
class Condition:
    column: str
    operator: str
    values: tuple[str, ...] = ()

    def sql(self, *, any_form: bool = False, odd: bool = False) -> str:
        """``any_form`` and ``odd`` are other words for the same."""
        column = quoted(self.column)
        literals = [value if group(self.column) is NUMBERS else f"'{value}'" for value in self.values]
        operator = "!=" if odd and self.operator == "<>" else self.operator
        if self.operator in ("IN", "NOT IN"):
            if any_form and group(self.column) is not VARCHARS:  # there the cast of the list is another one
                type_ = TYPES[self.column].format(schema=quoted(SCHEMA))
                form = "= ANY" if self.operator == "IN" else "<> ALL"
                return f"{column} {form} (ARRAY[{', '.join(literals)}]::{type_}[])"
            return f"{column} {operator} ({', '.join(literals)})"
        if self.operator in ("BETWEEN", "NOT BETWEEN"):
            low, high = literals
            if odd and self.operator == "BETWEEN":
                return f"({column} >= {low} AND {column} <= {high})"
            return f"({column} {operator} {low} AND {high})"
        return " ".join([f"(({column}))" if odd else column, operator, *literals])


@dataclass(frozen=True)
class Key:
    column: str
    folded: bool = False  # the schema's own function of it
    collation: str | None = None
    opclass: str | None = None
    descending: bool = False
    nulls_first: bool = False

    def sql(self, *, explicit: bool, fold: str = quoted(SCHEMA) + ".fold") -> str:
        words = [f"{fold}({quoted(self.column)})" if self.folded else quoted(self.column)]
        words += [f'COLLATE "{self.collation}"'] if self.collation else []
        words += [self.opclass] if self.opclass else []
        words += ["DESC"] if self.descending else ["ASC"] * explicit
        if explicit or self.nulls_first != self.descending:
            words.append("NULLS FIRST" if self.nulls_first else "NULLS LAST")
        return " ".join(words)

    @property
    def plain(self) -> bool:
        return self == Key(self.column)


@dataclass(frozen=True)
class Definition:
    keys: tuple[Key, ...]
    conditions: tuple[Condition, ...] = ()
    include: tuple[str, ...] = ()
    unique: bool = False
    nulls_not_distinct: bool = False
    method: str = "btree"
    joined_by: str = " AND "
    negated: bool = False

    def predicate(self, *, any_form: bool = False, odd: bool = False) -> str:
        text = self.joined_by.join(one.sql(any_form=any_form, odd=odd) for one in self.conditions)
        return f"NOT ({text})" if self.negated else text

    def statement(self, *, table: str = f"{quoted(SCHEMA)}.{quoted(TABLE)}", explicit: bool = False,
                  any_form: bool = False, odd: bool = False, fold: str = quoted(SCHEMA) + ".fold") -> str:  # fmt: skip
        keys = ", ".join(key.sql(explicit=explicit and self.method == "btree", fold=fold) for key in self.keys)
        where = self.predicate(any_form=any_form, odd=odd)
        return " ".join(filter(None, [
            "CREATE", "UNIQUE" * self.unique, "INDEX", quoted(INDEX), "ON", table,
            f"USING {self.method}" if explicit or self.method != "btree" else "", f"({keys})",
            f"INCLUDE ({', '.join(map(quoted, self.include))})" if self.include else "",
            "NULLS NOT DISTINCT" * self.nulls_not_distinct, "WITH (fillfactor = 80)" * odd,
            (f"WHERE ((({where})))" if odd else f"WHERE {where}") if where else "",
        ]))  # fmt: skip

    def constraint(self, more: str = "") -> str | None:
        """The same index as a constraint of its table, where one can have it."""
        if not self.unique or self.conditions or not all(key.plain for key in self.keys):
            return None
        nulls = "NULLS NOT DISTINCT " * self.nulls_not_distinct
        include = f" INCLUDE ({', '.join(map(quoted, self.include))})" if self.include else ""
        keys = ", ".join(quoted(key.column) for key in self.keys)
        return (f"ALTER TABLE {quoted(SCHEMA)}.{quoted(TABLE)} ADD CONSTRAINT {quoted(INDEX)}"
                f" UNIQUE {nulls}({keys}){include} {more}")  # fmt: skip

    def planned(self) -> dict[str, object]:
        """As an entry of a plan file."""
        columns = [
            {("expression" if key.folded else "column"): (f"{quoted(SCHEMA)}.fold({quoted(key.column)})" if key.folded
                                                          else key.column),
             **({"collation": f"pg_catalog.{key.collation}"} if key.collation else {}),
             **({"opclass": key.opclass} if key.opclass else {}),
             **({"order": "desc" if key.descending else "asc", "nulls": "first" if key.nulls_first else "last"}
                if self.method == "btree" else {})}
            for key in self.keys
        ]  # fmt: skip
        entry = {"name": INDEX, "columns": columns, "unique": self.unique, "method": self.method,
                 "include": list(self.include), "nulls_not_distinct": self.nulls_not_distinct}  # fmt: skip
        return {**entry, **({"predicate": self.predicate()} if self.conditions else {})}


@dataclass(frozen=True)
class Miss:
    """What somebody made, and what must be said of it: the verdict, and exactly these parts."""

    kind: str
    statements: tuple[str, ...]
    parts: frozenset[str] = frozenset()
    verdict: str = "different"
    only_order: bool = False  # a person must be told so


def definition(chance: random.Random, server_version: int) -> Definition:
    """Any definition that a plan may ask for."""
    columns = chance.sample([name for name in TYPES if name not in RANGES], chance.choice((1, 1, 2, 2, 3)))
    if chance.random() < 0.1:
        columns = list(RANGES)
    unique = chance.random() < 0.5
    conditions = {one.column: one for one in (condition(chance) for _ in range(chance.choice((0, 1, 1, 2, 3))))}
    others = [name for name in TYPES if name not in columns]
    return Definition(
        keys=tuple(key(chance, column) for column in columns),
        conditions=tuple(conditions.values()),
        include=tuple(chance.sample(others, chance.choice((0, 0, 0, 1, 2)))),
        unique=unique,
        nulls_not_distinct=unique and server_version >= 150_000 and chance.random() < 0.2,
    )


def key(chance: random.Random, column: str) -> Key:
    made = Key(column)
    if chance.random() < 0.5:
        return made
    textual = group(column) in PATTERN_OPS
    descending = chance.random() < 0.3
    return Key(
        column,
        folded=group(column) is TEXTS and chance.random() < 0.3,
        collation=chance.choice((None, "C", "POSIX")) if textual else None,
        opclass=PATTERN_OPS[group(column)] if textual and chance.random() < 0.2 else None,
        descending=descending,
        nulls_first=descending ^ (chance.random() < 0.3),
    )


def condition(chance: random.Random) -> Condition:
    column = chance.choice([name for name in TYPES if name not in RANGES])
    values = VALUES[group(column)]
    operator = chance.choice(("=", "<>", "<", ">", "IN", "IN", "NOT IN", "LIKE", "IS NULL", "IS NOT NULL", "BETWEEN"))
    if operator == "LIKE" and group(column) not in (TEXTS, VARCHARS):
        operator = "="
    if operator in ("IN", "NOT IN"):
        return Condition(column, operator, tuple(chance.sample(values, chance.randint(2, len(values)))))
    if operator == "BETWEEN":
        return Condition(column, operator, tuple(chance.sample(values, 2)))
    return Condition(column, operator, () if operator.startswith("IS") else (chance.choice(values),))
