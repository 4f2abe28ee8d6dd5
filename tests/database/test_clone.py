"""A clone to rehearse on: masked before anybody can look, then in the target's place; what a dump hides is said."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from at_most_one.errors import OperatorError
from at_most_one.fence.write_fence import raise_fence
from at_most_one.plan import Plan
from at_most_one.postgres import client_programs, own_schema
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.rehearsal import clone, masking, outside

from tests.support.postgres import Server

pytestmark = pytest.mark.pg_dump

PEOPLE = "aedpics.user_profiles"
MASKS: list[dict[str, Any]] = [
    {"column": f"{PEOPLE}.email", "unless": {"email": ["inspector1@example.test"]}},
    {"column": f"{PEOPLE}.full_name", "how": "text", "text": "100% somebody", "unless": {"id": ["none"]}},
    {"column": "aedpics.inspection_sessions.notes", "how": "null"},
    {"column": "aedpics.inspection_sessions.equipment_serial"},
]


def rows(login: Login, query: str) -> list[tuple[Any, ...]]:
    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return list(cursor.fetchall())


def execute(login: Login, *statements: str) -> None:
    with connect(login, autocommit=True) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@pytest.fixture
def target(server: Server, login: Login) -> Iterator[Login]:
    """The database of the environment that rehearses, with something in it and rights of its own."""
    name = f"{login.dbname}_target"
    server.run(f"CREATE DATABASE {name}", f"GRANT CONNECT ON DATABASE {name} TO pg_monitor")
    there = replace(login, dbname=name)
    execute(there, "CREATE TABLE public.of_before (n integer)")
    yield there
    server.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", f"DROP DATABASE IF EXISTS {name}_clone WITH (FORCE)")


@pytest.fixture
def source(login: Login, seed_guide_example: Callable[[Connection], Any]) -> Login:
    """The guide's example, with an INVALID index and a trigger that would copy what is masked; nobody is connected."""
    with connect(login) as opened:
        seed_guide_example(opened)
    with pytest.raises(psycopg2.errors.UniqueViolation):
        execute(login, "CREATE UNIQUE INDEX CONCURRENTLY idx_broken ON aedpics.inspection_sessions (equipment_serial)")
    execute(
        login,
        "CREATE TABLE aedpics.audit (old text)",
        "CREATE FUNCTION aedpics.audit() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN INSERT INTO aedpics.audit VALUES (OLD::text); RETURN NEW; END$$",
        f"CREATE TRIGGER audit AFTER UPDATE ON {PEOPLE} FOR EACH ROW EXECUTE FUNCTION aedpics.audit()",
        "ANALYZE",
    )
    return login


def _arguments(login: Login) -> dict[str, Any]:
    return {name: getattr(login, name) for name in ("host", "port", "dbname", "user", "password")}


def _copy(
    server: Server,
    target: Login,
    source: clone.Source,
    masks: list[dict[str, Any]],
    *readable: str,
    accepted: Sequence[str] = (),
) -> clone.Cloned:
    return clone.make(
        target,
        source,
        masking.parse(masks),
        maintenance="postgres",
        search_path=str(server.binaries),
        readable=["aedpics.aed_data.equipment_serial", *readable],  # the devices themselves
        accepted=accepted,
    )


def assert_masked(target: Login) -> None:
    emails = {email for (email,) in rows(target, f"SELECT email FROM {PEOPLE}")}
    assert len(emails) == 3, "different values stay different"
    assert {email for email in emails if "@" in email} == {"inspector1@example.test"}
    assert rows(target, f"SELECT DISTINCT full_name FROM {PEOPLE}") == [("100% somebody",)]
    assert rows(target, "SELECT count(*) FROM aedpics.inspection_sessions WHERE notes IS NOT NULL") == [(0,)]
    serials = rows(target, "SELECT count(DISTINCT equipment_serial), count(*) FROM aedpics.inspection_sessions")
    assert serials == [(11, 69)], "duplicates stay duplicates"
    assert rows(target, "SELECT count(*) FROM aedpics.audit") == [(0,)], "a trigger has copied nothing"
    enabled = rows(target, "SELECT tgenabled::text FROM pg_catalog.pg_trigger WHERE tgname = 'audit'")
    assert enabled == [("O",)], "and is on again"
    statistics = "SELECT most_common_vals::text, histogram_bounds::text FROM pg_catalog.pg_stats WHERE tablename IN "
    values = [
        value for pair in rows(target, f"{statistics} ('user_profiles', 'inspection_sessions')") for value in pair
    ]
    assert any(value and masking.PREFIX in value for value in values)
    assert not any(value and ("AED-0" in value or "점검" in value) for value in values), "the planner knows nothing old"


def test_a_live_database_is_copied_and_masked(server: Server, source: Login, target: Login, tmp_path: Path) -> None:
    before = rows(source, f"SELECT t::text FROM {PEOPLE} t ORDER BY 1")

    made = _copy(server, target, clone.Source(login=source), MASKS)

    assert made.invalid_indexes == ["aedpics.idx_broken on inspection_sessions"], "a dump would hide it"
    assert made.masked[f"{PEOPLE}.email"] == 2
    assert source.password not in made.source
    assert_masked(target)
    assert rows(target, "SELECT to_regclass('public.of_before') IS NULL") == [(True,)]
    assert rows(source, f"SELECT t::text FROM {PEOPLE} t ORDER BY 1") == before, "the source is only read"
    grants = "SELECT has_database_privilege('pg_monitor', current_database(), 'CONNECT'), current_database()::text"
    assert rows(target, grants) == [(True, target.dbname)]
    assert rows(target, "SELECT datname FROM pg_catalog.pg_database WHERE datname LIKE '%\\_clone'") == []
    assert rows(target, "SELECT datname FROM pg_catalog.pg_database WHERE datname LIKE '%\\_replaced'") == []


def test_a_dump_file_is_too_and_cannot_say_which_indexes_are_invalid(
    server: Server, source: Login, target: Login, tmp_path: Path
) -> None:
    dump = tmp_path / "production.dump"
    with client_programs.access(source) as access:
        assert not any(source.password in value for value in access.environment.values()), "no process list shows it"
        command = [str(server.binaries / "pg_dump"), "--format=custom", f"--file={dump}"]
        client_programs.run(command, access, [source.password], "none")

    made = _copy(server, target, clone.Source(dump=str(dump)), MASKS)

    assert made.invalid_indexes is None
    assert_masked(target)


def test_a_template_is_too_without_its_journal(
    server: Server, source: Login, target: Login, run_module: Callable[..., dict[str, Any]]
) -> None:
    execute(source, "CREATE SCHEMA at_most_one", "CREATE TABLE at_most_one.archived_row (row text)")
    args: dict[str, Any] = {"login": {**_arguments(target)}, "source_template": source.dbname, "masked_columns": MASKS}
    args["readable_columns"] = ["aedpics.aed_data.equipment_serial"]

    checked = run_module("database_clone", args, check=True)
    assert (checked["changed"], checked["masked"]) == (True, {})
    assert rows(target, "SELECT to_regclass('public.of_before') IS NULL") == [(False,)], "check mode changes nothing"
    made = run_module("database_clone", args)

    assert made["invalid_indexes"] == ["aedpics.idx_broken on inspection_sessions"]
    assert_masked(target)
    assert rows(target, "SELECT to_regnamespace('at_most_one') IS NULL") == [(True,)]


LOG = f"CREATE TABLE aedpics.mail_log AS SELECT pg_catalog.jsonb_build_object('to', email) AS said FROM {PEOPLE}"


def test_a_view_that_holds_what_is_masked_is_written_anew_and_no_text_has_it(
    server: Server, source: Login, target: Login, run_module: Callable[..., dict[str, Any]]
) -> None:
    """A materialized view of a view of a materialized view, made in the order of their names backwards."""
    execute(
        source,
        f"CREATE MATERIALIZED VIEW aedpics.z_people AS SELECT email FROM {PEOPLE}",
        "CREATE VIEW aedpics.m_people AS SELECT pg_catalog.upper(email) AS loud FROM aedpics.z_people",
        "CREATE MATERIALIZED VIEW aedpics.a_people AS SELECT loud FROM aedpics.m_people",
        f"CREATE MATERIALIZED VIEW aedpics.b_empty AS SELECT email FROM {PEOPLE} WITH NO DATA",
    )
    args: dict[str, Any] = {
        "login": {**_arguments(target)},
        "masked_columns": MASKS[:1],
        "environment_path": str(server.binaries),
    }
    with_login = {**args, "source_login": {**_arguments(source)}}

    made = run_module("database_clone", with_login)

    emails = rows(target, f"SELECT email FROM {PEOPLE} ORDER BY 1")
    assert rows(target, "SELECT email FROM aedpics.z_people ORDER BY 1") == emails
    assert rows(target, "SELECT loud FROM aedpics.a_people ORDER BY 1") == sorted((e.upper(),) for (e,) in emails)
    populated = "SELECT relispopulated FROM pg_catalog.pg_class WHERE relname = 'b_empty'"
    assert rows(target, populated) == [(False,)], "as it was"
    assert made["searched"]["values"] == 2, "the account of the checks stays readable"
    assert made["searched"]["columns"] > 5
    assert made["left_out"] == []


def test_a_masked_value_that_stands_elsewhere_stops_the_copy_and_is_not_shown(
    server: Server, source: Login, target: Login
) -> None:
    execute(source, LOG)
    masks = MASKS[:1]
    with pytest.raises(OperatorError, match=r"masked elsewhere, in aedpics\.mail_log\.said \(2 rows\)") as stopped:
        _copy(server, target, clone.Source(template=source.dbname), masks)
    assert "@" not in str(stopped.value)
    assert rows(target, "SELECT to_regclass('public.of_before') IS NULL") == [(False,)], "the target is as it was"

    _copy(server, target, clone.Source(template=source.dbname), masks, "aedpics.mail_log.said")
    assert rows(target, "SELECT count(*) FROM aedpics.mail_log") == [(3,)]


def test_no_kind_of_column_hides_a_masked_value(server: Server, source: Login, target: Login) -> None:
    execute(
        source,
        "CREATE DOMAIN aedpics.document AS jsonb",
        "CREATE TYPE aedpics.contact AS (address text, calls integer)",
        "CREATE TABLE aedpics.kinds AS SELECT pg_catalog.to_tsvector('pg_catalog.simple', email) AS words,"
        " ARRAY[pg_catalog.to_jsonb(email)] AS list, pg_catalog.to_jsonb(email)::aedpics.document AS document,"
        f" ROW(email, 1)::aedpics.contact AS contact FROM {PEOPLE}",
    )
    with pytest.raises(OperatorError, match="masked elsewhere") as stopped:
        _copy(server, target, clone.Source(template=source.dbname), MASKS[:1])
    found = [f"aedpics.kinds.{name} (2 rows)" for name in ("contact", "document", "list", "words")]
    assert ", ".join(found) in str(stopped.value)


REFUSED = "$$BEGIN RAISE 'no change of the schema'; END$$"


@pytest.fixture
def owner(server: Server, target: Login) -> Iterator[Login]:
    """The target's owner as a provider gives it: it may create databases, and is no superuser."""
    name = f"{target.dbname}_owner"
    server.run(f"CREATE ROLE {name} LOGIN CREATEDB PASSWORD 'plain'", f"ALTER DATABASE {target.dbname} OWNER TO {name}")
    yield replace(target, user=name, password="plain")
    server.drop(target.dbname)  # and what the role owns in it
    server.run(f"DROP ROLE {name}")


@pytest.mark.parametrize("way", ["live", "dump", "template"])
def test_an_event_trigger_of_the_source_does_not_stop_a_superuser(
    server: Server, source: Login, target: Login, tmp_path: Path, way: str
) -> None:
    try:
        _event_trigger(source)
        made = _copy(server, target, _source(server, source, tmp_path, way), MASKS)
        assert made.left_out == []
        assert rows(target, "SELECT evtname::text, evtenabled::text FROM pg_catalog.pg_event_trigger") == [
            ("refuse ddl", "A")
        ]
        assert_masked(target)
    finally:
        execute(source, 'DROP EVENT TRIGGER "refuse ddl"')


@pytest.mark.parametrize("way", ["live", "dump"])
def test_an_event_trigger_of_the_source_is_left_out_by_name_for_anybody_else(
    server: Server, source: Login, target: Login, owner: Login, tmp_path: Path, way: str
) -> None:
    try:
        _event_trigger(source)
        made = _copy(server, owner, _source(server, source, tmp_path, way), MASKS)
        assert made.left_out == ["event trigger refuse ddl"]
        assert rows(target, "SELECT evtname::text FROM pg_catalog.pg_event_trigger") == []
        assert_masked(target)
    finally:
        execute(source, 'DROP EVENT TRIGGER "refuse ddl"')


def _event_trigger(source: Login) -> None:
    """One that refuses every change of the schema, in restores too."""
    execute(
        source,
        f"CREATE FUNCTION public.refuse_ddl() RETURNS event_trigger LANGUAGE plpgsql AS {REFUSED}",
        'CREATE EVENT TRIGGER "refuse ddl" ON ddl_command_start EXECUTE FUNCTION public.refuse_ddl()',
        'ALTER EVENT TRIGGER "refuse ddl" ENABLE ALWAYS',
    )


def _source(server: Server, source: Login, tmp_path: Path, way: str) -> clone.Source:
    if way == "live":
        return clone.Source(login=source)
    if way == "template":
        return clone.Source(template=source.dbname)
    dump = tmp_path / "production.dump"
    with client_programs.access(source) as access:
        command = [str(server.binaries / "pg_dump"), "--format=custom", f"--file={dump}"]
        client_programs.run(command, access, [source.password], "none")
    return clone.Source(dump=str(dump))


def test_settings_and_limits_of_the_target_stay(server: Server, source: Login, target: Login, owner: Login) -> None:
    settings = (
        f'ALTER DATABASE {target.dbname} SET search_path TO "$user", aedpics, "odd, name"',
        f"ALTER DATABASE {target.dbname} SET work_mem TO '7MB'",
        f"ALTER DATABASE {target.dbname} SET my.own TO 'a, b'",
        f"ALTER ROLE {owner.user} IN DATABASE {target.dbname} SET statement_timeout TO '9s'",
        f"ALTER DATABASE {target.dbname} CONNECTION LIMIT 17",
    )
    server.run(*settings)
    query = (
        "SELECT d.datconnlimit, s.setrole, s.setconfig FROM pg_catalog.pg_database d"
        " JOIN pg_catalog.pg_db_role_setting s ON s.setdatabase = d.oid WHERE d.datname = current_database() ORDER BY 2"
    )
    before = rows(target, query)
    assert len(before) == 2

    made = _copy(server, target, clone.Source(template=source.dbname), MASKS)

    assert rows(target, query) == before
    assert made.left_out == []


def test_a_setting_that_only_a_superuser_may_give_is_named(
    server: Server, source: Login, target: Login, owner: Login
) -> None:
    server.run(f"ALTER DATABASE {target.dbname} SET log_statement TO 'ddl'")
    assert _copy(server, owner, clone.Source(login=source), MASKS).left_out == ["setting log_statement"]


def test_an_icu_locale_of_the_target_stays(server: Server, source: Login, target: Login) -> None:
    (version,) = rows(target, "SELECT pg_catalog.current_setting('server_version_num')::int / 10000")[0]
    if version < 15:
        query = "SELECT datcollate::text FROM pg_catalog.pg_database WHERE datname = current_database()"
        expected = rows(target, query)
    else:
        server.run(
            f"DROP DATABASE {target.dbname}",
            f"CREATE DATABASE {target.dbname} TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'ko-KR'",
        )
        name = "datlocale" if version >= 17 else "daticulocale"
        query = (
            f"SELECT datlocprovider::text, {name}::text FROM pg_catalog.pg_database WHERE datname = current_database()"
        )
        expected = [("i", "ko-KR")]
    _copy(server, target, clone.Source(login=source), MASKS)
    assert rows(target, query) == expected


def test_what_pg_restore_says_of_a_row_is_not_repeated(
    server: Server, source: Login, target: Login, tmp_path: Path
) -> None:
    """COPY fails at a row: its message names the value, DETAIL the key, CONTEXT the whole line."""
    execute(
        source,
        "CREATE FUNCTION public.broken(email text) RETURNS boolean LANGUAGE plpgsql AS"
        " $$BEGIN IF current_database() LIKE '%clone' THEN RAISE 'not this one: %', email; END IF; RETURN true; END$$",
        f"ALTER TABLE {PEOPLE} ADD CONSTRAINT holds CHECK (public.broken(email))",
    )
    for given in (clone.Source(login=source), _source(server, source, tmp_path, "dump")):
        with pytest.raises(OperatorError) as stopped:
            _copy(server, target, given, MASKS)
        assert "COPY failed for table" in str(stopped.value)
        assert "@" not in str(stopped.value)


FAULTS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "a column that is not there": ([{"column": f"{PEOPLE}.phone"}], f"{PEOPLE}.phone is not there"),
    "a hash of no text": ([{"column": f"{PEOPLE}.id"}], "is no text"),
    "a null that the column refuses": ([{"column": f"{PEOPLE}.email", "how": "null"}], "could not be made"),
    "a text that is not unique": ([{"column": f"{PEOPLE}.email", "how": "text", "text": "x"}], "could not be made"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_copy_that_fails_leaves_the_target_alone(server: Server, source: Login, target: Login, fault: str) -> None:
    masks, message = FAULTS[fault]
    with pytest.raises(OperatorError, match="(?s)" + message):
        _copy(server, target, clone.Source(template=source.dbname), masks)
    assert rows(target, "SELECT to_regclass('public.of_before') IS NULL") == [(False,)]
    assert rows(target, "SELECT datname FROM pg_catalog.pg_database WHERE datname LIKE '%\\_clone'") == []


def test_what_is_in_another_database_is_never_masked_there(server: Server, source: Login, target: Login) -> None:
    """A partition that is a foreign table: the copy has its server and its login, and would write to it."""
    execute(
        source,
        "CREATE FOREIGN DATA WRAPPER elsewhere",
        "CREATE SERVER elsewhere FOREIGN DATA WRAPPER elsewhere",
        "CREATE TABLE aedpics.visitors (year integer, email text) PARTITION BY LIST (year)",
        "CREATE TABLE aedpics.visitors_now PARTITION OF aedpics.visitors FOR VALUES IN (2025)",
    )
    masks = [{"column": "aedpics.visitors.email"}]
    _copy(server, target, clone.Source(template=source.dbname), masks)
    execute(
        source,
        "CREATE FOREIGN TABLE aedpics.visitors_old PARTITION OF aedpics.visitors FOR VALUES IN (2024) SERVER elsewhere",
    )
    with pytest.raises(OperatorError, match=r"rows in foreign tables: aedpics\.visitors_old\.") as stopped:
        _copy(server, target, clone.Source(template=source.dbname), masks)
    assert "Nothing was changed" in str(stopped.value)
    assert rows(target, "SELECT to_regclass('aedpics.visitors_old') IS NULL") == [(True,)], "the copy of before"


LOGINS = "SELECT srvname::text, usename::text FROM pg_catalog.pg_user_mappings ORDER BY 2"


@pytest.mark.parametrize("kind", ["template", "live", "dump"])
def test_a_copy_has_no_login_to_another_server(
    server: Server, source: Login, target: Login, tmp_path: Path, kind: str
) -> None:
    """What is tried on the copy would be written where the source writes."""
    execute(
        source,
        "CREATE FOREIGN DATA WRAPPER elsewhere",
        'CREATE SERVER "else where" FOREIGN DATA WRAPPER elsewhere',
        "CREATE USER MAPPING FOR PUBLIC SERVER \"else where\" OPTIONS (password 'hunter2')",
        'CREATE USER MAPPING FOR pg_monitor SERVER "else where"',
        'CREATE FOREIGN TABLE aedpics.far (n integer) SERVER "else where"',
    )
    before = rows(source, LOGINS)
    assert len(before) == 2

    made = _copy(server, target, _source(server, source, tmp_path, kind), MASKS)

    assert made.cut_off == ["PUBLIC at else where", "pg_monitor at else where"]
    assert rows(target, LOGINS) == []
    assert rows(target, "SELECT to_regclass('aedpics.far') IS NULL") == [(False,)]
    assert rows(source, LOGINS) == before


@pytest.mark.parametrize("kind", ["template", "live", "dump"])
def test_a_source_whose_extensions_reach_outside_is_refused_unless_they_are_accepted(
    server: Server, source: Login, target: Login, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """One that every server has stands for dblink and its like."""
    monkeypatch.setattr(outside, "REACHING", ("dblink", "plpgsql"))
    given = _source(server, source, tmp_path, kind)
    with pytest.raises(OperatorError, match=r"start jobs by themselves: plpgsql\. A copy of it would do so") as stopped:
        _copy(server, target, given, MASKS)
    assert "rehearsal_accepted_extensions" in str(stopped.value)
    assert rows(target, "SELECT to_regclass('public.of_before') IS NULL") == [(False,)], "the target is as it was"
    assert rows(target, "SELECT datname FROM pg_catalog.pg_database WHERE datname LIKE '%\\_clone'") == []
    assert _copy(server, target, given, MASKS, accepted=["plpgsql"]).cut_off == []


def test_nobody_else_can_connect_before_it_is_masked(
    server: Server, source: Login, target: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another role of the server tries at the moment before the first column is replaced."""
    tried = []
    apply = masking.apply

    def look_first(connection: Connection, masks: Any) -> Any:
        intruder = replace(target, dbname=f"{target.dbname}_clone", user="intruder", password="intruder")
        with pytest.raises(OperatorError, match="permission denied for database"), connect(intruder):
            pass
        tried.append(intruder)
        return apply(connection, masks)

    monkeypatch.setattr(masking, "apply", look_first)
    server.run("CREATE ROLE intruder LOGIN PASSWORD 'intruder'")
    try:
        _copy(server, target, clone.Source(template=source.dbname), MASKS)
        assert tried
        with connect(replace(target, user="intruder", password="intruder")):
            pass  # the target's own rights: everybody may connect
    finally:
        server.run("DROP ROLE intruder")


def test_a_database_is_not_cloned_onto_itself_nor_in_the_middle_of_a_deployment(
    server: Server, source: Login, target: Login, plan: Plan
) -> None:
    with pytest.raises(OperatorError, match="are one database"):
        _copy(server, source, clone.Source(login=source), [])
    with connect(source) as connection:
        raise_fence(connection, plan)
    with pytest.raises(OperatorError, match="has a write fence"):
        _copy(server, target, clone.Source(login=source), [])


@pytest.mark.parametrize("name", ["a", "n" * 63, "가" * 21])
def test_the_copy_has_a_name_of_its_own(name: str) -> None:
    beside = clone.name_beside(name)
    assert beside != name
    assert len(beside.encode()) <= 63, "PostgreSQL cuts a longer one"


@pytest.mark.parametrize("check", [True, False])
def test_a_database_that_another_environment_was_deployed_into_is_not_replaced(
    source: Login, target: Login, run_module: Callable[..., dict[str, Any]], check: bool
) -> None:
    """A wrong address in the inventory: production's database in the place of staging's."""
    with connect(target) as connection:
        own_schema.ensure(connection)
    execute(
        target,
        "INSERT INTO at_most_one.run (run_id, plan_id, plan_sha256, environment, who, controller, controller_pid,"
        " lease, lease_until, finished_at, outcome) VALUES"
        " ('one', 'another-plan', 'x', 'production', 'somebody', 'gone', 1, '1 h', now(), now(), 'deployed')",
    )
    args: dict[str, Any] = {"login": {**_arguments(target)}, "source_template": source.dbname, "masked_columns": MASKS}
    args |= {"readable_columns": ["aedpics.aed_data.equipment_serial"], "environment": "staging"}

    refused = run_module("database_clone", args, check=check)

    assert refused["failed"]
    assert "was deployed to as production, and this is staging." in refused["msg"]
    assert rows(target, "SELECT to_regclass('public.of_before') IS NULL") == [(False,)], "it is as it was"
    execute(target, "UPDATE at_most_one.run SET environment = 'staging'")
    assert run_module("database_clone", args, check=check)["changed"], "its own runs are no reason"


def test_a_foreign_database_of_the_clones_name_is_not_dropped(server: Server, source: Login, target: Login) -> None:
    server.run(f"CREATE DATABASE {target.dbname}_clone")
    with pytest.raises(OperatorError, match="is not a clone that was left unfinished"):
        _copy(server, target, clone.Source(template=source.dbname), [])
    assert rows(replace(target, dbname=f"{target.dbname}_clone"), "SELECT 1") == [(1,)]
