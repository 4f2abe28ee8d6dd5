"""A run is closed on what is true now: a promoted copy that lacks a phase, a row or the rule is never "deployed"."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from at_most_one.errors import OperatorError
from at_most_one.fence import write_fence
from at_most_one.migration import closing
from at_most_one.plan import Plan
from at_most_one.postgres import server_identity
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.runs import journal

from tests.database.test_own_schema import opening, rows
from tests.support.postgres import Server
from tests.support.prisma_stand_in import HISTORY, MIGRATION, OURS, RULE
from tests.support.service_database import running_server
from tests.support.standby import standby

PHASES = ("prepare", "cleanup", "migrate", "verify", "pm2_reload", "healthcheck")
APPLIED = (
    "INSERT INTO aedpics._prisma_migrations (id, checksum, migration_name, finished_at, applied_steps_count)"
    f" VALUES ('1', 'x', '{OURS}', now(), 1)"
)


def deploy(login: Login, plan: Plan, *, until: str = "healthcheck", run_id: str = "") -> str:
    """What a run leaves in the database once ``until`` has ended; with ``run_id`` it goes on."""
    with connect(login) as connection:
        run_id = run_id or journal.open_run(connection, opening(plan)).run_id
        (run,) = journal.read(connection, run_id=run_id)
        done = [phase["name"] for phase in run["phases"]]
        for phase in PHASES[len(done) : PHASES.index(until) + 1]:
            if phase == "migrate":
                rows(connection, "SET LOCAL search_path = aedpics; " + MIGRATION + HISTORY + ";" + APPLIED)
                rows(connection, "SET LOCAL search_path = ''")
            details = {"fence": "lowered"} if phase == "verify" else {}
            journal.record(connection, run_id, phase, "ok", details)
    return run_id


def close(login: Login, plan: Plan, run_id: str, phases: tuple[str, ...] = PHASES) -> list[str]:
    with connect(login) as connection:
        warnings = closing.require_still_true(connection, plan, run_id, phases)
        journal.close_run(connection, run_id, "deployed")
    return warnings


def test_what_holds_is_closed_and_names_its_server(login: Login, plan: Plan) -> None:
    run_id = deploy(login, plan)
    with connect(login) as connection:
        kept = journal.server(connection, run_id)
        assert kept == server_identity.read(connection)
    assert (kept["timeline"], len(kept["system_identifier"])) == (1, 19)
    assert close(login, plan, run_id) == []


INSPECTOR = "00000000-0000-4000-a000-000000000001"
DUPLICATES = (
    "INSERT INTO aedpics.aed_data (equipment_serial) VALUES ('AED-X');"
    f"INSERT INTO aedpics.user_profiles VALUES ('{INSPECTOR}', 'u@example.test', 'u');"
    "INSERT INTO aedpics.inspection_sessions (id, equipment_serial, inspector_id, status, started_at)"
    f" SELECT gen_random_uuid(), 'AED-X', '{INSPECTOR}', 'active', now() FROM generate_series(1, 2)"
)


def raise_fence(connection: Connection, plan: Plan) -> None:
    write_fence.raise_fence(connection, plan)


@pytest.mark.parametrize(
    ("moves", "says"),
    [
        (lambda c, _: rows(c, f"DROP INDEX aedpics.{RULE}"), f"{RULE} is missing"),
        (lambda c, _: rows(c, f"DROP INDEX aedpics.{RULE}; {DUPLICATES}"), "1 duplicate group"),
        (lambda c, _: rows(c, "DELETE FROM aedpics._prisma_migrations"), f"history of {OURS} is pending"),
        (lambda c, _: rows(c, "DELETE FROM at_most_one.step WHERE phase = 'verify'"), "phase verify is not in"),
        (raise_fence, "the write fence is up"),
        (
            lambda c, _: rows(
                c, "UPDATE at_most_one.run SET server = jsonb_set(server, '{system_identifier}', '\"7\"')"
            ),
            "another server",
        ),
    ],
    ids=["index", "duplicates", "history", "phase", "fence", "server"],
)
def test_what_has_moved_back_is_refused_by_name(
    login: Login, plan: Plan, moves: Callable[[Connection, Plan], Any], says: str
) -> None:
    run_id = deploy(login, plan)
    with connect(login) as connection:
        moves(connection, plan)
    with pytest.raises(OperatorError, match=says) as refused:
        close(login, plan, run_id)
    assert "run the same command again" in refused.value.next_step
    with connect(login) as connection:
        assert journal.read(connection)[0]["outcome"] is None


def test_single_phases_without_a_proof_ask_for_no_rule(login: Login, plan: Plan) -> None:
    run_id = deploy(login, plan, until="cleanup")
    assert close(login, plan, run_id, ("prepare", "cleanup")) == []


def test_an_older_releases_run_and_a_fence_that_verify_had_to_leave_are_closed(login: Login, plan: Plan) -> None:
    run_id = deploy(login, plan)
    with connect(login) as connection:
        raise_fence(connection, plan)
        rows(connection, "UPDATE at_most_one.step SET details = '{\"fence\": \"partial\"}' WHERE phase = 'verify'")
        rows(connection, "UPDATE at_most_one.run SET server = NULL")
    assert close(login, plan, run_id) == []


# Of the settings that the primary has by its command line, those of which a standby must have as much.
LIKE_THE_PRIMARY = {"max_connections": "60", "max_prepared_transactions": "30", "max_wal_senders": "4"}


@pytest.fixture(scope="module")
def primary() -> Iterator[Server]:
    """A server of which copies can be made."""
    with running_server(wal_level="replica", max_wal_senders="4") as running:
        yield running


@pytest.fixture
def service(primary: Server) -> Iterator[Login]:
    """A database of the service on it."""
    primary.run("CREATE DATABASE service TEMPLATE guide_schema")
    yield replace(primary.login, dbname="service")
    primary.run("DROP DATABASE service WITH (FORCE)")


def test_a_standby_promoted_without_loss_is_closed_with_a_word_about_it(
    primary: Server, service: Login, plan: Plan
) -> None:
    with standby(service, primary.binaries, LIKE_THE_PRIMARY) as copy:
        run_id = deploy(service, plan)
        copy.catch_up()
        copy.promote()
        (warning,) = close(copy.login, plan, run_id)
        assert "opened on timeline 1, and timeline 2 answers" in warning
        with connect(copy.login) as connection:
            assert journal.read(connection, run_id=run_id)[0]["outcome"] == "deployed"


# "verify" only repeats it with less to lose.
@pytest.mark.parametrize("reached", ["cleanup", pytest.param("verify", marks=pytest.mark.thorough)])
def test_a_standby_promoted_without_the_last_phases_is_never_deployed(
    primary: Server, service: Login, plan: Plan, reached: str
) -> None:
    """The connections are closed between the phases, as in a reload: nothing else would notice."""
    with standby(service, primary.binaries, LIKE_THE_PRIMARY) as copy:
        run_id = deploy(service, plan, until=reached)
        copy.catch_up()
        copy.promote()  # and what comes now, it lacks
        deploy(service, plan, run_id=run_id)
        missing = list(PHASES[PHASES.index(reached) + 1 :])
        with pytest.raises(OperatorError, match="timeline 1, and timeline 2 answers") as refused:
            close(copy.login, plan, run_id)
        assert refused.value.details["missing"] == missing
        assert (f"{RULE} is missing" in refused.value.seen) is (reached == "cleanup")
        with connect(copy.login) as connection:
            assert journal.read(connection, run_id=run_id)[0]["outcome"] is None
        deploy(copy.login, plan, run_id=run_id)  # the same command again goes on from what it finds
        close(copy.login, plan, run_id)
