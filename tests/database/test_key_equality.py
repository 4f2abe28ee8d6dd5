"""Which ``=`` a unique index compares a column with: what is looked up is what a real index has in the catalog."""

from __future__ import annotations

from dataclasses import replace

import pytest
from at_most_one.duplicates.key_equality import equality, refuse_other_equality
from at_most_one.errors import OperatorError
from at_most_one.plan import IndexKey, Plan
from at_most_one.postgres.connection import Connection

from tests.database.citext import make_citext
from tests.database.cleaning import run

# Texts: ``word`` is what its category prefers, and has other classes beside its default one; the others have nothing
# but casts.
_TYPE = """
CREATE TYPE aedpics.{name};
CREATE FUNCTION aedpics.{name}_in(cstring) RETURNS aedpics.{name} LANGUAGE internal STRICT IMMUTABLE AS 'textin';
CREATE FUNCTION aedpics.{name}_out(aedpics.{name}) RETURNS cstring LANGUAGE internal STRICT IMMUTABLE AS 'textout';
CREATE TYPE aedpics.{name} (INPUT = aedpics.{name}_in, OUTPUT = aedpics.{name}_out, INTERNALLENGTH = VARIABLE,
    STORAGE = extended, COLLATABLE = true, CATEGORY = '{category}', PREFERRED = {preferred});
"""
_TYPES = f"""
{_TYPE.format(name="word", category="w", preferred="true")}
{_TYPE.format(name="label", category="w", preferred="false")}
{_TYPE.format(name="code", category="U", preferred="false")}
CREATE FUNCTION aedpics.eq(aedpics.word, aedpics.word) RETURNS boolean LANGUAGE internal STRICT IMMUTABLE AS 'texteq';
CREATE FUNCTION aedpics.lt(aedpics.word, aedpics.word) RETURNS boolean LANGUAGE internal STRICT IMMUTABLE AS 'text_lt';
CREATE FUNCTION aedpics.cmp(aedpics.word, aedpics.word) RETURNS int LANGUAGE internal STRICT IMMUTABLE AS 'bttextcmp';
CREATE FUNCTION aedpics.hash(aedpics.word) RETURNS int LANGUAGE internal STRICT IMMUTABLE AS 'hashtext';
CREATE OPERATOR aedpics.= (FUNCTION = aedpics.eq, LEFTARG = aedpics.word, RIGHTARG = aedpics.word);
CREATE OPERATOR aedpics.< (FUNCTION = aedpics.lt, LEFTARG = aedpics.word, RIGHTARG = aedpics.word);
CREATE OPERATOR ci.= (FUNCTION = aedpics.eq, LEFTARG = aedpics.word, RIGHTARG = aedpics.word);
CREATE OPERATOR CLASS aedpics.other_ops FOR TYPE aedpics.word USING btree AS
    OPERATOR 1 aedpics.<, OPERATOR 3 ci.=, FUNCTION 1 aedpics.cmp(aedpics.word, aedpics.word);
CREATE OPERATOR CLASS aedpics.word_ops DEFAULT FOR TYPE aedpics.word USING hash AS
    OPERATOR 1 aedpics.=, FUNCTION 1 aedpics.hash(aedpics.word);
CREATE OPERATOR CLASS aedpics.word_ops DEFAULT FOR TYPE aedpics.word USING btree AS
    OPERATOR 1 aedpics.<, OPERATOR 3 aedpics.=, FUNCTION 1 aedpics.cmp(aedpics.word, aedpics.word);

CREATE CAST (aedpics.label AS ci.citext) WITHOUT FUNCTION AS IMPLICIT;
CREATE CAST (aedpics.label AS text) WITHOUT FUNCTION AS IMPLICIT;
CREATE CAST (aedpics.label AS aedpics.word) WITHOUT FUNCTION AS IMPLICIT;

CREATE FUNCTION aedpics.age(aedpics.code) RETURNS interval IMMUTABLE LANGUAGE sql AS $$SELECT interval '1 h'$$;
CREATE CAST (aedpics.code AS ci.citext) WITHOUT FUNCTION AS IMPLICIT;
CREATE CAST (aedpics.code AS text) WITHOUT FUNCTION AS ASSIGNMENT;
CREATE CAST (aedpics.code AS interval) WITH FUNCTION aedpics.age AS IMPLICIT;

CREATE DOMAIN aedpics.base AS ci.citext;
CREATE DOMAIN aedpics.serial AS aedpics.base;
CREATE DOMAIN aedpics.serials AS text[];
CREATE TYPE aedpics.pair AS (one int, two text);
"""
_COLUMNS = {
    **{f"c{number}": (type_, "pg_catalog") for number, type_ in enumerate((
        "text", "varchar(20)", "char(5)", "smallint", "cidr", "regclass", "varchar[]", "int4range",
        "aedpics.session_status", "aedpics.pair", "aedpics.serials"))},
    **{f"o{number}": (type_, "ci") for number, type_ in enumerate(("ci.citext", "aedpics.serial", "aedpics.code"))},
    **{f"p{number}": (f"aedpics.{type_}", "aedpics") for number, type_ in enumerate(("word", "label"))},
}  # fmt: skip

_OF_THE_INDEX = """
SELECT s.nspname, o.oprname FROM pg_index AS x JOIN pg_opclass AS c ON c.oid = x.indclass[0]
JOIN pg_amop AS e ON e.amopfamily = c.opcfamily AND e.amopstrategy = 3
    AND (e.amoplefttype, e.amoprighttype) = (c.opcintype, c.opcintype)
JOIN pg_operator AS o ON o.oid = e.amopopr JOIN pg_namespace AS s ON s.oid = o.oprnamespace
WHERE x.indexrelid = %s::regclass"""


@pytest.mark.versions
def test_it_is_the_one_of_an_index_on_the_column(connection: Connection, plan: Plan) -> None:
    run(connection, "CREATE SCHEMA ci")
    make_citext(connection, "ci")
    columns = dict(_COLUMNS)
    if connection.server_version >= 140_000:
        columns["m"] = ("int4multirange", "pg_catalog")
    declared = ", ".join(f"{name} {type_}" for name, (type_, _) in columns.items())
    run(connection, f"{_TYPES} CREATE TABLE aedpics.t ({declared})")
    indexed = {}
    for name in columns:
        run(connection, f"CREATE UNIQUE INDEX one_{name} ON aedpics.t ({name})")
        indexed[name] = run(connection, _OF_THE_INDEX, f"aedpics.one_{name}")
    assert indexed == {name: [(schema, "=")] for name, (_, schema) in columns.items()}, "the control"
    on = replace(plan, table="t")
    with connection, connection.cursor() as cursor:
        looked_up = {name: equality(cursor, on, name).as_string(cursor) for name in columns}
    assert looked_up == {name: f'OPERATOR("{schema}".=)' for name, (_, schema) in columns.items()}


class TestAnOperatorClassThatThePlanNames:
    @pytest.fixture(autouse=True)
    def classes(self, connection: Connection) -> None:
        """Of one name, in a schema of the service and in the server's own."""
        run(
            connection,
            """CREATE OPERATOR aedpics.= (FUNCTION = texteq, LEFTARG = text, RIGHTARG = text);
            CREATE OPERATOR aedpics.< (FUNCTION = text_lt, LEFTARG = text, RIGHTARG = text);
            CREATE OPERATOR CLASS aedpics.text_ops FOR TYPE text USING btree AS
                OPERATOR 1 aedpics.<, OPERATOR 3 aedpics.=, FUNCTION 1 bttextcmp(text, text);
            CREATE TABLE aedpics.t (number int, name text, address inet)""",
        )

    def named(self, plan: Plan, column: str, opclass: str) -> Plan:
        key = IndexKey(column, None, None, None, opclass, None)
        return replace(plan, table="t", rule_index=replace(plan.rule_index, keys=(key,)))

    @pytest.mark.parametrize(
        ("column", "opclass"),
        [
            ("number", "int4_ops"),  # whose family compares other integers, too
            ("number", "pg_catalog.int4_ops"),
            ("name", "text_ops"),
            ("name", "varchar_pattern_ops"),
            ("address", "inet_ops"),  # the name of classes of other methods, too
            ("name", "of_no_class_ops"),  # for the index's build to say
        ],
    )
    def test_with_the_same_equality_it_is_taken(
        self, connection: Connection, plan: Plan, column: str, opclass: str
    ) -> None:
        with connection, connection.cursor() as cursor:
            refuse_other_equality(cursor, self.named(plan, column, opclass))

    def test_of_another_schema_it_is_another_one(self, connection: Connection, plan: Plan) -> None:
        with (
            connection,
            connection.cursor() as cursor,
            pytest.raises(
                OperatorError, match=r"compares name with aedpics\.= of aedpics\.text_ops; .* pg_catalog\.=\."
            ),
        ):
            refuse_other_equality(cursor, self.named(plan, "name", "aedpics.text_ops"))
