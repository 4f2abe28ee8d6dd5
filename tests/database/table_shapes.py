"""Tables of many shapes for test_table_shapes, and what a clean-up of each has to do: a model without SQL.

What the database compares is listed by hand, as classes of texts that are equal to it. What stands in the way is listed
with the words by which an error must name it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from at_most_one.plan import Plan, parse

Classes = Sequence[Sequence[str]]
ONCE = """
CREATE SCHEMA ext;
CREATE COLLATION ext.ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"""
SCHEMA = """
DROP SCHEMA IF EXISTS at_most_one CASCADE;
DROP SCHEMA IF EXISTS shapes CASCADE;
CREATE SCHEMA shapes;
CREATE DOMAIN shapes.caseless AS ext.citext CHECK (pg_catalog.length(VALUE::text) < 9);
CREATE DOMAIN shapes.folded AS text COLLATE ext.ci;
CREATE DOMAIN shapes.price AS numeric(6, 2) CHECK (VALUE < 1000);
CREATE TYPE shapes.pair AS (label ext.citext, place regclass);
CREATE TABLE shapes.log (what text);
INSERT INTO shapes.log VALUES ('from before');"""

_WORDS: Classes = [["a", "A"], ["ﬁ", "FI"], ["é", "E\u0301"], ["b"]]
KEYS: Mapping[str, Classes] = {  # type of the key column to its classes
    "text": [[word] for words in _WORDS for word in words],
    "text COLLATE ext.ci": _WORDS,
    'text COLLATE "C"': [[word] for words in _WORDS for word in words],
    "shapes.folded": _WORDS,
    "ext.citext": [["a", "A"], ["b", "B"], ["ab", "aB", "AB"], ["é"]],
    "shapes.caseless": [["a", "A"], ["b", "B"], ["ab", "aB", "AB"], ["é"]],
    "ext.citext[]": [["{a}", "{A}"], ["{a,b}", "{A,B}"], ["{}"]],
    "numeric": [["1", "1.0", "1.00"], ["2"], ["NaN"], ["0", "0.000"]],
    "double precision": [["0", "-0"], ["NaN"], ["1.5"]],
    "interval": [["1 mon", "30 days", "720:00:00"], ["1 day", "24:00:00"], ["0"]],
    "char(3)": [["a", "a  "], ["A"], ["b"]],
    "bit varying": [["1"], ["01"], ["10"], [""]],
    "jsonb": [['{"a": 1}', '{"a": 1.0}'], ['{"a": 2}'], ["null"]],
    "bigint": [["1"], ["2"], ["-3"]],
}
COLLATIONS: Mapping[str, Classes] = {"C": [[w] for ws in _WORDS for w in ws], "ext.ci": _WORDS}  # of the index
COLLATABLE = ("text", "text COLLATE ext.ci", 'text COLLATE "C"', "shapes.folded")
PRIMARY_KEYS = {  # the text of the n-th
    "bigint": "{}",
    "numeric": "{}.50",
    "ext.citext": "K{}",
    "text COLLATE ext.ci": "É{}",
    "interval": "{} days",
    "bit varying": "{:b}",
}
CARGO = {
    "regclass": ["shapes.log", "pg_catalog.pg_class"],
    "shapes.pair": ["(A,shapes.log)", "(,)"],
    "ext.citext[]": ["{a,NULL}", "{}"],
    "shapes.price": ["9.9", "0"],
    "jsonb": ['{"b": [1.0, null]}', '"\\u00e9"'],
    "bytea": ["\\xdeadbeef", ""],
    "tstzrange": ["[2025-11-01 00:00+09,)", "empty"],
    "interval": ["1 mon -1 day", "1.5 sec"],
    "bit varying": ["01", ""],
    "real": ["0.1", "-0"],
}

# Relations that are no table of their own, with the words of the refusal.
RELATIONS = {
    "": "",
    "partitioned": "shapes.t .*t is partitioned by status",
    "partition": "shapes.t .*it is a part of whole",
    "child": "shapes.t .*it is a part of parent",
    "parent": "shapes.t .*other tables inherit from it",
}
RULES = {
    "": "",
    "nothing": "CREATE RULE diverts AS ON DELETE TO shapes.t DO INSTEAD NOTHING",
    "also": "CREATE RULE diverts AS ON UPDATE TO shapes.t DO ALSO INSERT INTO shapes.log VALUES ('rule')",
}
GENERATED = {
    "": "",
    "from a column": ", made text GENERATED ALWAYS AS (note || '!') STORED",
    "from the clock": ", made text GENERATED ALWAYS AS (shapes.clock(note)) STORED",
}
POINTING = ("", "CASCADE", "SET NULL", "NO ACTION")


@dataclass(frozen=True)
class Trigger:
    """A trigger ``meddle``. ``{if_x}`` acts for rows whose note is x only, if the shape says so."""

    when: str
    body: str
    deed: str = ""  # keeps (a row from leaving) | alters (other rows) | stamps (a row) | log or child (written)
    on: str = "ROW"
    kind: str = ""


_PASS = "RETURN coalesce(NEW, OLD);"
TRIGGERS = {
    "": Trigger("", ""),
    "harmless": Trigger("BEFORE INSERT OR UPDATE OR DELETE", _PASS),
    "soft delete": Trigger(
        "BEFORE DELETE",
        "{if_x} UPDATE shapes.t SET status = 'closed' WHERE rank = OLD.rank; RETURN NULL; {fi} RETURN OLD;",
        "keeps",
    ),
    "swallow": Trigger("BEFORE DELETE OR UPDATE", f"{{if_x}} RETURN NULL; {{fi}} {_PASS}", "keeps"),
    "again": Trigger(
        "AFTER DELETE", "{if_x} INSERT INTO shapes.t ({plain}) VALUES (OLD.*); {fi} RETURN NULL;", "keeps"
    ),
    "neighbours": Trigger(
        "AFTER DELETE",
        "{if_x} UPDATE shapes.t SET note = 'left' WHERE rank = (SELECT min(rank) FROM shapes.t); {fi} RETURN NULL;",
        "alters",
    ),
    "stamp": Trigger(
        "BEFORE INSERT OR UPDATE",
        "{if_x} NEW.stamp := pg_catalog.clock_timestamp()::text; {fi} RETURN NEW;",
        "stamps",
    ),
    "log": Trigger(
        "AFTER INSERT OR UPDATE OR DELETE", "{if_x} INSERT INTO shapes.log VALUES (TG_OP); {fi} RETURN NULL;", "log"
    ),
    "log of the return": Trigger(
        "AFTER INSERT", "{if_x} INSERT INTO shapes.log VALUES (TG_OP); {fi} RETURN NULL;", "log"
    ),
    "neighbours of the return": Trigger(
        "AFTER INSERT",
        "{if_x} UPDATE shapes.t SET note = 'back' WHERE rank = (SELECT min(rank) FROM shapes.t); {fi} RETURN NULL;",
        "alters",
    ),
    "log at the commit": Trigger(
        "AFTER DELETE", "{if_x} INSERT INTO shapes.log VALUES (TG_OP); {fi} RETURN NULL;", "log", kind="CONSTRAINT"
    ),
    "empties": Trigger("AFTER DELETE", "TRUNCATE shapes.log; RETURN NULL;", "log", on="STATEMENT"),
    "cascade": Trigger(
        "AFTER DELETE", "{if_x} DELETE FROM shapes.child WHERE mentions = OLD.rank; {fi} RETURN NULL;", "child"
    ),
}


@dataclass(frozen=True)
class Row:
    rank: int  # identifies it; the smallest of its group stays
    key: int | None  # number of its class
    text: int  # number of the key's text within its class
    is_open: bool
    note: str
    cargo: int | None
    pointed: bool  # a row of the table child points to it
    mentioned: bool  # one names it without a foreign key


@dataclass(frozen=True)
class Shape:
    """One kind of table, with the plan for it."""

    key: str
    collation: str  # of the planned index, where it is not the column's own
    primary_key: str
    cargo: str
    update: bool
    relation: str
    rule: str
    generated: str
    pointing: str  # what the foreign key of the table child does ON DELETE; empty: there is none
    trigger: str
    only_x: bool  # the trigger acts for rows whose note is x
    triggers_allowed: bool
    writes_allowed: bool
    fenced: bool

    @property
    def classes(self) -> Classes:
        return COLLATIONS[self.collation] if self.collation else KEYS[self.key]

    def text(self, row: Row) -> str | None:
        if row.key is None:
            return None
        texts = self.classes[row.key % len(self.classes)]
        return texts[row.text % len(texts)]

    def primary(self, row: Row) -> str:
        return PRIMARY_KEYS[self.primary_key].format(row.rank * 7919 % 10_007)

    def plan(self) -> Plan:
        key = {"column": "key", **({"collation": self.collation} if self.collation else {})}
        surplus = {"action": "update", "values": {"status": "closed"}} if self.update else {"action": "delete"}
        allowed = {
            "triggers": ["meddle"] if self.triggers_allowed else [],
            "writes": self.exempt if self.triggers_allowed else [],
        }
        return parse(
            {
                **{"id": "shapes", "title": {"en": "shapes", "ko": "shapes"}, "schema": "shapes", "table": "t"},
                **{"primary_key": ["id"], "key": ["key"], "predicate": "status = 'open'", "show": ["note"]},
                "keep": [{"column": "rank", "direction": "asc", "nulls": "last"}],
                "surplus": {**surplus, **{name: names for name, names in allowed.items() if names}},
                "ceiling": 100,
                "indexes": [{"name": "t_key", "unique": True, "columns": [key], "predicate": "status = 'open'"}],
                "family": {"pattern": "^t_key"},
                "migration": "20251110_shapes",
            }
        )

    @property
    def exempt(self) -> list[str]:
        """The tables that a trigger may write to."""
        return ["shapes.log", "shapes.child"] if self.writes_allowed and self.triggers_allowed else []

    # --- the table ----------------------------------------------------------------------------------------------------

    def create(self) -> str:
        columns = (
            f"id {self.primary_key} NOT NULL, key {self.key}, status text NOT NULL, rank integer, note text,"
            f" stamp text, cargo {self.cargo}{GENERATED[self.generated]}"
        )
        clock = (
            "CREATE FUNCTION shapes.clock(text) RETURNS text IMMUTABLE LANGUAGE sql"
            " AS 'SELECT pg_catalog.clock_timestamp()::text';"
        )
        primary = ", PRIMARY KEY (id)"
        table = {
            "": f"CREATE TABLE shapes.t ({columns}{primary})",
            "partitioned": f"CREATE TABLE shapes.t ({columns}) PARTITION BY LIST (status);"
            "CREATE TABLE shapes.rest PARTITION OF shapes.t DEFAULT",
            "partition": f"CREATE TABLE shapes.whole ({columns}) PARTITION BY LIST (status);"
            "CREATE TABLE shapes.t PARTITION OF shapes.whole (PRIMARY KEY (id)) DEFAULT",
            "child": "CREATE TABLE shapes.parent (rank integer);"
            f"CREATE TABLE shapes.t ({columns}{primary}) INHERITS (shapes.parent)",
            "parent": f"CREATE TABLE shapes.t ({columns}{primary}); CREATE TABLE shapes.heir () INHERITS (shapes.t)",
        }[self.relation]
        refers = f" REFERENCES shapes.t ON DELETE {self.pointing}" if self.pointing else ""
        child = f"CREATE TABLE shapes.child (mentions integer, points {self.primary_key} CONSTRAINT pointer{refers})"
        if not refers:
            child = f"CREATE TABLE shapes.child (mentions integer, points {self.primary_key})"
        return f"{SCHEMA}{clock}{table};{child}"

    def meddle(self) -> str:
        """What comes after the rows: the rule and the trigger."""
        statements = RULES[self.rule]
        trigger = TRIGGERS[self.trigger]
        if trigger.when:
            condition = "IF coalesce(NEW.note, OLD.note) = 'x' THEN" if self.only_x else "IF true THEN"
            plain = "id, key, status, rank, note, stamp, cargo"
            body = trigger.body.replace("OLD.*", ", ".join(f"OLD.{name}" for name in plain.split(", ")))
            for name, text in {"{if_x}": condition, "{fi}": "END IF;", "{plain}": plain}.items():
                body = body.replace(name, text)
            statements += (
                f";CREATE FUNCTION shapes.meddle() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body} END$$;"
                f"CREATE {trigger.kind} TRIGGER meddle {trigger.when} ON shapes.t"
                f" {'DEFERRABLE INITIALLY DEFERRED' if trigger.kind else ''}"
                f" FOR EACH {trigger.on} EXECUTE FUNCTION shapes.meddle()"
            )
        return statements.strip(";")

    # --- the model ----------------------------------------------------------------------------------------------------

    def surplus(self, rows: Iterable[Row]) -> dict[int, int]:
        """The ranks of the surplus rows, each with that of the row which stays."""
        groups: dict[int, list[int]] = {}
        for row in rows:
            if row.is_open and row.key is not None:
                groups.setdefault(row.key % len(self.classes), []).append(row.rank)
        return {rank: min(group) for group in groups.values() for rank in group if rank != min(group)}

    def meddled(self, surplus: Iterable[Row]) -> list[Row]:
        """The surplus rows for which the trigger does its deed, as they leave or as they return."""
        trigger = TRIGGERS[self.trigger]
        events = ("UPDATE",) if self.update else ("DELETE", "INSERT")
        if not any(event in trigger.when for event in events):
            return []
        return [row for row in surplus if not self.only_x or row.note == "x" or trigger.on == "STATEMENT"]

    def in_the_way(self, rows: Sequence[Row]) -> list[str]:
        """The words of which a run that stops must use some; empty: it may not stop."""
        surplus = [row for row in rows if row.rank in self.surplus(rows)]
        words = [RELATIONS[self.relation], "diverts" if self.rule else ""]
        if surplus:
            trigger = TRIGGERS[self.trigger]
            if not self.triggers_allowed and self.meddled([Row(0, 0, 0, True, "x", None, False, False)]):
                words.append("trigger meddle of shapes.t")
            meddled = self.meddled(surplus)
            if meddled and (trigger.deed == "keeps" or (trigger.deed, trigger.when) == ("alters", "AFTER DELETE")):
                words.append("trigger meddle of shapes.t")
            if meddled and trigger.deed == "alters" and trigger.when == "AFTER INSERT":
                words.append("could not return.*triggers write to shapes.t when.*trigger meddle")
            if trigger.deed == "log" and meddled and not self.exempt:
                words.append("write to .*shapes.log")
            if trigger.deed == "child" and any(row.mentioned for row in meddled) and not self.exempt:
                words.append("write to .*shapes.child")
            if trigger.deed == "stamps" and meddled:
                words.append("stamp would not come back as archived.*trigger meddle")
            if self.generated == "from the clock":
                words.append("made would not come back as archived")
            if self.pointing and not self.update and any(row.pointed for row in surplus):
                words.append("pointer|shapes.child")
        return [word for word in words if word]

    def may_be_left(self, rows: Sequence[Row]) -> set[int]:
        """Those that only their return shows to be barred: prepare has tried a few of them only."""
        trigger = TRIGGERS[self.trigger]
        surplus = [row for row in rows if row.rank in self.surplus(rows)]
        allowed = trigger.deed == "log" and self.exempt
        barred = trigger.deed == "stamps" or (trigger.when == "AFTER INSERT" and not allowed)
        return {row.rank for row in self.meddled(surplus)} if barred else set()


def possible(shape: Shape) -> Shape:
    """The same without what such a table cannot have."""
    if shape.key not in COLLATABLE:
        shape = replace(shape, collation="")
    if shape.relation == "partitioned":  # no primary key, so nothing can point to it
        shape = replace(shape, pointing="")
    return shape
