"""Faults that the running release has already: a release that leaves one is deployed, one that repairs it is too.

What must come of each stands in faults.py; releases that bring the same faults are in test_wrong_releases.py.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.deploy.conftest import PLANNED, ROOT, Lab, Run, light_build, make, run_playbook
from tests.deploy.faults import FAULTS
from tests.deploy.users import Users

# A busy machine can fail the receipt's gate and leave the database's timeouts in the log: the users are witnesses,
# and of the log only the variants' own line counts.
PATIENT = (
    *("-e", "{healthcheck_max_failed_percent: 100, healthcheck_max_gap_ms: 60000, report_language: en}"),
    *("-e", "{healthcheck_log_error_pattern: ERROR monitoring}"),
)
THERE_BEFORE = {
    "monitoring API 500, there before": ("monitoring-500", "monitoring"),
    "race losers 500, there before": ("race-500", "race"),
    "polling page, there before": ("polling-page", "monitoring"),
}
# A healthy release that is taken back loses neither rows nor requests: tests/service/test_faults_before.py holds what
# is known, test_pm2_logs.py there which lines of the log count. A fault that is new is in test_wrong_releases.py.
pytestmark = pytest.mark.thorough


@contextmanager
def there_before(lab: Lab, variant: str) -> Iterator[None]:
    """The release that runs has the fault; it is taken out of that release's directory in the end."""
    release = str(Path(lab.values["app_path"]).resolve())
    command = [str(ROOT / "lab/bin/variant")]
    subprocess.run([*command, variant], check=True, capture_output=True)
    deadline = time.monotonic() + 30
    while lab.served(8) != {lab.values["commit_after"]}:
        assert time.monotonic() < deadline
    try:
        yield
    finally:
        subprocess.run([*command, "none", release], check=True, capture_output=True)


def assert_deployed(lab: Lab, run: Run) -> None:
    assert run.code == 0, run.output
    assert run.report["outcome"] == "deployed"
    assert lab.indexes() == dict.fromkeys(PLANNED, (True, True))
    assert lab.duplicate_groups() == 0


@pytest.mark.parametrize("name", THERE_BEFORE)
def test_a_fault_that_was_there_before(deployed_ground: Lab, name: str) -> None:
    lab, fault, (variant, check) = deployed_ground, FAULTS[name], THERE_BEFORE[name]
    make("lab-fault", f"FAULT={variant}")

    with there_before(lab, variant), Users(lab, pause_s=0.05) as users:
        run = run_playbook("deploy.yml", "-e", f"app_branch=fault/{variant}", *light_build(lab), *PATIENT)

    assert_deployed(lab, run)
    shown = " ".join(run.output.split())
    for word in fault.says:
        assert shown.count(word) == 1, "it is reported once"
    (known,) = run.report["known_faults"]
    assert (known["check"], known["after"], known["statuses"]) == (check, "known", [500])
    verdicts = {found["name"]: (found["ok"], found["known"]) for found in run.report["checks"]}
    assert verdicts.pop(check) == (False, True)
    assert set(verdicts.values()) == {(True, False)}
    assert users.failures == []

    repaired = run_playbook("deploy.yml", *PATIENT)
    assert_deployed(lab, repaired)
    assert {found["check"]: found["after"] for found in repaired.report["known_faults"]} == {check: "repaired"}
    assert lab.served(20) == {lab.values["commit_after"]}
