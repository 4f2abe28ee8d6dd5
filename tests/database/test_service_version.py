"""app_adapter command: a program is believed about the version that serves once it has said so twice."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Login

from tests.database.index_tools import wait_for
from tests.database.test_adapters import closed, opened

SECRET = "abracadabra-of-the-cluster"
STAND_IN = """#!{python}
import os, pathlib, subprocess, sys, time
question, version = sys.argv[1:]
pathlib.Path("calls").open("a").write(question + " ")
mode, serves = pathlib.Path("mode").read_text(), pathlib.Path("serves")
if mode == "says yes":
    sys.exit(0)
if mode == "leaks":
    print("no answer with", os.environ["API_TOKEN"])
    sys.exit(1)
if mode == "names its secret":
    print(os.environ["API_TOKEN"])
    sys.exit(3)
if mode == "names nothing":
    sys.exit(3)
if mode == "names a sentence":
    print("another one serves")
    sys.exit(3)
if mode == "hangs":
    pathlib.Path("child").write_text(str(subprocess.Popen(["sleep", "60"]).pid))
    time.sleep(60)
if question == "status":
    if serves.read_text() == version and mode != "two versions":
        sys.exit(0)
    print("a warning")
    print(serves.read_text())
    sys.exit(3)
if mode == "fails":
    print("no such image, says", os.environ["API_TOKEN"])
    sys.exit(7)
if mode != "lies":
    serves.write_text(version)
"""


class Program:
    """An application of which 1.4.1 serves, and the modules with its commands."""

    def __init__(self, directory: Path, module: Callable[..., dict[str, Any]], login_args: dict[str, Any]) -> None:
        self.directory, self.module, self.login_args = directory, module, login_args
        program = directory / "version"
        program.write_text(STAND_IN.format(python=sys.executable))
        program.chmod(0o755)
        (directory / "serves").write_text("1.4.1")
        self.behave("well")
        self.commands: dict[str, Any] = {
            **{name: ["./version", name, "{version}"] for name in ("status", "apply", "back")},
            **{"path": str(directory), "environment": {"API_TOKEN": SECRET}, "timeout_s": 30},
        }

    def behave(self, mode: str) -> None:
        """How it acts from now on."""
        (self.directory / "mode").write_text(mode)

    @property
    def serves(self) -> str:
        return (self.directory / "serves").read_text()

    def calls(self) -> list[str]:
        """What it was asked since this was last called."""
        path = self.directory / "calls"
        asked = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return asked

    def served(self) -> dict[str, Any]:
        return self.module("service_version_info", {"commands": self.commands})

    def ensure(self, version: str, state: str = "applied", *, check: bool = False, **options: Any) -> dict[str, Any]:
        arguments = {"login": self.login_args, "commands": self.commands, "state": state, "version": version}
        return self.module("service_version", {**arguments, **options}, check=check)


@pytest.fixture
def program(tmp_path: Path, run_module: Callable[..., dict[str, Any]], login_args: dict[str, Any]) -> Program:
    return Program(tmp_path, run_module, login_args)


def test_which_version_serves_is_asked_about_none_and_about_itself(program: Program) -> None:
    found = program.served()
    assert (found["version"], found["settled"], found["changed"]) == ("1.4.1", True, False)
    assert program.calls() == ["status", "status"]
    program.behave("two versions")
    assert program.served()["settled"] is False


@pytest.mark.parametrize(
    ("mode", "identifier", "seen"),
    [
        ("says yes", "AMO-4414", "although that version does not exist"),
        ("leaks", "AMO-4415", "ended with exit code 1. It said: no answer with ***"),
        ("names nothing", "AMO-4416", "its last line names no other version. It said nothing."),
        ("names a sentence", "AMO-4416", "It said: another one serves"),
        ("names its secret", "AMO-4416", "It said: ***"),
        ("not installed", "AMO-4419", "cannot be started"),
    ],
)
def test_a_program_that_does_not_say_which_version_serves_is_refused(
    program: Program, mode: str, identifier: str, seen: str
) -> None:
    program.behave(mode)
    if mode == "not installed":
        (program.directory / "version").unlink()
    found = program.served()
    assert seen in found["seen"]
    assert (found["findings"][0]["identifier"], program.serves) == (identifier, "1.4.1")
    assert SECRET not in str(found)


def test_a_program_that_hangs_is_ended_with_its_child(program: Program) -> None:
    program.commands["timeout_s"] = 2
    program.behave("hangs")
    assert "did not end within" in program.served()["seen"]
    child = (program.directory / "child").read_text()
    wait_for(lambda: not os.path.exists(f"/proc/{child}/exe"), seconds=5)


@pytest.mark.parametrize(("state", "command"), [("applied", "apply"), ("back", "back")])
def test_a_version_is_put_into_service_once_and_predicted_before(program: Program, state: str, command: str) -> None:
    predicted = program.ensure("1.4.2", state, check=True)
    assert (predicted["changed"], predicted["told"]) == (True, f"./version {command} 1.4.2")
    assert (program.calls(), program.serves) == (["status"], "1.4.1")

    done = program.ensure("1.4.2", state)
    assert (done["changed"], done["before"], program.serves) == (True, "1.4.1", "1.4.2")
    assert done["diff"] == {"before": "version: 1.4.1\n", "after": "version: 1.4.2\n"}
    assert program.calls() == ["status", command, "status"]

    again = program.ensure("1.4.2", state)
    assert (again["changed"], again["told"], program.calls()) == (False, "", ["status"])
    assert SECRET not in str([predicted, done, again])


@pytest.mark.parametrize(
    ("mode", "identifier", "seen"),
    [
        ("fails", "AMO-4417", "./version apply 1.4.2 ended with exit code 7. It said: no such image, says ***"),
        ("lies", "AMO-4418", "./version status 1.4.2 says that another version than 1.4.2 serves."),
    ],
)
def test_what_was_not_put_into_service_is_no_success_and_the_next_call_does_it(
    program: Program, mode: str, identifier: str, seen: str
) -> None:
    program.behave(mode)
    refused = program.ensure("1.4.2")
    assert seen in refused["seen"]
    assert refused["findings"][0]["identifier"] == identifier
    assert SECRET not in str(refused)
    program.behave("well")
    assert (program.ensure("1.4.2")["changed"], program.serves) == (True, "1.4.2")


def test_a_switch_that_was_cut_short_is_gone_on_with(program: Program) -> None:
    program.behave("two versions")
    assert program.ensure("1.4.2", check=True)["changed"]
    assert "AMO-4418" in str(program.ensure("1.4.2")), "one of them is still the old one"


def test_a_run_that_does_not_hold_its_plan_any_more_changes_nothing(program: Program, login: Login, plan: Plan) -> None:
    run_id = opened(login, plan)
    assert program.ensure("1.4.2", run_id=run_id)["changed"]
    closed(login, run_id, "stopped")
    program.calls()
    refused = program.ensure("1.4.1", "back", run_id=run_id)
    assert run_id in refused["msg"]
    assert (program.calls(), program.serves) == (["status"], "1.4.2")
