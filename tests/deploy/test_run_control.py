"""A person has a deployment pause, wait before the cutover, go on and end: on the lab, by control.yml."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.deploy.conftest import PLANNED, Lab, Run, light_build, run_playbook
from tests.support.ports import wait_until


def waiting(lab: Lab) -> Any:
    if lab.value("SELECT to_regclass('at_most_one.request') IS NULL"):
        return None
    found = lab.rows("SELECT progress #>> '{waiting,for}' FROM at_most_one.run WHERE outcome IS NULL")
    return found[0][0] if found else None


@contextmanager
def deploying(lab: Lab) -> Iterator[list[Run]]:
    """A deployment beside the test that waits for somebody. Where the test fails first it is told to end."""
    runs: list[Run] = []

    def deploy() -> None:
        runs.append(run_playbook("deploy.yml", "-e", "run_hold_before=pm2_reload", *light_build(lab)))

    thread = threading.Thread(target=deploy)
    thread.start()
    try:
        yield runs
    except BaseException:
        run_playbook("control.yml", "-e", "control_action=abort")
        raise
    finally:
        thread.join(600)
    assert not thread.is_alive()


@pytest.mark.thorough  # tests/database/test_run_control.py holds every checkpoint, the other one here the playbooks
def test_a_deployment_waits_before_the_cutover_until_somebody_continues_it(fresh: Lab) -> None:
    pids = fresh.pids()
    with deploying(fresh) as runs:
        wait_until(lambda: waiting(fresh) == "hold_cutover", 300)
        assert (fresh.pids(), fresh.link, fresh.served()) == (pids, "in place", {fresh.values["commit_before"]})
        assert fresh.indexes() == dict.fromkeys(PLANNED, (True, True)), "everything else is done"
        shown = run_playbook("control.yml", "-e", "report_language=en")
        assert "It waits (before the cutover)" in " ".join(shown.output.split())
        continued = run_playbook("control.yml", "-e", "control_action=continue")
        assert (continued.code, continued.changed) == (0, 1), continued.output
    (run,) = runs
    assert run.code == 0, run.output
    assert run.report["outcome"] == "deployed"
    assert fresh.served(20) == {fresh.values["commit_after"]}


def test_a_deployment_that_is_to_end_takes_itself_back_and_says_who_asked(fresh: Lab) -> None:
    sessions, pids = fresh.sessions(), fresh.pids()
    with deploying(fresh) as runs:
        wait_until(lambda: waiting(fresh) == "hold_cutover", 300)
        assert run_playbook("control.yml", "-e", "control_action=abort").code == 0
    (run,) = runs
    assert run.code != 0
    assert (run.report["outcome"], run.report["failed_phase"]) == ("rolled_back", "verify")
    assert "was asked to end by" in run.report["error"]
    assert "and has ended before the cutover" in run.report["error"]
    assert sessions.items() <= fresh.sessions().items(), "beside them is what the checks have opened and cancelled"
    assert (fresh.duplicate_groups(), fresh.pids(), fresh.indexes()) == (10, pids, {})
