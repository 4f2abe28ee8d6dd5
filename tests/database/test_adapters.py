"""The contract of docs/adapters.md, which each value of migrate_adapter passes: prisma, sql and command.

Applied and taken back, twice, predicted, and gone on with where it was cut short. The history is asked of whoever
keeps it: Prisma's table, the tool's table, and with sql the catalog alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from at_most_one.plan import Plan
from at_most_one.postgres import catalog_snapshot
from at_most_one.postgres.connection import Login, connect
from at_most_one.runs import journal
from at_most_one.runs.controllers import Controller

from tests.database import migration_tool
from tests.database.index_tools import query, traces, verdicts
from tests.database.prisma_release import existing, rows
from tests.database.prisma_release import release as release  # a fixture
from tests.support.prisma_stand_in import MIGRATION, OURS

Module = Callable[..., dict[str, Any]]
INDEXES = "SELECT oid FROM pg_class WHERE relkind = 'i' AND relname LIKE 'idx_inspection%%' ORDER BY 1"


def opened(login: Login, plan: Plan) -> str:
    """A run that holds the plan."""
    with connect(login) as connection:
        before = {"hosts": {}, **catalog_snapshot.take(connection, plan).kept()}
        opening = journal.Opening(plan, "shop", "minsu", Controller("runner", 1), before=before)
        return journal.open_run(connection, opening).run_id


def closed(login: Login, run_id: str, outcome: str) -> None:
    with connect(login) as connection:
        journal.close_run(connection, run_id, outcome)


@dataclass
class Adapter:
    """One value of migrate_adapter: what index_set and database_rollback are given for it, and what is recorded."""

    login: Login
    plan: Plan
    module: Module
    common: dict[str, Any]
    build: dict[str, Any]
    history: dict[str, Any]
    applied: Callable[[], bool]

    def present(self, *, check: bool = False, **options: Any) -> dict[str, Any]:
        args = {**self.common, "state": "present", "strategy": "auto", **self.build, **self.history}
        return self.module("index_set", {**args, **options}, check=check)

    def deploy(self) -> str:
        """Deploy in a run of its own, and say which."""
        run_id = opened(self.login, self.plan)
        assert self.present(run_id=run_id, phase="migrate")["changed"]
        closed(self.login, run_id, "deployed")
        return run_id

    def take_back(self, deployment: str, *, check: bool = False, **options: Any) -> dict[str, Any]:
        args = {**self.common, "rule": True, "archived_by": [deployment], **self.history}
        return self.module("database_rollback", {**args, **options}, check=check)


@pytest.fixture(params=["prisma", "sql", "command"])
def adapter(
    request: pytest.FixtureRequest,
    login: Login,
    plan: Plan,
    run_module: Module,
    login_args: dict[str, Any],
    plan_data: dict[str, Any],
    tmp_path: Path,
) -> Adapter:
    common = {"login": login_args, "plan": plan_data}
    if request.param == "prisma":
        path = request.getfixturevalue("release")
        build = {"release_path": str(path)}
        return Adapter(
            login, plan, run_module, common, build, {}, lambda: any(row.applied for row in rows(login, plan))
        )
    build = {"adapter": "sql"}
    if request.param == "sql":
        return Adapter(login, plan, run_module, common, build, {}, lambda: verdicts(login, plan) == ["present"] * 3)
    history = {"history": migration_tool.install(login, tmp_path)}
    return Adapter(login, plan, run_module, common, build, history, lambda: OURS in migration_tool.recorded(login))


def test_applied_once_and_predicted_before(adapter: Adapter) -> None:
    before = traces(adapter.login)
    predicted = adapter.present(check=True)
    assert (predicted["changed"], predicted["history"], adapter.applied()) == (True, "pending", False)
    assert traces(adapter.login) == before

    done = adapter.present()
    assert (done["changed"], done["history"], adapter.applied()) == (True, "applied", True)
    assert verdicts(adapter.login, adapter.plan) == ["present"] * 3

    before = traces(adapter.login)
    again = adapter.present()
    assert (again["changed"], again["strategy"], again["history"]) == (False, "none", "applied")
    assert traces(adapter.login) == before


@pytest.mark.parametrize("built", [1, 3], ids=["some", "all"])
def test_a_build_that_was_cut_short_is_gone_on_with(adapter: Adapter, built: int) -> None:
    """Killed between two indexes, and between the last index and the record."""
    query(adapter.login, f"SET search_path = aedpics; {';'.join(MIGRATION.split(';')[:built])}")
    there = query(adapter.login, INDEXES)
    done = adapter.present()
    assert (done["history"], adapter.applied()) == ("applied", True)
    assert verdicts(adapter.login, adapter.plan) == ["present"] * 3
    assert set(there) <= set(query(adapter.login, INDEXES)), "what was built is kept"
    assert not adapter.present()["changed"]


def test_taken_back_once_and_deployed_again(adapter: Adapter) -> None:
    run_id = adapter.deploy()
    back = opened(adapter.login, adapter.plan)
    before = traces(adapter.login)
    predicted = adapter.take_back(run_id, check=True, run_id=back)
    assert (predicted["changed"], adapter.applied(), traces(adapter.login)) == (True, True, before)

    assert adapter.take_back(run_id, run_id=back)["changed"]
    assert (existing(adapter.login, adapter.plan), adapter.applied()) == ((), False)
    assert not adapter.take_back(run_id, run_id=back)["changed"]

    closed(adapter.login, back, "rolled_back")
    adapter.deploy()
    assert adapter.applied()
