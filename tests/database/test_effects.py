"""What a change of the planned table sets off, read from the catalog: each by its whole name, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from at_most_one.duplicates import effects
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan, Surplus
from at_most_one.postgres.connection import Connection, Login, connect

from tests.database.cleaning import TABLE, run

INSERT, DELETE, UPDATE = 4, 8, 16
FUNCTIONS = """
CREATE SCHEMA other;
CREATE TABLE other.inspection_sessions (LIKE aedpics.inspection_sessions INCLUDING ALL);
CREATE TABLE aedpics.beside (LIKE aedpics.inspection_sessions);
CREATE VIEW aedpics.shown AS SELECT * FROM aedpics.inspection_sessions;
CREATE FUNCTION other.meddle() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;
CREATE FUNCTION aedpics.watch() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN END$$;
CREATE SCHEMA at_most_one;
CREATE FUNCTION at_most_one.ours() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;
"""


def found(connection: Connection, table: str, *which: int) -> list[str]:
    with connection, connection.cursor() as cursor:
        return [str(one) for one in effects.of_table(cursor, "aedpics", table, *which)]


def test_triggers_and_rules(connection: Connection) -> None:
    run(connection, FUNCTIONS)
    for name, when, table, each in (
        ("a_delete", "BEFORE DELETE", TABLE, "ROW"),
        ("b_insert", "AFTER INSERT", TABLE, "ROW"),
        ("c_update", "AFTER UPDATE", TABLE, "STATEMENT"),
        ("d_always", "BEFORE UPDATE OR DELETE", TABLE, "STATEMENT"),
        ("e_replica", "BEFORE DELETE", TABLE, "ROW"),
        ("f_disabled", "BEFORE DELETE", TABLE, "ROW"),
        ("g_other", "BEFORE DELETE", "other.inspection_sessions", "ROW"),
        ("h_beside", "BEFORE DELETE", "aedpics.beside", "ROW"),
        ("i_view", "INSTEAD OF DELETE", "aedpics.shown", "ROW"),
    ):
        run(connection, f"CREATE TRIGGER {name} {when} ON {table} FOR EACH {each} EXECUTE FUNCTION other.meddle()")
    run(
        connection,
        f"""CREATE TRIGGER ours AFTER DELETE ON {TABLE} FOR EACH ROW EXECUTE FUNCTION at_most_one.ours();
            ALTER TABLE {TABLE} ENABLE ALWAYS TRIGGER d_always, ENABLE REPLICA TRIGGER e_replica,
                DISABLE TRIGGER f_disabled;
            CREATE RULE r_delete AS ON DELETE TO {TABLE} DO INSTEAD NOTHING;
            CREATE RULE r_insert AS ON INSERT TO {TABLE} DO ALSO NOTHING;
            CREATE RULE r_update AS ON UPDATE TO {TABLE} DO ALSO NOTHING;
            CREATE RULE r_other AS ON DELETE TO other.inspection_sessions DO INSTEAD NOTHING;
            CREATE RULE r_beside AS ON DELETE TO aedpics.beside DO INSTEAD NOTHING""",
    )
    rules = [
        f"rule r_delete of {TABLE} (ON DELETE: does something instead)",
        f"rule r_insert of {TABLE} (ON INSERT: does something also)",
        f"rule r_update of {TABLE} (ON UPDATE: does something also)",
    ]
    delete = f"trigger a_delete of {TABLE} (BEFORE DELETE FOR EACH ROW: other.meddle)"
    insert = f"trigger b_insert of {TABLE} (AFTER INSERT FOR EACH ROW: other.meddle)"
    update = f"trigger c_update of {TABLE} (AFTER UPDATE FOR EACH STATEMENT: other.meddle)"
    always = f"trigger d_always of {TABLE} (BEFORE DELETE OR UPDATE FOR EACH STATEMENT: other.meddle)"
    table = TABLE.partition(".")[2]
    assert found(connection, table) == [*rules, delete, insert, update, always]
    assert found(connection, table, DELETE) == [*rules, delete, always]
    assert found(connection, table, DELETE | INSERT) == [*rules, delete, insert, always]
    assert found(connection, table, UPDATE | INSERT, 1) == [*rules, update, always]
    assert found(connection, "shown") == [
        "rule _RETURN of aedpics.shown (ON SELECT: does something instead)",
        "trigger i_view of aedpics.shown (INSTEAD OF DELETE FOR EACH ROW: other.meddle)",
    ]


def test_event_triggers(connection: Connection, plan: Plan) -> None:
    run(connection, FUNCTIONS)
    for name, event, tags in (
        ("h_rewrite", "table_rewrite", ""),
        ("g_view", "ddl_command_end", "'CREATE VIEW'"),
        ("f_disabled", "ddl_command_end", ""),
        ("e_replica", "ddl_command_end", ""),
        ("d_schema", "ddl_command_end", "'CREATE SCHEMA'"),
        ("c_table", "ddl_command_start", "'CREATE TABLE'"),
        ("b_drop", "sql_drop", "'DROP INDEX', 'DROP VIEW'"),
        ("a_index", "ddl_command_end", "'CREATE INDEX'"),
        ("always", "ddl_command_start", ""),
    ):
        when = f"WHEN TAG IN ({tags})" if tags else ""
        run(connection, f"CREATE EVENT TRIGGER {name} ON {event} {when} EXECUTE FUNCTION aedpics.watch()")
    for name, state in (("f_disabled", "DISABLE"), ("e_replica", "ENABLE REPLICA"), ("always", "ENABLE ALWAYS")):
        run(connection, f"ALTER EVENT TRIGGER {name} {state}")
    with connection, connection.cursor() as cursor:
        named, acting = effects.of_plan(cursor, plan)
    assert acting == []
    assert [str(one) for one in named] == [
        "event trigger a_index of the database (ddl_command_end CREATE INDEX: aedpics.watch)",
        "event trigger always of the database (ddl_command_start: aedpics.watch)",
        "event trigger b_drop of the database (sql_drop DROP INDEX, DROP VIEW: aedpics.watch)",
        "event trigger c_table of the database (ddl_command_start CREATE TABLE: aedpics.watch)",
        "event trigger d_schema of the database (ddl_command_end CREATE SCHEMA: aedpics.watch)",
    ]


class TestForeignKeys:
    @pytest.fixture
    def family(self, connection: Connection) -> None:
        """Tables that refer to the plan's, and to those; ``other`` holds what must not be mixed up with them."""
        run(connection, FUNCTIONS)
        run(
            connection,
            f"""ALTER TABLE {TABLE} ADD COLUMN ticket int UNIQUE, ADD COLUMN stub int UNIQUE;
            ALTER TABLE {TABLE} ADD CONSTRAINT positive CHECK (ticket > 0);
            CREATE TABLE other.a_cascade (id int PRIMARY KEY, up uuid CONSTRAINT a REFERENCES {TABLE} ON DELETE CASCADE,
                ticket int CONSTRAINT au REFERENCES {TABLE} (ticket) ON UPDATE CASCADE);
            CREATE TABLE other.b_null (id int PRIMARY KEY, up uuid CONSTRAINT b REFERENCES {TABLE} ON DELETE SET NULL,
                ticket int CONSTRAINT bu REFERENCES {TABLE} (ticket) ON UPDATE SET NULL);
            CREATE TABLE other.c_default (up uuid CONSTRAINT c REFERENCES {TABLE} ON DELETE SET DEFAULT,
                ticket int CONSTRAINT cu REFERENCES {TABLE} (ticket) ON UPDATE SET DEFAULT);
            CREATE TABLE other.d_stops (id int PRIMARY KEY, up uuid CONSTRAINT d REFERENCES {TABLE},
                ticket int CONSTRAINT du REFERENCES {TABLE} (ticket),
                stub int CONSTRAINT ds REFERENCES {TABLE} (stub) ON UPDATE CASCADE);
            CREATE TABLE other.e_cascade (id int PRIMARY KEY,
                up int CONSTRAINT e REFERENCES other.a_cascade ON DELETE CASCADE ON UPDATE CASCADE,
                circle int CONSTRAINT ee REFERENCES other.e_cascade ON DELETE CASCADE);
            CREATE TABLE other.f_null (up int CONSTRAINT f REFERENCES other.a_cascade ON DELETE SET NULL,
                down int CONSTRAINT fe REFERENCES other.e_cascade ON DELETE SET DEFAULT);
            CREATE TABLE other.g_stops (up int CONSTRAINT g REFERENCES other.a_cascade,
                not_taken int CONSTRAINT gb REFERENCES other.b_null ON DELETE CASCADE,
                stops int CONSTRAINT gd REFERENCES other.d_stops ON DELETE CASCADE);
            CREATE TABLE aedpics.parts (up uuid CONSTRAINT p REFERENCES {TABLE} ON DELETE CASCADE,
                further int CONSTRAINT pa REFERENCES other.a_cascade ON DELETE CASCADE, n int) PARTITION BY LIST (n);
            CREATE TABLE aedpics.part PARTITION OF aedpics.parts FOR VALUES IN (1);
            CREATE TABLE other.strange (up uuid CONSTRAINT x REFERENCES other.inspection_sessions ON DELETE CASCADE,
                beside int CONSTRAINT y REFERENCES aedpics.aed_data ON DELETE CASCADE)""",
        )

    def acting(self, connection: Connection, plan: Plan) -> list[str]:
        with connection, connection.cursor() as cursor:
            return [str(one) for one in effects.of_plan(cursor, plan)[1]]

    def test_those_that_act_on_a_removal_and_theirs(self, connection: Connection, plan: Plan, family: None) -> None:
        assert self.acting(connection, plan) == [
            "foreign key a of other.a_cascade (ON DELETE: CASCADE)",
            "foreign key b of other.b_null (ON DELETE: SET NULL)",
            "foreign key c of other.c_default (ON DELETE: SET DEFAULT)",
            "foreign key p of aedpics.parts (ON DELETE: CASCADE)",
            "foreign key e of other.e_cascade (ON DELETE: CASCADE)",
            "foreign key f of other.f_null (ON DELETE: SET NULL)",
            "foreign key pa of aedpics.parts (ON DELETE: CASCADE)",
            "foreign key ee of other.e_cascade (ON DELETE: CASCADE)",
            "foreign key fe of other.f_null (ON DELETE: SET DEFAULT)",
        ]

    def test_those_that_follow_an_update(self, connection: Connection, plan: Plan, family: None) -> None:
        closing = replace(plan, surplus=Surplus("update", {"status": "cancelled", "ticket": "1"}, "stop", (), ()))
        assert self.acting(connection, closing) == [
            "foreign key au of other.a_cascade (ON UPDATE: CASCADE)",
            "foreign key bu of other.b_null (ON UPDATE: SET NULL)",
            "foreign key cu of other.c_default (ON UPDATE: SET DEFAULT)",
        ]

    @pytest.mark.parametrize(("references", "named"), [("stop", ["aaa"]), ("repoint", ["aaa", "bbb"])])
    def test_triggers_of_their_tables(
        self, connection: Connection, plan: Plan, family: None, references: Any, named: list[str]
    ) -> None:
        """Fired by a removal: a statement trigger of a table whose key acts; and where rows are pointed elsewhere, any
        trigger on their update."""
        for name, when, table, each in (
            ("aaa", "AFTER DELETE", "other.a_cascade", "STATEMENT"),
            ("bbb", "AFTER UPDATE", "other.d_stops", "ROW"),
            ("ccc", "AFTER DELETE", "other.a_cascade", "ROW"),
            ("ddd", "AFTER DELETE", "other.d_stops", "STATEMENT"),
            ("eee", "AFTER DELETE", "other.e_cascade", "STATEMENT"),
            ("fff", "AFTER UPDATE", "other.strange", "ROW"),
        ):
            run(connection, f"CREATE TRIGGER {name} {when} ON {table} FOR EACH {each} EXECUTE FUNCTION other.meddle()")
        with connection, connection.cursor() as cursor:
            named_by_plan = effects.of_plan(cursor, replace(plan, surplus=replace(plan.surplus, references=references)))
            assert [one.name for one in named_by_plan[0]] == named
            tables = ["a_cascade", "b_null", "c_default", "d_stops"]
            assert list(dict.fromkeys(effects.referring(cursor, plan))) == [
                ("aedpics", "parts"),
                *(("other", table) for table in tables),
            ]


def test_what_a_transaction_has_written(connection: Connection, login: Login, example: Any) -> None:
    run(connection, FUNCTIONS + "CREATE TABLE aedpics.emptied (id int PRIMARY KEY); CREATE TABLE at_most_one.kept ()")
    run(connection, "CREATE TABLE aedpics.locked (id int); CREATE TABLE aedpics.by_others (id int)")
    own = ("aedpics", "inspection_sessions")
    with connect(login) as other, other.cursor() as elsewhere, connection.cursor() as cursor:
        elsewhere.execute("LOCK TABLE aedpics.by_others IN ACCESS EXCLUSIVE MODE")
        before = effects.written(cursor)
        cursor.execute(f"UPDATE {TABLE} SET notes = 'x' WHERE id = %s", (min(example.surplus),))
        assert effects.written(cursor, before) == {own: 1}
        cursor.execute(
            "INSERT INTO aedpics.beside SELECT * FROM aedpics.inspection_sessions LIMIT 3;"
            "DELETE FROM aedpics.beside; INSERT INTO at_most_one.kept DEFAULT VALUES;"
            "CREATE TEMPORARY TABLE ours (id int); INSERT INTO ours VALUES (1);"
            "TRUNCATE aedpics.emptied; LOCK TABLE aedpics.locked IN EXCLUSIVE MODE; SELECT * FROM aedpics.locked"
        )
        wrote = effects.written(cursor, {**before, own: before.get(own, 0) + 1})
        assert wrote == {("aedpics", "beside"): 6, ("aedpics", "emptied"): 1}
        before = effects.written(cursor)
        cursor.execute("SELECT pg_catalog.lo_from_bytea(0, 'jpeg')")
        wrote = effects.written(cursor, before)
        assert wrote == {("pg_catalog", "pg_largeobject"): 1, ("pg_catalog", "pg_largeobject_metadata"): 1}
        connection.rollback()


def test_a_batch_of_which_no_row_went_has_changed_none(connection: Connection, plan: Plan) -> None:
    with connection, connection.cursor() as cursor:
        effects.refuse_other_rows(cursor, plan, {}, 0)
        with pytest.raises(OperatorError, match="The removal of 0 rows changed 1 rows"):
            effects.refuse_other_rows(cursor, plan, {(plan.schema, plan.table): 1}, 0)
