#!/usr/bin/env python3
"""Record a run as a deployment of the service's repository on GitHub: github_deployment.py REPORT.json OWNER/NAME

GitHub records this repository's commits for its workflows by itself. This records the service's, which the report has.
Needs gh, logged in (or GH_TOKEN) with the right to write deployments there. A run in check mode is not recorded.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

GOOD = {"deployed", "unchanged"}


def requests(report: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The deployment, and its status, as GitHub's REST API takes them."""
    outcome = report["outcome"]
    taken_back = outcome == "rolled_back" and not report["error"]  # rollback.yml did what it was asked to
    text = f"{outcome}: plan {report['plan']['id']}, run {report['run_id']}"
    deployment = {
        "ref": report["commit"]["after"],
        "environment": report["environment"],
        "description": text,
        "auto_merge": False,
        "required_contexts": [],  # the run has happened, whatever the checks of the commit are
        "production_environment": report["environment"] == "production",
        "payload": {"run_id": report["run_id"]},
    }
    return deployment, {"state": "success" if outcome in GOOD or taken_back else "failure", "description": text}


def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """One request by gh. Raises CalledProcessError when GitHub refuses it; gh has said why."""
    command = ["gh", "api", "--method", "POST", path, "--input", "-"]
    done = subprocess.run(command, input=json.dumps(body), stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("repository")
    options = parser.parse_args(arguments)
    report = json.loads(options.report.read_text(encoding="utf-8"))
    if report["check_mode"] or not report["outcome"] or not report["commit"]["after"]:
        print(f"{options.report} is of a check, or of a run that has not ended: nothing is recorded.")
        return 0
    deployment, status = requests(report)
    try:
        answer = post(f"repos/{options.repository}/deployments", deployment)
        post(f"repos/{options.repository}/deployments/{answer['id']}/statuses", status)
    except (OSError, subprocess.CalledProcessError) as error:
        print(
            f"gh has not recorded {report['run_id']}: {error}. Expected: gh, logged in, with the right to write "
            f"deployments of {options.repository}. Next: gh auth status",
            file=sys.stderr,
        )
        return 1
    print(f"recorded {report['run_id']} in {options.repository}: {status['state']}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
