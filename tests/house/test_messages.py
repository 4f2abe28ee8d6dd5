"""How docs/troubleshooting.md gets every error message; that it has them all is a part of `make lint`."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
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


def test_a_message_is_read_as_it_stands_in_the_code(troubleshooting: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "room.py").write_text(
        'NEXT = "run it again."\n'
        "def f(n):\n"
        '    raise OperatorError(f"{n} rows are " + ("left." if n else "gone."), expected="none.", next_step=NEXT)\n'
        '    raise OperatorError(f"{n} is mute.")\n'
        '    return Finding("rows", f"{n} are left.", "none.", "deploy again.")\n'
    )
    found, mute, said = sorted(troubleshooting.of_python(tmp_path / "room.py"), key=lambda message: message.seen)
    assert (found.seen, found.expected, found.next_step) == ("… are left.", "none.", "deploy again.")
    assert (said.seen, said.expected, said.next_step) == ("… rows are left.", "none.", "run it again.")
    assert (mute.seen, mute.expected) == ("… is mute.", "")


def test_a_text_that_says_all_three_is_a_message(troubleshooting: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text(
        'raise Wrong(f"{x} is none. " f"Expected: {y}. " "Next: go.")\nf"{x} is nothing"\n'
    )
    (said,) = troubleshooting.of_python(tmp_path / "plugin.py")
    assert (said.seen, said.expected, said.next_step) == ("… is none.", "….", "go.")


def test_a_message_that_is_not_on_the_page_or_says_too_little_is_found(
    troubleshooting: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``make lint`` looks at the page itself; this is how it would say so."""
    page = tmp_path / "page.md"
    monkeypatch.setattr(troubleshooting, "PAGES", {"en": page})
    monkeypatch.setattr(sys, "argv", ["troubleshooting.py", "--check"])
    good = troubleshooting.Message("room", "… rows.", "none.", "run it again.")
    for found, missing in (([good], [good]), ([good, replace(good, next_step="")], [])):
        monkeypatch.setattr(troubleshooting, "messages", lambda found=found: found)
        shown = [message for message in found if message not in missing]
        table = troubleshooting.table(shown)
        page.write_text(f"{troubleshooting.BEGIN}\n{table}\n{troubleshooting.END}\n")
        assert troubleshooting.main() == 1
    said = capsys.readouterr().out
    assert "misses a message" in said
    assert "does not say what was expected" in said
