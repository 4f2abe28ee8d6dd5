"""A terminal's one live line, and text laid out in its cells: Korean letters take two."""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

_ERASE = b"\r\x1b[2K"
_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_TICK_S = 0.1
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# What a terminal obeys and no line of ours has: all but tab and new line, and what turns the direction of letters.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_LABEL = re.compile(r" +\S+(?: \S+)* {2,}(?=\S)")  # "  Cause   ": what follows goes on under its beginning
# A command for a shell: its playbook, and the options with their values.
_WORD = r"(?:'[^']*'|\"[^\"]*\"|[^\s'\"])+"
_COMMAND = re.compile(rf"\bansible-playbook {_WORD}(?: -{_WORD}(?: (?!-){_WORD})?)*")


def is_live(is_terminal: bool, environment: Mapping[str, str]) -> bool:
    """Whether a line may be drawn over: on a terminal that can, outside CI, unless a person asked for none.

    NO_COLOR counts as such a wish (https://no-color.org): who sets it wants text that a file can hold.
    """
    unwanted = any(environment.get(name) for name in ("CI", "NO_COLOR", "ANSIBLE_NOCOLOR"))
    return is_terminal and not unwanted and environment.get("TERM", "dumb") != "dumb"


def width(text: str) -> int:
    """How many cells of a terminal ``text`` takes (Unicode standard annex 11)."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def fit(text: str, cells: int) -> str:
    """``text`` on one line, cut to ``cells`` with an ellipsis where it is longer."""
    line = text.replace("\n", " ")
    if width(line) <= cells:
        return line
    while line and width(line) > cells - 1:
        line = line[:-1]
    return line.rstrip() + "…"


def plain(text: str) -> str:
    """``text`` of any program on one line, without colours, control characters and what it has drawn over."""
    drawn = _COLOUR.sub("", text).rstrip().rpartition("\r")[2]
    return "".join(letter if letter.isprintable() else " " for letter in drawn).strip()


def harmless(text: str) -> str:
    """``text`` without what a terminal obeys: it may quote a log, in which whoever sends requests can write."""
    return _CONTROL.sub("", _COLOUR.sub("", text))


def pad(text: str, cells: int) -> str:
    """``text``, filled with spaces up to ``cells``."""
    return text + " " * max(0, cells - width(text))


def wrap(text: str, columns: int | None, indent: str) -> list[str]:
    """``text`` with every line indented, broken between words where it is longer than ``columns``; None: never."""
    lines = []
    for whole in filter(str.strip, text.splitlines()):
        line = indent
        for word in _words(whole):
            if columns and line.strip() and width(line) + width(word) >= columns:
                lines.append(line.rstrip())
                line = indent
            line += f"{word} "
        lines.append(line.rstrip())
    return lines


def _words(line: str) -> list[str]:
    """What a line is broken between. A command is one: pasted without its last options it would do something else."""
    kept = _COMMAND.sub(lambda found: found[0].replace(" ", "\0"), line)
    return [word.replace("\0", " ") for word in kept.split(" ")]


def flow(text: str, columns: int | None) -> str:
    """``text`` as it stands, what is longer than ``columns`` broken between words and set in; None: never."""
    lines = []
    for whole in text.split("\n"):
        if not columns or width(whole) < columns:
            lines.append(whole)
            continue
        indent = whole[: len(whole) - len(whole.lstrip())]
        label = _LABEL.match(whole)
        hang = " " * width(label[0]) if label and width(label[0]) <= columns // 2 else f"{indent}  "
        first = label[0] if label else indent
        line, *words = _words(whole.removeprefix(first))
        line = first + line
        for word in words:
            if width(line) + 1 + width(word) >= columns:
                lines.append(line)
                line = hang + word
            else:
                line += f" {word}"
        lines.append(line)
    return "\n".join(lines)


def labelled(facts: Sequence[tuple[str, str]]) -> str:
    """Facts under one another, each behind its label; a label that comes again is left out."""
    cells = max((width(label) for label, _ in facts), default=0) + 2
    lines, before = [], ""
    for label, text in facts:
        shown = "" if label == before else label
        lines += [
            f"  {pad(shown if not number else '', cells)}{line.strip()}"
            for number, line in enumerate(text.splitlines())
        ]
        before = label
    return "\n".join(lines)


def seconds(value: float) -> str:
    """A duration as a person says it: 0.4 s, 12 s, 3 min 05 s."""
    if value < 9.95:
        return f"{value:.1f} s"
    if value < 119.5:
        return f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02} s"


class Ticker:
    """Calls ``compose`` while something runs, and shows what it returns.

    On a live terminal that is one line, drawn over about ten times a second. Elsewhere it is a whole line every
    ``still_s`` seconds, so that a log shows that a long step still runs. ``compose`` gets a spinner's frame, or an
    empty string for a whole line, and returns an empty string when there is nothing to say.

    It writes to the descriptor, never through a buffer that a forked child could flush a second time.
    """

    def __init__(self, descriptor: int, *, live: bool, still_s: float, compose: Callable[[str], str]) -> None:
        self.live = live
        self._descriptor, self._still_s, self._compose = descriptor, still_s, compose
        self._lock = threading.RLock()
        self._owner = os.getpid()
        self._stop = threading.Event()
        self._drawn = False
        self._silent_until = 0.0
        self._thread = threading.Thread(target=self._run, name="at-most-one-ticker", daemon=True)

    def start(self) -> None:
        """Begin."""
        self.touch()
        self._thread.start()

    def stop(self) -> None:
        """Take the live line away for good. Safe to call twice."""
        self._stop.set()
        with self.hidden():
            pass

    def touch(self) -> None:
        """Something was just said: the next whole line is ``still_s`` away."""
        self._silent_until = time.monotonic() + self._still_s

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """For as long as others write. A forked child never waits: it may have been created while the lock was held."""
        if os.getpid() != self._owner:
            yield
            return
        with self._lock:
            if self._drawn:
                self._write(_ERASE)
                self._drawn = False
            yield

    def _run(self) -> None:
        tick = 0
        while not self._stop.wait(_TICK_S if self.live else 1.0):
            tick += 1
            with self._lock:
                if self.live:
                    self._draw(self._compose(_FRAMES[tick % len(_FRAMES)]))
                elif time.monotonic() >= self._silent_until and (line := self._compose("")):
                    self.touch()
                    self._write(f"{line}\n".encode())

    def _draw(self, line: str) -> None:
        if line and not self._stop.is_set():
            columns = shutil.get_terminal_size().columns
            self._write(_ERASE + fit(line, columns - 1).encode())
            self._drawn = True

    def _write(self, data: bytes) -> None:
        try:
            os.write(self._descriptor, data)
        except OSError:  # nobody reads any more; what is said about a run must not end it
            self._stop.set()
