"""Releases that are wrong, each deployed on top of a good one: what meets them, what is taken back, what users notice.

What must come of each stands in faults.py.
"""

from __future__ import annotations

import pytest

from tests.deploy import picture
from tests.deploy.conftest import Lab, light_build, make, run_playbook
from tests.deploy.faults import FAULTS
from tests.deploy.users import Users

# The receipt's gate comes before the checks, and a busy machine alone can fail it: the users here are the witnesses.
PATIENT = ("-e", "{healthcheck_max_failed_percent: 100, healthcheck_max_gap_ms: 60000}")
WRONG = {
    "crash after 2 s": ("crash-later", PATIENT),
    "boot slower than the timeout": ("slow-boot", ("-e", "app_instance_timeout_s=8")),
    "wrong build served": ("wrong-build", ("-e", "app_instance_timeout_s=15")),
    "monitoring API 500": ("monitoring-500", PATIENT),
    "error lines in the log": ("log-errors", PATIENT),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_release(deployed_ground: Lab, name: str) -> None:
    lab, fault, (branch, arguments) = deployed_ground, FAULTS[name], WRONG[name]
    make("lab-fault", f"FAULT={branch}")
    before, pids, link = picture.take(lab), lab.pids(), lab.link

    with Users(lab, pause_s=0.05) as users:
        run = run_playbook("deploy.yml", "-e", f"app_branch=fault/{branch}", *light_build(lab), *arguments)

    assert run.code != 0
    assert (run.report["failed_phase"], run.report["outcome"]) == (fault.phase, fault.outcome), run.report["error"]
    first, _, back = run.report["error"].partition("\nRolled back automatically:")
    for word in (*fault.says, "Expected:", "Next:"):
        assert word in first
    assert bool(back) == (fault.outcome == "rolled_back")
    assert [phase["name"] for phase in run.report["phases"]].count("rollback") == int(bool(back))
    picture.assert_as_before(before, picture.take(lab))
    assert lab.link == link
    untouched = set(lab.pids()) & set(pids)
    assert len(untouched) == {"stopped": 2, "rolled_back": 1 if fault.phase == "pm2_reload" else 0}[str(fault.outcome)]
    assert users.requests >= 200
    assert users.failures == []
