"""One class says what was seen, expected and is to be done; a text is taken apart only where it came as a text."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = ROOT / "module_utils/at_most_one"
CODE = [ROOT / name for name in ("module_utils", "library", "callback_plugins", "filter_plugins", "action_plugins")]

# Where a text may be taken apart, and which text that is.
FOREIGN = {
    "monitoring/findings.py": "what Ansible itself says of a module that could not run",
    "notify/messages.py": "the error of a run as the role hands it over",
    "notify/notices.py": "the error of a run as the role hands it over",
    "report/facts.py": "the error of a run as the role hands it over",
    "report/page.py": "the error of a run as the role hands it over",
}


def _trees() -> list[tuple[Path, ast.Module]]:
    files = sorted(file for directory in CODE for file in directory.rglob("*.py"))
    return [(file, ast.parse(file.read_text(encoding="utf-8"))) for file in files]


def test_there_is_one_class_for_a_finding() -> None:
    fields = {"seen", "expected", "next_step"}
    named, shaped = [], []
    for file, tree in _trees():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ClassDef):
                continue
            own = {
                one.target.id
                for one in node.body
                if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
            }
            place = f"{file.relative_to(ROOT)}:{node.name}"
            if node.name == "Finding":
                named.append(place)
            if fields <= own:
                shaped.append(place)
    assert named == ["module_utils/at_most_one/findings.py:Finding"]
    # A gate of the checklist has the three phrases when it is passed too: it is an answer, not a finding.
    assert sorted({*shaped} - {*named}) == ["module_utils/at_most_one/preflight/checklist.py:Answer"]


def test_the_core_takes_apart_foreign_texts_only() -> None:
    importing = {
        file.relative_to(CORE).as_posix()
        for file, tree in _trees()
        if file.is_relative_to(CORE)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and node.module == "findings"
        and "parse" in [one.name for one in node.names]
    }
    assert importing == FOREIGN.keys()
