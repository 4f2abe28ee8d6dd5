"""--check --diff shows the rows that would go and the definitions that would come, and writes nothing at all."""

from __future__ import annotations

from tests.deploy.conftest import PLANNED, Lab, run_playbook


def test_shows_everything_and_changes_nothing(fresh: Lab) -> None:
    before = (fresh.content(), fresh.catalog(), fresh.pids(), fresh.link)
    surplus = fresh.rows(
        """
        SELECT id::text FROM (SELECT id, row_number() OVER (PARTITION BY equipment_serial
                                     ORDER BY started_at DESC NULLS LAST, id) AS place
                                FROM aedpics.inspection_sessions WHERE status IN ('active', 'paused')) ranked
         WHERE place > 1
        """
    )

    run = run_playbook("deploy.yml", "--check", "--diff")

    assert run.code == 0, run.output
    assert len(surplus) == 25
    assert [run.output.count(row) for (row,) in surplus] == [1] * 25, "the table has each once, and no difference again"
    assert all(name in run.output for name in PLANNED)
    assert run.output.count("CREATE ") >= 3
    assert (fresh.content(), fresh.catalog(), fresh.pids(), fresh.link) == before
