"""What a deployment of code that does not boot leaves: the old code served by both instances, everything as before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def lab() -> dict[str, Any]:
    return json.loads((ROOT / ".lab/lab.json").read_text())


def test_the_report_names_the_phase() -> None:
    report = json.loads((ROOT / "artifacts/local/latest/report.json").read_text())
    assert report["outcome"] == "stopped"
    assert report["failed_phase"] == "prepare"
    assert "does not boot" in report["error"]
    assert report["cleanup"]["removed"] == 0


def test_nothing_that_serves_was_touched(host: Any, lab: dict[str, Any]) -> None:
    old = lab["app_path"]
    assert host.file(old).is_directory
    assert not host.file(old).is_symlink
    listed = host.run("PATH=%s PM2_HOME=%s %s jlist", lab["path"], lab["pm2_home"], lab["pm2_bin"]).stdout
    workers = json.loads(listed[listed.index("[{") :])
    assert [worker["pm2_env"]["status"] for worker in workers] == ["online", "online"]
    assert {host.file(f"/proc/{worker['pid']}/cwd").linked_to for worker in workers} == {old}


def test_the_old_code_answers(lab: dict[str, Any]) -> None:
    for _ in range(8):
        with urlopen(f"{lab['app_url']}/", timeout=10) as answer:
            assert f'\\"b\\":\\"{lab["commit_before"]}\\"' in answer.read().decode()
