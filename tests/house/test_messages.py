"""Every error message says what was expected and what to do, and is in docs/troubleshooting.md."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def troubleshooting() -> ModuleType:
    """The generator."""
    found = importlib.util.spec_from_file_location("troubleshooting", ROOT / "scripts/troubleshooting.py")
    assert found
    assert found.loader
    module = importlib.util.module_from_spec(found)
    sys.modules["troubleshooting"] = module  # its dataclass looks itself up there
    found.loader.exec_module(module)
    return module


def test_every_message_can_be_acted_on(troubleshooting: ModuleType) -> None:
    found = troubleshooting.messages()
    assert len(found) > 120
    assert [message for message in found if not (message.expected and message.next_step)] == []


def test_the_page_has_every_message(troubleshooting: ModuleType) -> None:
    page = (ROOT / "docs/troubleshooting.md").read_text()
    assert troubleshooting.table(troubleshooting.messages()) in page


def test_a_message_is_read_as_it_stands_in_the_code(troubleshooting: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "room.py").write_text(
        'NEXT = "run it again."\n'
        "def f(n):\n"
        '    raise OperatorError(f"{n} rows are " + ("left." if n else "gone."), expected="none.", next_step=NEXT)\n'
        '    raise OperatorError(f"{n} is mute.")\n'
    )
    said, mute = troubleshooting.of_python(tmp_path / "room.py")
    assert (said.seen, said.expected, said.next_step) == ("… rows are left.", "none.", "run it again.")
    assert (mute.seen, mute.expected) == ("… is mute.", "")
