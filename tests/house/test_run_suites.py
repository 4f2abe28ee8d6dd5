"""The script behind `make test`: its exit code is the verdict of CI, so a failure in either list must reach it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/run_suites.sh"
MAKEFILE = """\
good other slow: ; @echo $@ ran
bad: ; @echo $@ ran; exit 1
"""


def run(directory: Path, beside: str, suites: str, *flags: str) -> tuple[int, str]:
    all_of_them = f'all: ; @{SCRIPT} "{beside}" "{suites}"\n'
    (directory / "Makefile").write_text(all_of_them + MAKEFILE)
    alone = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    command = ["make", *flags, "all"]
    done = subprocess.run(command, cwd=directory, env=alone, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout


def test_every_suite_runs_and_has_its_seconds(tmp_path: Path) -> None:
    code, said = run(tmp_path, "good other", "slow")
    assert code == 0
    table = said.partition("Suites:")[2]
    for suite in ("good", "other", "slow"):
        assert f"{suite} ran" in said
        assert f"  {suite} " in table
    assert "FAILED" not in said


@pytest.mark.parametrize(("beside", "suites"), [("bad", "slow"), ("good", "bad")])
def test_a_failure_in_either_list_is_the_verdict(tmp_path: Path, beside: str, suites: str) -> None:
    code, said = run(tmp_path, beside, suites)
    assert code != 0
    assert [line.split()[0] for line in said.splitlines() if line.endswith("FAILED")] == ["bad"]


@pytest.mark.parametrize(("beside", "suites"), [("bad other", ""), ("", "bad other")])
def test_after_a_failure_no_other_suite_begins(tmp_path: Path, beside: str, suites: str) -> None:
    code, said = run(tmp_path, beside, suites)
    assert code != 0
    assert "other ran" not in said


@pytest.mark.parametrize(("beside", "suites"), [("bad other", ""), ("", "bad other"), ("bad", "other")])
def test_make_k_goes_on_and_the_verdict_stays(tmp_path: Path, beside: str, suites: str) -> None:
    code, said = run(tmp_path, beside, suites, "-k")
    assert code != 0
    assert "other ran" in said
    assert [line.split()[0] for line in said.splitlines() if line.endswith("FAILED")] == ["bad"]


def test_a_variable_with_that_letter_does_not(tmp_path: Path) -> None:
    assert "other ran" not in run(tmp_path, "", "bad other", "LINK=k")[1]
