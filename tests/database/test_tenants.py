"""tenants.yml over the schemas of one database: what goes and what stays in each, one that fails, and the ways back."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan, Tenants
from at_most_one.postgres.connection import Connection, Login
from at_most_one.preflight import tenants

from tests.database.cleaning import run
from tests.database.index_tools import query
from tests.support.playbooks import ROOT
from tests.support.postgres import Server

# Of each customer the order that was created last stays; the closed ones are history.
TENANT = """
CREATE SCHEMA {0};
CREATE TABLE {0}.orders (
    id integer PRIMARY KEY, customer text NOT NULL, status text NOT NULL, created_at timestamptz NOT NULL);
CREATE TABLE {0}.invoices (order_id integer PRIMARY KEY REFERENCES {0}.orders);
INSERT INTO {0}.orders SELECT n, 'first', 'open', '2025-11-01'::timestamptz + n * interval '1 hour'
    FROM generate_series(1, 3) AS n;
INSERT INTO {0}.orders VALUES (4, 'second', 'open', '2025-11-01'), (5, 'third', 'closed', '2025-11-01'),
    (6, 'third', 'closed', '2025-11-02');"""
MORE = "INSERT INTO busan.orders VALUES (7, 'fourth', 'open', '2025-11-01'), (8, 'fourth', 'open', '2025-11-02')"
REFERENCE = "INSERT INTO suwon.invoices VALUES (1)"  # a surplus row that another table needs: the plan says stop
SCHEMAS = ["busan", "seoul", "suwon"]
BERLIN = '"Berlin-1"'  # a schema in another database
MONITOR = "tenants_action=monitor"
SURPLUS = {"busan": {1, 2, 7}, "seoul": {1, 2}, "suwon": {1, 2}}
PLAN: dict[str, Any] = {
    "id": "one-open-order",
    "title": {"en": "At most one open order per customer", "ko": "고객당 진행 중 주문은 최대 1건"},
    **{"schema": "seoul", "table": "orders", "primary_key": ["id"], "key": ["customer"]},
    "predicate": "status = 'open'",
    "keep": [{"column": "created_at", "direction": "desc", "nulls": "last"}],
    "surplus": {"action": "delete", "references": "stop"},
    "ceiling": 10,
    "indexes": [
        {"name": "one_open_order", "unique": True, "columns": ["customer"], "predicate": "status = 'open'"},
    ],
    "family": {"pattern": "^one_open_order"},
    "migration": "20260101_one_open_order",
}
Play = Callable[..., str]


@pytest.fixture
def shops(server: Server) -> Iterator[Login]:
    """A database with three tenants, and a fourth schema of the same tables that is none."""
    login = server.create("shops")
    for schema in (*SCHEMAS, "template"):
        query(login, TENANT.format(schema))
    query(login, MORE)
    query(login, REFERENCE)
    query(login, "CREATE TABLE public.tenant (name text PRIMARY KEY)")
    query(login, "INSERT INTO public.tenant VALUES ('busan'), ('seoul'), ('suwon')")
    yield login
    server.run("DROP DATABASE shops WITH (FORCE)")


@pytest.fixture
def play(shops: Login, tmp_path: Path) -> Play:
    """A front door in a project with one plan, on a database alone; what it prints, on one line."""
    inventory, project = tmp_path / "staging", tmp_path / "project"
    values: dict[str, Any] = {
        **{"environment_name": "staging", "project_path": str(project), "plan": "one-open-order"},
        **{"app_name": "shops", "app_adapter": "none", "migrate_adapter": "sql", "report_language": "en"},
        **{"database_host": shops.host, "database_port": shops.port, "database_name": shops.dbname},
        **{"database_user": shops.user, "database_password": shops.password},
        **{
            "prepare_gates": [],
            "prepare_backup_keep": 0,
            "prepare_backup_path": "/nowhere",
            "ansible_connection": "local",
        },
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
    }
    (inventory / "group_vars").mkdir(parents=True)
    (inventory / "hosts.yml").write_text("staging: {hosts: {runner: , another: }}\n")
    (inventory / "group_vars/staging.yml").write_text(json.dumps(values))
    (inventory / "group_vars/all.yml").write_text((ROOT / "inventories/all.yml").read_text())
    (project / "plans").mkdir(parents=True)
    write(project, {"schemas": SCHEMAS})

    def run(playbook: str, *options: str, code: int = 0) -> str:
        command = [str(ROOT / ".venv/bin/ansible-playbook"), str(ROOT / playbook), "-i", str(inventory)]
        command += ["-l", "staging", *options]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return " ".join((done.stdout + done.stderr).split())

    return run


def write(project: Path, whose: dict[str, Any]) -> None:
    """The plan, with these tenants."""
    (project / "plans/one-open-order.yml").write_text(yaml.safe_dump({**PLAN, "tenants": whose}, allow_unicode=True))


def rows(login: Login, schema: str) -> list[tuple[Any, ...]]:
    return query(login, f"SELECT * FROM {schema}.orders ORDER BY id")


def indexes(login: Login) -> list[str]:
    """The schemas in which the rule's index is."""
    found = "SELECT schemaname::text FROM pg_catalog.pg_indexes WHERE indexname = 'one_open_order' ORDER BY 1"
    return [schema for (schema,) in query(login, found)]


def outcomes(tmp_path: Path) -> dict[str, str]:
    document = json.loads((tmp_path / "project/artifacts/staging/tenants.json").read_text())
    assert document["good"] == sum(one["good"] for one in document["tenants"].values())
    return {name: one["outcome"] for name, one in document["tenants"].items()}


def test_each_tenant_is_told_apart_and_the_same_command_does_what_is_left(
    play: Play, shops: Login, tmp_path: Path
) -> None:
    before = {schema: rows(shops, schema) for schema in (*SCHEMAS, "template")}
    after = {name: [row for row in before[name] if row[0] not in SURPLUS[name]] for name in SCHEMAS}

    said = play("tenants.yml", code=2)
    assert "2 of 3 tenants: deployed" in said
    assert "busan deployed, 3 rows removed" in said
    assert "seoul deployed, 2 rows removed" in said
    assert "invoices" in said.partition("2 of 3 tenants: deployed")[2], "the table has the reason"
    assert "2 of 3 tenants are as asked for. Not so: suwon." in said
    assert "Next: repair what the table says of them, then ansible-playbook tenants.yml -i" in said
    assert "-e plan=one-open-order -e tenants_action=deploy" in said
    assert "No tenants, though with a table orders: template." in said
    expected = {**after, "suwon": before["suwon"], "template": before["template"]}
    assert {schema: rows(shops, schema) for schema in expected} == expected
    assert indexes(shops) == ["busan", "seoul"]
    archived = "SELECT plan_id, count(*)::integer FROM at_most_one.archived_row GROUP BY 1 ORDER BY 1"
    assert query(shops, archived) == [("one-open-order@busan", 3), ("one-open-order@seoul", 2)]
    assert [name for name, outcome in outcomes(tmp_path).items() if outcome == "deployed"] == ["busan", "seoul"]
    reports = [json.loads(path.read_text()) for path in tmp_path.glob("project/artifacts/staging/2*/report.json")]
    assert {report["plan"]["id"] for report in reports} == {f"one-open-order@{name}" for name in SCHEMAS}
    pages = [path.read_text() for path in tmp_path.glob("project/artifacts/staging/2*/report.md")]
    assert sum("rollback.yml -i" in page and "-e plan=one-open-order@busan" in page for page in pages) == 1

    looked = play("tenants.yml", "-e", "tenants_action=monitor", code=2)
    assert "2 of 3 tenants: as it should be" in looked
    assert outcomes(tmp_path) == {"busan": "holds", "seoul": "holds", "suwon": "not_held"}
    assert "-e plan=one-open-order -e tenants_action=monitor" in looked, "not the command that would deploy again"
    monitored = tmp_path / "project/artifacts/staging/monitor/one-open-order@seoul/monitor.json"
    assert json.loads(monitored.read_text())["plan"] == "one-open-order@seoul"

    query(shops, "DELETE FROM suwon.invoices")
    again = play("tenants.yml", "-e", "report_language=ko")
    assert "테넌트 3개 중 3개: 배포 완료" in again
    assert outcomes(tmp_path) == {"busan": "unchanged", "seoul": "unchanged", "suwon": "deployed"}
    assert {schema: rows(shops, schema) for schema in SCHEMAS} == after
    assert indexes(shops) == SCHEMAS

    back = play("rollback.yml", "-e", "plan=one-open-order@busan")
    assert "At most one open order per customer [busan]" in back
    assert (rows(shops, "busan"), rows(shops, "seoul")) == (before["busan"], after["seoul"])
    assert indexes(shops) == ["seoul", "suwon"]

    rest = play("tenants.yml", "-e", "tenants_action=rollback")
    assert "3 of 3 tenants: taken back" in rest
    assert "busan nothing to take back" in rest
    assert outcomes(tmp_path) == {"busan": "nothing", "seoul": "rolled_back", "suwon": "rolled_back"}
    assert {schema: rows(shops, schema) for schema in before} == before
    assert indexes(shops) == []

    runs = query(shops, "SELECT run_id FROM at_most_one.run")
    twice = play("tenants.yml", "-e", "tenants_action=rollback")
    assert "3 of 3 tenants: taken back" in twice
    assert set(outcomes(tmp_path).values()) == {"nothing"}
    assert query(shops, "SELECT run_id FROM at_most_one.run") == runs, "no run has failed for it"


@pytest.mark.thorough  # variations of the test above
def test_by_choice_a_failure_takes_the_tenants_before_back_and_check_mode_changes_nothing(
    play: Play, shops: Login, tmp_path: Path
) -> None:
    write(tmp_path / "project", {"query": "SELECT name FROM public.tenant ORDER BY name; -- all of them"})
    assert "tenants.query of plan one-open-order was refused" in play("tenants.yml", code=2)
    write(tmp_path / "project", {"query": "SELECT name FROM public.tenant ORDER BY name -- all of them"})
    before = {schema: rows(shops, schema) for schema in SCHEMAS}

    predicted = play("tenants.yml", "--check", code=2)
    assert "3 tenants (answered by its query): busan, seoul, suwon" in predicted
    assert "2 of 3 tenants: checked, nothing was changed" in predicted
    assert query(shops, "SELECT to_regnamespace('at_most_one')") == [(None,)]

    said = play("tenants.yml", "-e", "tenants_on_failure=rollback", code=2)
    assert "0 of 3 tenants: deployed" in said
    assert outcomes(tmp_path)["busan"] == outcomes(tmp_path)["seoul"] == "rolled_back"
    assert {schema: rows(shops, schema) for schema in SCHEMAS} == before
    assert indexes(shops) == []

    query(shops, "UPDATE public.tenant SET name = 'a first one' WHERE name = 'seoul'")
    assert "tenants.query does not name the tenants of plan one-open-order: name 1 of the list." in play(
        "tenants.yml", code=2
    )
    stopped = play("tenants.yml", "-e", '{"tenants_schemas": ["suwon", "seoul"], "tenants_on_failure": "stop"}', code=2)
    assert "seoul left out" in stopped
    assert "No tenants, though with a table orders: busan, template" in stopped
    assert indexes(shops) == []


def test_a_tenant_may_be_in_a_database_of_its_own_with_a_login_of_its_own(
    play: Play, shops: Login, server: Server, tmp_path: Path
) -> None:
    there = server.create("shops_eu")
    try:
        query(there, TENANT.format('"Berlin-1"'))
        query(there, "CREATE ROLE berlin LOGIN PASSWORD %s", shops.password)
        query(there, "ALTER DATABASE shops_eu OWNER TO berlin")
        for owned in (f"SCHEMA {BERLIN}", f"TABLE {BERLIN}.orders", f"TABLE {BERLIN}.invoices"):
            query(there, f"ALTER {owned} OWNER TO berlin")
        before, here = rows(there, BERLIN), rows(shops, "seoul")
        # The list is read with the environment's login, the tenant's rows with its own.
        user = f"{{{{ 'berlin' if database_of_tenant == 'shops_eu' else '{shops.user}' }}}}"
        own = {"database_user": user, "tenants_schemas": ["shops_eu.Berlin-1", "shops_eu.gone", "nowhere.seoul"]}
        with_login = ("-e", json.dumps(own))

        said = play("tenants.yml", *with_login, code=2)
        assert "1 of 3 tenants: deployed" in said
        assert "shops_eu.Berlin-1 deployed, 2 rows removed" in said
        assert "There is no table gone.orders" in said.partition("1 of 3 tenants")[2]
        assert "nowhere.seoul not begun: " in said, "the table has the reason"
        found = {"shops_eu.Berlin-1": "deployed", "shops_eu.gone": "stopped", "nowhere.seoul": "not_begun"}
        assert outcomes(tmp_path) == found
        assert [row for row in before if row[0] not in (1, 2)] == rows(there, BERLIN)
        assert rows(shops, "seoul") == here
        assert indexes(there) == ["Berlin-1"]
        journal = "SELECT plan_id, nspowner::regrole::text FROM at_most_one.run, pg_namespace"
        kept = query(there, f"{journal} WHERE nspname = 'at_most_one' AND outcome = 'deployed'")
        assert kept == [("one-open-order@shops_eu.Berlin-1", "berlin")]
        assert query(shops, "SELECT to_regnamespace('at_most_one')") == [(None,)], "nothing is written elsewhere"

        named = ("-e", "plan=one-open-order@shops_eu.Berlin-1")
        assert "1 of 1 tenants: as it should be" in play("tenants.yml", *with_login, *named, "-e", MONITOR)
        assert "one-open-order@shops_eu.Berlin-1" in play("history.yml", *with_login, *named)
        assert "At most one open order per customer [shops_eu.Berlin-1]" in play("rollback.yml", *with_login, *named)
        assert rows(there, BERLIN) == before
        assert indexes(there) == []
    finally:
        server.drop("shops_eu")
        server.run("DROP ROLE IF EXISTS berlin")


@pytest.mark.thorough
def test_a_rehearsal_with_one_tenant_is_what_production_asks_for_in_another(play: Play, tmp_path: Path) -> None:
    """Without an application. The refusal of evidence of the same environment shows that it was found and read."""
    play("rehearse.yml", "-e", "plan=one-open-order@seoul", "-e", "rehearsal_allowed=true")
    evidence = json.loads((tmp_path / "project/artifacts/staging/rehearsal/one-open-order@seoul.json").read_text())
    assert (evidence["outcome"], evidence["commit"]["after"]) == ("passed", "")
    gated = json.dumps({"prepare_gates": ["rehearsal"], "tenants_schemas": ["busan"]})
    refused = play("tenants.yml", "-e", gated, code=2)
    assert "The rehearsal was in staging itself." in refused
    assert "rehearse.yml -i inventories/staging -l staging -e plan=one-open-order@busan, and" in refused


def asked(plan: Plan, text: str) -> Plan:
    return replace(plan, tenants=Tenants(query=text))


@pytest.mark.parametrize(
    "text",
    ["SELECT 'aedpics'", "SELECT 'aedpics'::name;\n", "SELECT 'aedpics' -- one", "VALUES ('aedpics'), ('aedpics')"],
)
def test_a_query_names_each_tenant_once_and_the_others_are_known(connection: Connection, plan: Plan, text: str) -> None:
    run(connection, "CREATE SCHEMA other")
    run(connection, "CREATE TABLE other.inspection_sessions (LIKE aedpics.inspection_sessions)")
    connection.commit()
    assert tenants.find(connection, asked(plan, text)) == tenants.Found(("aedpics",), "query", ("other",))
    connection.rollback()
    listed = tenants.find(connection, asked(plan, text), ["other", "aedpics"], "aedpics")
    assert listed == tenants.Found(("aedpics",), "inventory", ())


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("SELECT public.named()", "cannot execute INSERT in a read-only transaction"),
        ("DELETE FROM public.names", "syntax error"),
        ("SELECT 'a'; DELETE FROM public.names", "syntax error"),
        ("SELECT name FROM names", 'relation "names" does not exist'),
        ("SELECT 'a', 'b'", "2 columns"),
        ("SELECT NULL::text", "name 1 of the list"),
        ("SELECT ARRAY['a']", "name 1 of the list"),
        ("VALUES ('a'), ('b c')", "name 2 of the list"),
        ("VALUES ('a.b'), ('a.b.c')", "name 2 of the list"),
        ("VALUES ('a\"b')", "name 1 of the list"),
        ("SELECT name FROM public.names WHERE false", "an empty list"),
    ],
)
def test_a_query_that_does_not_name_them_is_refused_and_writes_nothing(
    connection: Connection, plan: Plan, text: str, seen: str
) -> None:
    run(connection, "CREATE TABLE public.names (name text)")
    run(
        connection,
        "CREATE FUNCTION public.named() RETURNS text LANGUAGE sql AS"
        " $$ INSERT INTO public.names VALUES ('a') RETURNING name $$",
    )
    connection.commit()
    with pytest.raises(OperatorError) as refused:
        tenants.find(connection, asked(plan, text))
    assert seen in refused.value.seen
    connection.rollback()
    assert run(connection, "SELECT count(*) FROM public.names") == [(0,)]


def test_a_tenant_that_is_none_is_answered_with_those_that_are(connection: Connection, plan: Plan) -> None:
    listed = replace(plan, tenants=Tenants(("b", "a")))
    assert tenants.find(connection, listed).names == ("b", "a"), "in their own order"
    with pytest.raises(OperatorError, match=r"c is no tenant of plan .* one of b, a\."):
        tenants.find(connection, listed, only="c")
    elsewhere = replace(plan, tenants=Tenants(("there.aedpics", "지점", "Shop-1$")))
    found = tenants.find(connection, elsewhere)
    assert found.names == ("there.aedpics", "지점", "Shop-1$")
    assert found.others == ("aedpics",), "the schema of this database, and not that of the other one"
    own = connection.info.dbname
    with pytest.raises(OperatorError, match="name 2 of the list has this very database in it"):
        tenants.find(connection, replace(plan, tenants=Tenants(("a", f"{own}.aedpics"))))
    with pytest.raises(OperatorError, match=r"tenants\.schemas does not name the tenants of plan .*: an empty list"):
        tenants.find(connection, replace(plan, tenants=Tenants()))
