"""Candidate rules: the shipped ones found in the lab's own schema, counted within limits, and written as plans."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import astuple, replace
from pathlib import Path

import psycopg2.errors
import pytest
import yaml
from at_most_one.discovery import catalog_facts, counting, survey
from at_most_one.discovery.survey import Request, Survey
from at_most_one.duplicates import surplus_rows
from at_most_one.errors import OperatorError
from at_most_one.indexes import verification
from at_most_one.migration import check_sql
from at_most_one.plan import parse
from at_most_one.postgres.connection import Login, connect
from at_most_one.preflight import out_and_back, server_checks
from at_most_one.prisma import migration_sql

from tests.database.index_tools import query
from tests.support.postgres import Server, superuser

ROOT = Path(__file__).resolve().parents[2]
LAB = ROOT / "lab"
PEOPLE = {
    **{f"{who}_email": f"{who}@example.test" for who in ("admin", "inspector", "other")},
    **{f"{who}_hash": "secret-hash" for who in ("admin", "inspector", "other")},
}
WHEN = "20251201093000"


@pytest.fixture(scope="module")
def lab_template(server: Server) -> Iterator[Login]:
    """The lab's database, made by its own migrations and seeds, with the duplicates of both shipped plans."""
    login = server.create("discovery_template")
    with superuser(login) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA aedpics")
        for migration in sorted((LAB / "app/prisma/migrations").glob("*/migration.sql")):
            cursor.execute(migration.read_text())
        cursor.execute((LAB / "sql/people.sql").read_text(), PEOPLE)
        cursor.execute((LAB / "sql/example.sql").read_text())
        cursor.execute((LAB / "sql/second-rule.sql").read_text())
    connection.close()
    yield login
    server.drop(login.dbname)


@pytest.fixture
def lab(server: Server, lab_template: Login) -> Iterator[Login]:
    with server.copy(lab_template, "discovery_lab") as login:
        yield login


def shipped() -> list[tuple[str, tuple[str, ...], str]]:
    plans = [parse(yaml.safe_load(path.read_text())) for path in sorted((ROOT / "plans").glob("*.yml"))]
    return [(plan.table, plan.key, plan.predicate) for plan in plans]


def rules(found: Survey) -> list[tuple[str, tuple[str, ...], str]]:
    return [(one.table.name, one.key.columns, one.condition.sql) for one in found.candidates]


@pytest.mark.versions
@pytest.mark.parametrize("analyzed", [False, True])
def test_both_shipped_rules_are_among_the_first_three(lab: Login, analyzed: bool) -> None:
    if analyzed:
        query(lab, "ANALYZE")
    found = survey.survey(lab, Request(limit=9))
    assert len(shipped()) == 2
    assert set(shipped()) <= set(rules(found)[:3])
    counts = {rule: one.count for rule, one in zip(rules(found), found.candidates, strict=True)}
    assert [(counts[rule].how, counts[rule].groups, counts[rule].surplus) for rule in shipped()] == [
        ("exact", 10, 25),
        ("exact", 8, 12),
    ]
    assert None not in found.forecasts[:3]


@pytest.mark.parametrize("rule", range(2))
def test_what_is_written_deploys_unedited(lab: Login, rule: int) -> None:
    """The steps of deploy.yml on the plan as written: what prepare asks, the removal, the migration, the verdict."""
    found = survey.survey(lab, Request(limit=3))
    number = 1 + rules(found).index(shipped()[rule])
    files = survey.choose(lab, Request(limit=3), found, number, "found-rule", WHEN)
    plan = parse(yaml.safe_load(files.plan))
    assert (plan.id, plan.table, plan.key, plan.predicate) == ("found-rule", *shipped()[rule])
    assert (files.migration, plan.migration) == ("20251201093000_found_rule", "20251201093000_found_rule")
    assert all(line.startswith("//") for line in files.schema_hint.splitlines())
    with connect(lab) as connection:
        server_checks.read(connection, plan, server_checks.Limits(3600, 30))
        assert out_and_back.try_out(connection, plan).warnings == []
        check_sql.require_same(connection, plan, migration_sql.split(files.migration_sql), strict=True)
        connection.rollback()
        report = surplus_rows.report(connection, plan)
        assert (report.group_count, report.row_count) == (plan.expected.groups, plan.expected.rows)
        surplus_rows.remove(connection, plan, rows=report.rows, digest=report.digest, run_id="run-1")
    query(lab, files.migration_sql)
    with connect(lab) as connection:
        inspection = verification.inspect(connection, plan)
        assert inspection.exact
        assert inspection.duplicates_left == 0
    # An index that enforces the rule is no candidate any more.
    assert shipped()[rule] not in rules(survey.survey(lab, Request(limit=50)))


def test_it_waits_for_no_lock_and_nobody_waits_for_it(lab: Login) -> None:
    tables = ["inspection_sessions", "inspections", "inspection_schedules"]
    with superuser(lab) as holder, holder.cursor() as cursor:
        cursor.execute("BEGIN")
        for table in tables:  # the strongest lock beside the one that stops readers
            cursor.execute(f"LOCK TABLE aedpics.{table} IN EXCLUSIVE MODE")
        found = survey.survey(lab, Request(limit=3))
        assert {one.count.how for one in found.candidates} == {"exact"}

        cursor.execute("LOCK TABLE aedpics.inspection_sessions IN ACCESS EXCLUSIVE MODE")
        found = survey.survey(lab, Request(limit=3, lock_timeout_ms=100))
        assert found.unread == ("aedpics.inspection_sessions",)
        assert found.candidates[0].table.name == "inspections"
        cursor.execute("ROLLBACK")
    holder.close()


def test_it_cannot_write(lab: Login) -> None:
    refused = pytest.raises(psycopg2.errors.ReadOnlySqlTransaction)
    with connect(lab) as connection, refused, counting.reading(connection, 1000) as cursor:
        cursor.execute("DELETE FROM aedpics.inspections")


def test_a_role_that_may_only_read_gets_an_answer_without_a_forecast(lab: Login) -> None:
    query(
        lab,
        "CREATE ROLE only_reads LOGIN PASSWORD 'reads'; GRANT USAGE ON SCHEMA aedpics TO only_reads;"
        "GRANT SELECT ON ALL TABLES IN SCHEMA aedpics TO only_reads;"
        f"REVOKE TEMPORARY ON DATABASE {lab.dbname} FROM PUBLIC",
    )
    try:
        found = survey.survey(replace(lab, user="only_reads", password="reads"), Request(limit=3))
    finally:
        query(lab, "DROP OWNED BY only_reads; DROP ROLE only_reads")
    assert set(shipped()) <= set(rules(found))
    assert set(found.forecasts) == {None}


def test_full_scans_are_bounded_however_many_tables_there_are(login: Login) -> None:
    for number in range(30):
        query(
            login,
            f"CREATE TABLE public.booking_{number} (id int PRIMARY KEY, seat_id int, room_id int, user_id int,"
            " day date, status text CHECK (status IN ('open', 'closed', 'cancelled')));"
            f"INSERT INTO public.booking_{number} SELECT i, i % 50, i % 9, i % 7, now(), 'open'"
            " FROM generate_series(1, 60) i",
        )
    found = survey.survey(login, Request(limit=3))
    assert found.found > 100
    assert found.scans == 24
    assert len({one.table.name for one in found.candidates}) == 3
    (scans,) = query(login, "SELECT sum(seq_scan) FROM pg_stat_user_tables WHERE relname LIKE 'booking%'")[0]
    assert scans <= 30 + found.scans  # one each when its primary key was built


def test_no_catalog_is_read_once_for_each_table(lab: Login) -> None:
    """With 10,000 tables all constraints would be read 10,000 times, for longer than the catalog is given."""
    with connect(lab) as connection, connection.cursor() as cursor:
        tables = [one.number for one in catalog_facts.read(cursor, None, None)]
        assert len(tables) > 3
        given = {"schema": None, "table": None, "tables": tables}
        loops: list[int] = []
        for statement in (catalog_facts._TABLES, catalog_facts._REFERENCES):
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", given)
            waiting = [found["Plan"] for found in (cursor.fetchone() or ([],))[0]]
            while waiting:
                node = waiting.pop()
                waiting += node.get("Plans", [])
                if (node["Node Type"], node.get("Relation Name")) == ("Seq Scan", "pg_constraint"):
                    loops.append(node["Actual Loops"])
    assert set(loops) <= {1}


@pytest.fixture
def large(login: Login) -> Login:
    query(
        login,
        "CREATE TABLE public.orders (id bigint PRIMARY KEY, customer_id bigint NOT NULL, shop_id int,"
        " status text NOT NULL, created_at timestamptz NOT NULL DEFAULT now());"
        "INSERT INTO public.orders SELECT i, i / 2 * 2, i % 5, CASE i % 3 WHEN 0 THEN 'closed' ELSE 'open' END"
        " FROM generate_series(1, 400000) i; ANALYZE public.orders",
    )
    return login


def test_a_count_that_takes_too_long_becomes_a_sample_and_then_an_estimate(
    large: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request("orders", ("customer_id",))
    (exact,) = [one.count for one in survey.survey(large, request).candidates]
    assert (exact.how, exact.groups, exact.surplus) == ("exact", 66666, 66666)

    request = replace(request, each_s=0.005)
    monkeypatch.setattr(counting, "SAMPLE_PAGES", 400)
    sample = survey.survey(large, request).candidates[0].count
    assert sample.how == "sample"
    assert all(0 < least <= whole for least, whole in zip(astuple(sample)[1:], astuple(exact)[1:], strict=True))

    monkeypatch.setattr(counting, "_SAMPLE_S", 0.001)
    estimate = survey.survey(large, request).candidates[0].count
    assert (estimate.how, estimate.groups, estimate.surplus) == ("estimate", None, None)
    assert abs((estimate.rows or 0) - (exact.rows or 0)) < 20_000


def test_the_deadline_holds_and_a_choice_without_a_count_is_refused(large: Login) -> None:
    request = Request("public.orders", deadline_s=0.02)
    started = time.monotonic()
    found = survey.survey(large, request)
    assert time.monotonic() - started < 2
    assert found.candidates
    assert {one.count.how for one in found.candidates} == {"estimate"}
    assert set(found.forecasts) == {None}
    with pytest.raises(OperatorError, match="were not counted in 0 s"):
        survey.choose(large, replace(request, deadline_s=0.001), found, 1, "one-order", WHEN)
    chosen = survey.choose(large, replace(request, deadline_s=60), found, 1, "one-order", WHEN)
    assert parse(yaml.safe_load(chosen.plan)).expected.rows


def test_no_value_of_a_row_comes_out_but_a_status(login: Login) -> None:
    """Names, addresses, keys, and a column called type with a value for each row stay in the database."""
    query(
        login,
        "CREATE TABLE public.people (id int PRIMARY KEY, email text NOT NULL, full_name text, city text, state text,"
        " kind text, visit_type text, national_id text, status text NOT NULL, created_at timestamptz);"
        "INSERT INTO public.people SELECT i, 'secret' || i % 5 || '@example.test', 'Secret Name', 'Secretville',"
        " 'Secretstate', 'secret ' || i, 'secret 010-1234-5678', 'secret' || i % 9,"
        " CASE i % 2 WHEN 0 THEN 'open' ELSE 'closed' END, now() FROM generate_series(1, 100) i",
    )
    for analyzed in (False, True):
        if analyzed:
            query(login, "ANALYZE public.people")
        found = survey.survey(login, Request("people", limit=20))
        files = survey.choose(login, Request(), found, 1, "one-person", WHEN)
        assert {one.condition.sql for one in found.candidates} == {"status IN ('open')"}
        assert ("email",) in [one.key.columns for one in found.candidates]
        assert "secret" not in (json.dumps(found.facts()) + "".join(astuple(files))).lower()
        with connect(login) as connection, counting.reading(connection, 9999) as cursor:
            (people,) = catalog_facts.read(cursor, "public", "people")
        assert "secret" not in repr({name: one for name, one in people.columns.items() if name != "visit_type"})


def test_names_that_need_quotes_and_a_taken_name(login: Login) -> None:
    query(
        login,
        """CREATE SCHEMA "Shop"; CREATE TYPE "Shop"."State" AS ENUM ('inProgress', 'on hold', 'it''s
done', 'Deleted');
        CREATE TABLE "Shop"."Owner" ("Id" int PRIMARY KEY);
        CREATE TABLE "Shop"."Order" ("Id" int PRIMARY KEY, "ownerId" int REFERENCES "Shop"."Owner",
            "orderState" "Shop"."State", "isDefault" boolean, "startedAt" timestamptz, "endedAt" timestamptz);
        CREATE TRIGGER "Stamp it" BEFORE UPDATE ON "Shop"."Order"
            FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
        CREATE TABLE "Shop"."Line" ("Id" int PRIMARY KEY, "orderId" int REFERENCES "Shop"."Order" ON DELETE CASCADE);
        CREATE INDEX "one_Order_per_ownerId_open" ON "Shop"."Line" ("orderId");
        INSERT INTO "Shop"."Owner" VALUES (1), (2);
        INSERT INTO "Shop"."Order" SELECT i, 1 + i % 2, 'inProgress', i < 4, now() FROM generate_series(1, 4) i""",
    )
    found = survey.survey(login, Request("Shop.Order", limit=9))
    assert [one.condition.sql for one in found.candidates] == [
        '"isDefault"',
        """"orderState" IN ('inProgress', 'on hold')""",
    ]
    assert [(one["references"], one["triggers"]) for one in found.facts()["candidates"]] == 2 * [
        ([{"constraint": "Line_orderId_fkey", "table": "Shop.Line", "on_delete": "CASCADE"}], ["Stamp it"])
    ]
    for number, index in ((1, "one_Order_per_ownerId_flag"), (2, "one_Order_per_ownerId_open_2")):
        files = survey.choose(login, Request(), found, number, "one-order", WHEN)
        plan = parse(yaml.safe_load(files.plan))
        assert plan.rule_index.name == index
        assert plan.keep[0].column == "startedAt"
        assert len(migration_sql.split(files.migration_sql)) == 1
        with connect(login) as connection:
            check_sql.require_same(connection, plan, migration_sql.split(files.migration_sql), strict=True)
            connection.rollback()
            report = surplus_rows.report(connection, plan)
            assert (report.group_count, report.row_count) == (plan.expected.groups, plan.expected.rows)


@pytest.mark.parametrize(
    ("request_", "seen"),
    [
        (Request("nowhere"), "There is no table nowhere"),
        (Request("pg_catalog.pg_class"), "There is no table pg_catalog.pg_class"),
        (Request("bare"), "public.bare has no primary key"),
        (Request(key=("nothing",)), "has the columns nothing"),
    ],
)
def test_what_is_not_there_is_named(login: Login, request_: Request, seen: str) -> None:
    query(login, "CREATE TABLE public.bare (status text)")
    with pytest.raises(OperatorError, match=seen):
        survey.survey(login, request_)


@pytest.mark.parametrize("plan_id", ["", "One", "one_two", "../one", "one.yml"])
def test_an_id_that_names_no_file_is_refused(lab: Login, plan_id: str) -> None:
    found = survey.survey(lab, Request("inspections"))
    with pytest.raises(OperatorError, match="discover_plan_id is"):
        survey.choose(lab, Request(), found, 1, plan_id, WHEN)
    with pytest.raises(OperatorError, match="discover_choice is 99"):
        survey.choose(lab, Request(), found, 99, "one", WHEN)
