"""The captures of docs/ name the tasks of the roles as a run names them today."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from at_most_one import catalogue

from scripts import shown_names

ROOT = Path(__file__).parents[2]
CAPTURES = sorted((ROOT / "docs/captures").glob("*.txt"))
CHANGED = re.compile(r"^  (\S.+?): (?:changed|변경됨) \(", re.MULTILINE)
STOPPED = re.compile(r"^  ✖ (.+)$", re.MULTILINE)
WAITED_FOR = re.compile(r"^  \S \d/\d .+? \| (.+) \(", re.MULTILINE)
BEHIND = re.compile(r"\n    (?! )")  # a line goes on in the next one, where the terminal ends


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda path: path.stem)
def test_a_capture_names_tasks_that_there_are(capture: Path) -> None:
    language = "ko" if capture.stem.endswith(".ko") else "en"
    names = {catalogue.name("task", name, language) for kind, name in shown_names.names() if kind == "task"}
    text = capture.read_text(encoding="utf-8")
    shown = {*CHANGED.findall(BEHIND.sub(" ", text)), *STOPPED.findall(text), *WAITED_FOR.findall(text)}
    assert shown
    assert shown - names == set()
