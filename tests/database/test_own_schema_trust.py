"""The schema at_most_one against a squatter, who was there first, and an analyst, who must not read the archive."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import psycopg2
import psycopg2.errors
import pytest
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan
from at_most_one.postgres import own_schema
from at_most_one.postgres.connection import Login, connect
from at_most_one.runs import journal

from tests.database.test_own_schema import CATALOG, FIRST_RELEASE, opening, rows
from tests.support.postgres import Server

ROLES = ("trust_deployer", "trust_squatter", "trust_analyst")
TABLES = ("run", "step", "archived_row", "repointed_row", "rehearsal", "request")


@pytest.fixture
def deployer(server: Server, login: Login) -> Iterator[Login]:
    """A role that is no superuser and may create a schema, as a service's own; the others may as well."""
    database = Server(login, server.binaries, server.data)
    for role in ROLES:
        database.run(
            f"CREATE ROLE {role} LOGIN PASSWORD 'only for tests'",
            f"GRANT CREATE ON DATABASE {login.dbname} TO {role}",
            f"GRANT USAGE ON SCHEMA aedpics TO {role}",
        )
    database.run("GRANT SELECT ON ALL TABLES IN SCHEMA aedpics TO trust_deployer")
    yield as_role(login, "trust_deployer")
    database.run(
        "DROP SCHEMA IF EXISTS at_most_one CASCADE", *(f"DROP OWNED BY {role}; DROP ROLE {role}" for role in ROLES)
    )


def as_role(login: Login, role: str) -> Login:
    return replace(login, user=role, password="only for tests")


def refused(login: Login, plan: Plan) -> OperatorError:
    """The refusal, which is the same whoever asks for the schema."""
    found = []
    for act in (
        lambda connection: journal.open_run(connection, opening(plan)),
        lambda connection: journal.look(connection, opening(plan)),
        journal.read,
        own_schema.has_archive,
        own_schema.ensure,
    ):
        with pytest.raises(OperatorError, match="has a hand in the schema") as stop, connect(login) as connection:
            act(connection)
        found.append(stop.value)
    assert len({str(stop) for stop in found}) == 1
    return found[0]


TRAP = """
CREATE TABLE public.caught (who text);
GRANT ALL ON public.caught TO PUBLIC;
CREATE FUNCTION {schema}.trap() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO public.caught VALUES (current_user); RETURN NEW; END $$;
"""


def test_a_squatters_schema_runs_nothing_and_is_named(deployer: Login, login: Login, plan: Plan) -> None:
    with connect(login) as connection:
        rows(connection, "GRANT CREATE ON SCHEMA public TO trust_squatter")
    with connect(as_role(login, "trust_squatter")) as squatter:
        rows(squatter, FIRST_RELEASE)
        rows(squatter, TRAP.format(schema="at_most_one"))
        rows(squatter, "GRANT ALL ON SCHEMA at_most_one TO PUBLIC")
        rows(squatter, "GRANT ALL ON ALL TABLES IN SCHEMA at_most_one TO PUBLIC")
        for table in ("run", "archived_row"):
            rows(
                squatter,
                f"CREATE TRIGGER trap BEFORE INSERT ON at_most_one.{table} FOR EACH ROW"
                " EXECUTE FUNCTION at_most_one.trap()",
            )
    for who in (deployer, login):  # a superuser most of all: the trap would run as one
        stop = refused(who, plan)
        assert {"the schema", "table at_most_one.run", "function at_most_one.trap"} <= set(stop.details["foreign"])
        assert "trigger trap on at_most_one.archived_row" in stop.details["foreign"]
        assert "the schema (of trust_squatter)" in stop.seen
    with connect(login) as connection:
        assert rows(connection, "SELECT * FROM public.caught") == []
        rows(connection, "DROP SCHEMA at_most_one CASCADE")  # as the refusal says
    with connect(deployer) as connection:
        assert journal.open_run(connection, opening(plan)).created


TRAPS = {
    "trigger trap on at_most_one.archived_row": "CREATE TRIGGER trap BEFORE INSERT ON at_most_one.archived_row"
    " FOR EACH ROW EXECUTE FUNCTION public.trap()",
    "rule trap on at_most_one.step": "CREATE RULE trap AS ON INSERT TO at_most_one.step DO INSTEAD NOTHING",
    "policy trap on at_most_one.run": "CREATE POLICY trap ON at_most_one.run USING (false)",
    "table at_most_one.rehearsal": "ALTER TABLE at_most_one.rehearsal OWNER TO trust_squatter",
    "view at_most_one.more": "CREATE VIEW at_most_one.more AS SELECT 1 AS one;"
    " ALTER VIEW at_most_one.more OWNER TO trust_squatter",
    "function at_most_one.more": "CREATE FUNCTION at_most_one.more(int) RETURNS int LANGUAGE sql AS 'SELECT 1';"
    " ALTER FUNCTION at_most_one.more(int) OWNER TO trust_squatter",
}


def test_one_trap_in_our_own_schema_is_named_with_what_ends_it(deployer: Login, login: Login, plan: Plan) -> None:
    with connect(deployer) as connection:
        own_schema.ensure(connection)
    with connect(login) as connection:
        rows(connection, TRAP.format(schema="public"))
    for name, trap in TRAPS.items():
        with connect(login) as connection:
            rows(connection, trap)
        stop = refused(deployer, plan)
        assert stop.details["foreign"] == [name]
        remedy = stop.next_step.partition("as their owner or a superuser: ")[2].partition("; then run this again")[0]
        with connect(login) as connection:
            rows(connection, remedy)
    with connect(deployer) as connection:
        assert journal.open_run(connection, opening(plan)).run_id


def test_a_member_of_the_squatters_role_does_not_trust_it(deployer: Login, login: Login, plan: Plan) -> None:
    with connect(as_role(login, "trust_squatter")) as squatter:
        rows(squatter, "CREATE SCHEMA at_most_one")
    with connect(login) as connection:
        rows(connection, "GRANT trust_squatter TO trust_deployer")
    assert "ALTER SCHEMA at_most_one OWNER TO trust_deployer" in refused(deployer, plan).next_step


DEFAULTS = (
    "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO trust_analyst",
    "ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO trust_analyst, PUBLIC",
    "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC",
    "ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO PUBLIC",
)
GRANTED = """
SELECT c.relname, a.grantee::regrole FROM pg_class AS c, aclexplode(c.relacl) AS a
WHERE c.relnamespace = 'at_most_one'::regnamespace AND a.grantee <> c.relowner
UNION ALL SELECT 'schema', a.grantee::regrole FROM pg_namespace AS n, aclexplode(n.nspacl) AS a
WHERE n.nspname = 'at_most_one' AND a.grantee <> n.nspowner"""


def reads(login: Login, table: str) -> bool:
    with contextlib.suppress(psycopg2.errors.InsufficientPrivilege), connect(login) as connection:
        rows(connection, f"SELECT count(*) FROM at_most_one.{table}")
        return True
    return False


@pytest.mark.parametrize("older", [False, True], ids=["created", "upgraded"])
def test_an_analyst_reads_none_of_it_whatever_the_default_privileges(
    deployer: Login, login: Login, plan: Plan, older: bool
) -> None:
    with connect(deployer) as connection:
        for statement in DEFAULTS:
            rows(connection, statement)
        if older:
            rows(connection, FIRST_RELEASE)
    analyst = as_role(login, "trust_analyst")
    if older:
        assert reads(analyst, "archived_row")
    with connect(deployer) as connection:
        journal.open_run(connection, opening(plan))

    assert [table for table in TABLES if reads(analyst, table)] == []
    with connect(login) as connection:
        assert rows(connection, GRANTED) == []
        assert {name for name, *_ in rows(connection, CATALOG)} > set(TABLES)


def test_what_was_granted_on_purpose_afterwards_stays(deployer: Login, login: Login, plan: Plan) -> None:
    with connect(deployer) as connection:
        opened = journal.open_run(connection, opening(plan))
        rows(connection, "GRANT USAGE ON SCHEMA at_most_one TO trust_analyst")
        rows(connection, "GRANT SELECT ON at_most_one.run TO trust_analyst")
        journal.close_run(connection, opened.run_id, "unchanged")
    with connect(deployer) as connection:
        journal.open_run(connection, opening(plan))
    analyst = as_role(login, "trust_analyst")
    assert reads(analyst, "run")
    assert not reads(analyst, "archived_row")
