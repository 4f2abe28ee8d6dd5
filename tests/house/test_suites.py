"""Suites do not lean on each other: what two of them need is in tests/support or in tests/conftest.py."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SUITES = sorted(path.name for path in TESTS.iterdir() if path.is_dir() and not path.name.startswith("__"))
SHARED = {"support", "conftest"}
# What is imported because it is what the test is about: programs, and the list of faults behind docs/faults.md.
TESTED = {
    "unit": {"tests.chaos", "tests.mutants"},
    "house": {"tests.deploy.faults"},
    "hosts": {"tests.deploy.faults"},
}


def imported(file: Path) -> set[str]:
    """The modules of tests/ that a file imports, also inside of functions."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith("tests.")}


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_imports_only_itself_and_what_is_shared(suite: str) -> None:
    own = {"support"} if suite == "support" else {suite, *SHARED}
    foreign = {
        (file.relative_to(TESTS).as_posix(), name)
        for file in (TESTS / suite).rglob("*.py")
        for name in imported(file)
        if name.split(".")[1] not in own and not any(f"{name}.".startswith(f"{ok}.") for ok in TESTED.get(suite, ()))
    }
    assert not foreign, "Expected: tests.support. Next: move what both need to it."


def test_the_rule_sees_an_import_of_another_suite(tmp_path: Path) -> None:
    file = tmp_path / "test_it.py"
    file.write_text("def test():\n    from tests.database.conftest import server\nfrom tests.support import ports\n")
    assert imported(file) == {"tests.database.conftest.server", "tests.support.ports"}
