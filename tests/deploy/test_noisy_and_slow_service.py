"""The release that serves is noisy and slow: the next one is judged by its own lines, and the probe overloads nobody.

What must come of each stands in faults.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.deploy import picture
from tests.deploy.conftest import ROOT, Lab, light_build, make, run_playbook
from tests.deploy.faults import FAULTS

# A healthy release that is taken back loses neither rows nor requests; tests/service holds both rules with real
# processes (test_pm2_logs.py, test_traffic.py).
pytestmark = pytest.mark.thorough

NOISE = "ERROR noisy-and-slow: no template"


def log_of(lab: Lab) -> Path:
    """The one log of all instances."""
    (log,) = Path(lab.values["app_path"] + ".logs").glob("*.log")
    return log


@pytest.fixture(scope="module")
def noisy(deployed_ground: Lab) -> Lab:
    """A release that writes an error for each request serves, and both instances bear 20 requests a second.

    It was deployed by somebody who lets no error line stop a deployment.
    """
    make("lab-fault", "FAULT=noisy-and-slow")
    blind = {
        "healthcheck_log_error_pattern": "(?!)",
        "healthcheck_max_failed_percent": 100,
        "healthcheck_max_gap_ms": 60_000,
    }
    options = ("-e", "app_branch=fault/noisy-and-slow", "-e", json.dumps(blind))
    run = run_playbook("deploy.yml", *options, *light_build(deployed_ground))
    assert run.code == 0, run.output
    return deployed_ground


# The same verdict with a quiet release before is in make test: test_wrong_releases.py, "error lines in the log".
def test_a_new_error_line_is_found_among_the_noise(noisy: Lab) -> None:
    fault = FAULTS["new error line in a merged log"]
    make("lab-fault", "FAULT=log-errors")
    before = picture.take(noisy)
    run = run_playbook("deploy.yml", "-e", "app_branch=fault/log-errors", *light_build(noisy))
    assert run.code != 0
    assert (run.report["failed_phase"], run.report["outcome"]) == (fault.phase, fault.outcome), run.report["error"]
    first, _, _back = run.report["error"].partition("\nRolled back automatically:")
    for word in fault.says:
        assert word in first
    assert NOISE not in first
    picture.assert_as_before(before, picture.take(noisy))


def test_the_release_that_fixes_it_is_deployed(noisy: Lab) -> None:
    log = log_of(noisy)
    written = log.stat().st_size
    run = run_playbook("deploy.yml")
    assert run.code == 0, run.output
    for name in ("noisy old release", "service slowed to 20 requests a second"):
        assert run.report["outcome"] == FAULTS[name].outcome
    assert log.read_text()[written:].count(NOISE) > 20, "the release before was noisy until its end"
    (check,) = [one for one in run.report["checks"] if one["name"] == "log"]
    assert check["got"].startswith("0 with errors")

    receipt = json.loads((ROOT / "artifacts/local/latest/traffic.json").read_text())
    assert receipt["p50_before_ms"] >= 100
    assert receipt["rate_per_s"] <= 10 / 3, "a third of what a single client gets answered"
    assert receipt["requests"] >= 10
    assert receipt["failures"] <= 1
    assert run.report["traffic"]["failures"] == receipt["failures"]
