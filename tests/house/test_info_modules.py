"""What only reads is an `_info` module: it changes nothing, and asks nobody whether it may."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SOURCES = {path.stem: path.read_text() for path in sorted((ROOT / "library").glob("*.py"))}
INFO = [name for name in SOURCES if name.endswith("_info")]
# Of a module that writes: who holds the run, and which phase ends with the call.
WRITES = {"RUN_SPEC", "WRITING_SPEC", "PHASE_SPEC", "PURGE_SPEC", "held_run", "guard_of", "record_phase", "lower_fence"}


def documentation(name: str) -> dict[str, Any]:
    found = re.search(r'DOCUMENTATION = r"""\n(.*?)"""', SOURCES[name], re.DOTALL)
    assert found
    return dict(yaml.safe_load(found.group(1)))


@pytest.mark.parametrize("name", INFO)
def test_an_info_module_only_reads(name: str) -> None:
    documented = documentation(name)
    assert "at_most_one.reads_only" in documented["extends_documentation_fragment"]
    assert "attributes" not in documented, "the fragment has them"
    tree = ast.parse(SOURCES[name])
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & WRITES
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert "check_mode" not in used, "it does the same in check mode"


@pytest.mark.parametrize("name", INFO)
def test_an_info_module_never_reports_a_change(name: str) -> None:
    reported = [
        value
        for node in ast.walk(ast.parse(SOURCES[name]))
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant) and key.value == "changed"
    ]
    assert [ast.unparse(value) for value in reported] == ["False"]


@pytest.mark.parametrize("name", sorted({*SOURCES} - {*INFO}))
def test_no_other_module_has_a_state_that_only_reads(name: str) -> None:
    state = documentation(name).get("options", {}).get("state", {})
    assert not {"queried", "reached", "read", "served"} & set(state.get("choices", []))
