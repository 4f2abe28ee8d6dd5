"""A module that writes holds its run: once another run has taken it over, it writes nothing more."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from at_most_one.duplicates import batches, surplus_rows
from at_most_one.duplicates.restore import restore
from at_most_one.errors import OperatorError
from at_most_one.fence import write_fence
from at_most_one.indexes import build_concurrently, verification
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Connection, Hold, Login, connect
from at_most_one.runs import journal
from at_most_one.runs.controllers import Controller
from at_most_one.runs.journal import Opening

from tests.database.cleaning import Waiting, ids, run
from tests.database.index_tools import RULE, inspect
from tests.database.index_tools import run_sql as run_sql  # fixture
from tests.support.ports import wait_until

TAKEN = "was closed as abandoned by run"


@pytest.fixture
def opening(plan: Plan) -> Opening:
    """A run of another host."""
    return Opening(plan, "production", "minsu", Controller("gateway-2", 1))


@pytest.fixture
def held(login: Login, opening: Opening) -> str:
    with connect(login) as connection:
        return journal.open_run(connection, opening).run_id


def take_over(login: Login, opening: Opening) -> str:
    with connect(login) as other:
        return journal.open_run(other, opening, takeover=True).run_id


def after(calls: int, login: Login, opening: Opening, run_id: str) -> Hold:
    """The run's own hold, and a second connection that takes the run over before the ``calls + 1``-th time."""
    done = iter(range(calls + 1))

    def hold(connection: Connection) -> None:
        if next(done, -1) == calls:
            take_over(login, opening)
        journal.require_held(connection, run_id)

    return hold


Before = Callable[[Callable[[], Any]], None]


@pytest.fixture
def before_each_batch(monkeypatch: pytest.MonkeyPatch) -> Before:
    """A batch holds its run within its own statement, without asking anyone; so this comes right before it."""
    execute = batches.Batches._execute

    def call(act: Callable[[], Any]) -> None:
        def with_act(self: batches.Batches, cursor: Any, statement: str) -> Any:
            act()
            return execute(self, cursor, statement)

        monkeypatch.setattr(batches.Batches, "_execute", with_act)

    return call


def catalog(login: Login) -> list[tuple[Any, ...]]:
    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal UNION ALL SELECT indexname FROM pg_indexes"
            " WHERE schemaname = 'aedpics' ORDER BY 1"
        )
        return list(cursor.fetchall())


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_no_batch_goes_after_a_take_over(
    login: Login, plan: Plan, connection: Connection, opening: Opening, held: str, batch: int, before_each_batch: Before
) -> None:
    done = iter(range(batch + 1))
    before_each_batch(lambda: next(done) == batch and take_over(login, opening))
    found = surplus_rows.report(connection, plan)
    pace = batches.Pace(first=5, smallest=5, largest=5)
    before = ids(connection)
    with pytest.raises(OperatorError, match=TAKEN):
        surplus_rows.remove(
            connection,
            plan,
            rows=found.rows,
            digest=found.digest,
            run_id=held,
            pace=pace,
            hold=journal.holding(held),
        )
    ((archived,),) = run(connection, "SELECT count(*) FROM at_most_one.archived_row WHERE run_id = %s", held)
    assert len(before) - len(ids(connection)) == archived <= 5 * batch
    assert (archived > 0) == (batch > 0)


@pytest.mark.usefixtures("example")
def test_a_take_over_waits_for_the_batch_that_is_under_way(
    login: Login, plan: Plan, connection: Connection, opening: Opening, held: str, before_each_batch: Before
) -> None:
    """The batch waits for a row's lock, the other start for the batch; then the next batch is refused."""
    found = surplus_rows.report(connection, plan)
    waiting = Waiting(login)
    with ThreadPoolExecutor(1) as pool:
        taking: list[Future[str]] = []

        before_each_batch(lambda: taking and taking[0].result(30))

        def clean(ours: Connection) -> None:
            pace = batches.Pace(target_ms=10_000, first=5, smallest=5, largest=5)
            report: dict[str, Any] = {"rows": found.rows, "digest": found.digest, "run_id": held}
            surplus_rows.remove(ours, plan, **report, pace=pace, hold=journal.holding(held))

        waiting.change("SELECT FROM aedpics.inspection_sessions FOR UPDATE")
        cleaning = waiting.start(clean, lock_timeout_ms=30_000)
        taking.append(pool.submit(take_over, login, opening))
        wait_until(lambda: waiting_sessions(connection) == 2)
        assert not taking[0].done()
        waiting.other.rollback()
        with pytest.raises(OperatorError, match=TAKEN):
            cleaning.result(30)
        assert taking[0].done()
    waiting.close()
    ((archived,),) = run(connection, "SELECT count(*) FROM at_most_one.archived_row")
    assert 0 < archived <= 5, "the batch that was under way, and no other"


def waiting_sessions(connection: Connection) -> int:
    return int(run(connection, "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted")[0][0])


@pytest.mark.parametrize("change", [write_fence.raise_fence, write_fence.lower_fence])
def test_no_fence_moves_after_a_take_over(
    login: Login, plan: Plan, opening: Opening, held: str, change: Callable[..., Any]
) -> None:
    with connect(login) as connection:
        if change is write_fence.lower_fence:
            write_fence.raise_fence(connection, plan)
        before = catalog(login)
        take_over(login, opening)
        with pytest.raises(OperatorError, match=TAKEN):
            change(connection, plan, hold=journal.holding(held))
    assert catalog(login) == before


@pytest.mark.parametrize(("calls", "built"), [(0, 0), (1, 1), (2, 1), (3, 2)])
def test_no_build_begins_after_a_take_over(
    login: Login, plan: Plan, opening: Opening, held: str, calls: int, built: int
) -> None:
    """Before each build and after it: what a build has finished stays, it is the other run's now."""
    with pytest.raises(OperatorError, match=TAKEN):
        build_concurrently.build(
            login, plan, inspect(login, plan), build_concurrently.Limits(30), hold=after(calls, login, opening, held)
        )
    assert len(inspect(login, plan).existing) == built


@pytest.mark.parametrize(("calls", "left"), [(0, 3), (1, 2), (2, 2)])
def test_no_index_goes_after_a_take_over(
    login: Login, plan: Plan, opening: Opening, held: str, calls: int, left: int
) -> None:
    build_concurrently.build(login, plan, inspect(login, plan), build_concurrently.Limits(30))
    with (
        connect(login, lock_timeout_ms=0, autocommit=True) as connection,
        pytest.raises(OperatorError, match=TAKEN),
    ):
        verification.drop(connection, plan, inspect(login, plan), hold=after(calls, login, opening, held))
    assert len(inspect(login, plan).existing) == left


def test_no_row_returns_after_a_take_over(
    login: Login, plan: Plan, connection: Connection, example: Any, opening: Opening, held: str
) -> None:
    found = surplus_rows.report(connection, plan)
    surplus_rows.remove(connection, plan, rows=found.rows, digest=found.digest, run_id=held)
    before = ids(connection)
    take_over(login, opening)
    with pytest.raises(OperatorError, match=TAKEN):
        restore(connection, plan, run_id=held, hold=journal.holding(held))
    assert ids(connection) == before


class TestModules:
    """Each module that writes asks for its run, and none in check mode."""

    @pytest.mark.parametrize(
        ("module", "more"),
        [
            ("write_fence", {"state": "raised"}),
            ("index_set", {"state": "absent"}),
            ("prisma_history", {"state": "rolled_back"}),
            ("duplicate_rows", {"state": "restored"}),
            ("duplicate_rows", {"state": "removed"}),
        ],
    )
    def test_a_lost_run_writes_nothing(
        self,
        login: Login,
        plan: Plan,
        connection: Connection,
        example: Any,
        opening: Opening,
        held: str,
        login_args: dict[str, Any],
        plan_data: dict[str, Any],
        run_module: Callable[..., dict[str, Any]],
        run_sql: Callable[..., None],
        module: str,
        more: dict[str, Any],
    ) -> None:
        found = surplus_rows.report(connection, plan)
        if more["state"] == "removed":
            more = {**more, "rows": found.rows, "digest": found.digest}
        if module == "index_set":
            run_sql(f"CREATE INDEX {RULE} ON aedpics.inspection_sessions (equipment_serial)")
        if module == "prisma_history":
            run_sql(_HISTORY.format(name=plan.migration))
        connection.rollback()
        before, rows = catalog(login), ids(connection)
        connection.rollback()
        args = {"login": login_args, "plan": plan_data, "run_id": held, **more}
        take_over(login, opening)
        refused = run_module(module, args)
        assert refused.get("failed"), refused
        assert TAKEN in refused["msg"]
        assert (catalog(login), ids(connection)) == (before, rows)
        assert not run_module(module, {**args, "run_id": "20251110T053000Z-check"}, check=True).get("failed")


_HISTORY = """
CREATE TABLE IF NOT EXISTS aedpics._prisma_migrations (
    id varchar(36) PRIMARY KEY, checksum varchar(64) NOT NULL, finished_at timestamptz,
    migration_name varchar(255) NOT NULL, logs text, rolled_back_at timestamptz,
    started_at timestamptz NOT NULL DEFAULT now(), applied_steps_count integer NOT NULL DEFAULT 0);
INSERT INTO aedpics._prisma_migrations (id, checksum, migration_name, finished_at, applied_steps_count)
VALUES ('1', repeat('0', 64), '{name}', now(), 1)
"""
