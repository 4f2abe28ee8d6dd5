"""Releases that are wrong, each deployed on top of a good one: what meets them, what is taken back, what users notice.

What must come of each stands in faults.py.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from tests.deploy import picture
from tests.deploy.conftest import Lab, light_build, make, run_playbook
from tests.deploy.faults import FAULTS
from tests.deploy.users import Users

# The receipt's gate comes before the checks, and a busy machine alone can fail it: the users here are the witnesses.
PATIENT = ("-e", "{healthcheck_max_failed_percent: 100, healthcheck_max_gap_ms: 60000}")
# The log is asked before the checks that these are about, and a busy machine leaves the database's timeouts in it.
CHECKS_ONLY = (*PATIENT, "-e", "{healthcheck_log_error_pattern: ERROR monitoring}")
WRONG = {
    "crash after 2 s": ("crash-later", ("-e", "pm2_reload_stable_s=3")),  # the default
    "boot slower than the timeout": ("slow-boot", ("-e", "app_instance_timeout_s=4")),
    "wrong build served": ("wrong-build", ("-e", "app_build_header=x-app-commit")),
    "removed BUILD_ID": ("wrong-build", ()),
    "monitoring API 500": ("monitoring-500", CHECKS_ONLY),
    "race losers 500": ("race-500", CHECKS_ONLY),
    "polling page": ("polling-page", PATIENT),
    "error lines in the log": ("log-errors", PATIENT),
}
# The trial boot finds the first four; tests/service/test_boot.py holds that with processes of every kind. The race
# shows what comes of a fault that a check finds; tests/service holds each check.
SHOWN = {"race losers 500"}
CASES = [pytest.param(name, marks=[] if name in SHOWN else [pytest.mark.thorough]) for name in WRONG]


@contextmanager
def naming_itself(lab: Lab) -> Iterator[None]:
    """The variant of the application whose answers name their build: from its next boot on, so also the trial's."""
    settings = Path(f"{lab.values['app_path']}.releases/shared/.env.production")
    before = settings.read_text()
    settings.write_text(f"{before}APP_NAMES_ITSELF=1\n")
    try:
        yield
    finally:
        settings.write_text(before)


def remove_build_id(lab: Lab, branch: str) -> None:
    """From the finished release of this branch, which the deployment before it has left; else it is made here."""
    command = ["git", "-C", lab.values["app_origin"], "rev-parse", f"fault/{branch}"]
    commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    release = Path(lab.values["app_path"] + ".releases") / commit
    if not (release / ".at-most-one.json").exists():
        made = run_playbook("deploy.yml", "-e", f"app_branch=fault/{branch}", *light_build(lab), "--tags", "prepare")
        assert made.code == 0, made.output
    (release / ".next/BUILD_ID").unlink(missing_ok=True)  # the lab keeps what it has built


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_release(deployed_ground: Lab, name: str) -> None:
    lab, fault, (branch, arguments) = deployed_ground, FAULTS[name], WRONG[name]
    make("lab-fault", f"FAULT={branch}")
    if name == "removed BUILD_ID":
        remove_build_id(lab, branch)
    before, pids, link = picture.take(lab), lab.pids(), lab.link

    # A copied build has its own id and files: only answers that name the commit tell it from the right one.
    variant = naming_itself(lab) if name == "wrong build served" else nullcontext()
    with variant, Users(lab, pause_s=0.05) as users:
        run = run_playbook("deploy.yml", "-e", f"app_branch=fault/{branch}", *light_build(lab), *arguments)

    assert run.code != 0
    assert (run.report["failed_phase"], run.report["outcome"]) == (fault.phase, fault.outcome), run.report["error"]
    first, _, back = run.report["error"].partition("\nRolled back automatically:")
    for word in (*fault.says, "Expected:", "Next:"):
        assert word in first
    assert bool(back) == (fault.outcome == "rolled_back")
    phases = [(phase["name"], phase["status"]) for phase in run.report["phases"]]
    assert [name for name, _ in phases].count("rollback") == int(bool(back))
    assert [status for name, status in phases if name == fault.phase] == ["failed"], "recorded once, and as what it was"
    picture.assert_as_before(before, picture.take(lab))
    assert lab.link == link
    untouched = set(lab.pids()) & set(pids)
    assert len(untouched) == {"stopped": 2, "rolled_back": 0}[str(fault.outcome)]
    assert users.requests >= 200
    assert users.failures == []
