"""The same service on Prisma 7: deployed, deployed again, taken back, and deployed once more by a concurrent build."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.deploy.conftest import PLANNED, ROOT, Lab, light_build, make, run_playbook

# tests/database/test_real_prisma.py holds each rule on both versions; here the whole of it, with a build of its own.
pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def on_prisma_7(lab: Lab) -> Iterator[Lab]:
    """The lab as the guide's example, on Prisma 7; afterwards on the version that the service has."""
    os.environ["LAB_PRISMA"] = "7"
    make("lab-reset")
    try:
        yield Lab(json.loads((ROOT / ".lab/lab.json").read_text()))
    finally:
        del os.environ["LAB_PRISMA"]
        make("lab-reset")


def prisma(lab: Lab, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Prisma's own command line in the release that serves, as a person calls it."""
    environment = {**os.environ, "PATH": lab.values["path"], "DATABASE_URL": lab.values["database_url"]}
    command = ["node_modules/.bin/prisma", *arguments]
    return subprocess.run(command, cwd=lab.values["app_path"], env=environment, capture_output=True, text=True)


def test_it_is_deployed_again_taken_back_and_built_concurrently(on_prisma_7: Lab) -> None:
    lab = on_prisma_7
    assert "prisma               : 7." in prisma(lab, "--version").stdout
    sessions = lab.sessions()

    forward = run_playbook("deploy.yml", *light_build(lab))
    assert forward.code == 0, forward.output
    assert forward.report["outcome"] == "deployed"
    assert forward.report["cleanup"]["removed"] == 25
    assert lab.indexes() == dict.fromkeys(PLANNED, (True, True))
    assert lab.served() == {lab.values["commit_after"]}
    assert prisma(lab, "migrate", "status").returncode == 0

    again = run_playbook("deploy.yml", *light_build(lab))
    assert (again.code, again.report["outcome"]) == (0, "unchanged"), again.output

    back = run_playbook("rollback.yml")
    assert (back.code, back.report["outcome"]) == (0, "rolled_back"), back.output
    assert lab.indexes() == {}
    assert {id_: row for id_, row in lab.sessions().items() if id_ in sessions} == sessions, "every row is back"
    assert lab.served() == {lab.values["commit_before"]}

    concurrent = run_playbook("deploy.yml", *light_build(lab), "-e", "migrate_strategy=concurrent")
    assert concurrent.code == 0, concurrent.output
    assert lab.indexes() == dict.fromkeys(PLANNED, (True, True))
    assert lab.served() == {lab.values["commit_after"]}
    status = prisma(lab, "migrate", "status")
    assert status.returncode == 0, "Prisma agrees with what was built without it: " + status.stdout
