"""Which text names a version, how it is shown, and what the commands find of it."""

from __future__ import annotations

import pytest
from at_most_one.errors import OperatorError
from at_most_one.service.version import Application, VersionCommands, is_version
from at_most_one.system.commit_names import short


@pytest.mark.parametrize("text", ["1.4.2", "3f616e0", "shop:1.4.2", "shop/app@sha256:0123", "v1+build-7", "1" * 200])
def test_one_word_names_a_version(text: str) -> None:
    assert is_version(text)


@pytest.mark.parametrize("text", ["", "--force", "1 2", "1\n", "$(id)", "1;2", "1" * 201, 1.1, None, "버전"])
def test_an_option_a_sentence_or_a_number_does_not(text: object) -> None:
    assert not is_version(text)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a" * 40, "a" * 12), ("0" * 64, "0" * 12), *[(name, name) for name in ("3f616e0", "2025-11-30.1234", "")]],
)
def test_only_a_commit_is_shortened(name: str, shown: str) -> None:
    assert short(name) == shown


def application(**commands: str) -> Application:
    """Each command is a line for a shell, which gets the version as its environment and its first argument."""
    lines = {"status": "exit 9", "apply": "exit 9", "back": "exit 9", **commands}
    lists = {name: ("sh", "-c", line, "sh", "{version}") for name, line in lines.items()}
    return Application(VersionCommands(**lists, path="/", environment={"VERSION": "v{version}"}, timeout_s=10))


def test_argument_and_environment_name_the_version() -> None:
    asked = 'if [ "$1 $VERSION" = "1 v1" ]; then exit 0; fi; echo 1; exit 3'
    assert application(status=asked).serves("1")
    served = application(status=asked).served()
    assert (served.version, served.settled) == ("1", True)


def test_the_run_is_held_right_before_the_command_and_after_it() -> None:
    held: list[str] = []
    change = application(status="echo 1; exit 3", apply="exit 0")
    with pytest.raises(OperatorError, match="says that another version than 2 serves"):
        change.ensure("2", "applied", lambda: held.append("asked"))
    assert held == ["asked", "asked"]

    def taken_over() -> None:
        raise RuntimeError("taken over")

    with pytest.raises(RuntimeError):
        change.ensure("2", "back", taken_over)  # its command would end with 9
    assert change.ensure("2", "applied", taken_over, check=True).told == "sh -c 'exit 0' sh 2"


@pytest.mark.parametrize("named", ["2", "", "it is 1"])
def test_a_last_line_that_names_no_other_version_is_no_answer(named: str) -> None:
    with pytest.raises(OperatorError, match="its last line names no other version"):
        application(status=f"echo '{named}'; exit 3").ensure("2", "applied", lambda: None)
