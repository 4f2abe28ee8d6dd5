"""What is shown of a run while it goes on: its phases, the task that is running, the table at the end."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import catalogue
from . import terminal

_HOSTS_NAMED = 4
_NUMBERS = re.compile(r"\((\d+)/(\d+)\) ")
_REPORTS_READ = 50

Words = Mapping[str, str]


@dataclass
class Phase:
    """One play, or several batches of it. ``key`` is its name in report.json; a play that is no phase has none."""

    name: str
    key: str = ""
    translation: str = ""
    begun: float = field(default_factory=time.monotonic)
    ended: float | None = None
    changed: bool = False
    shown: bool = False
    left_out: bool = False  # it is not part of this run

    @property
    def numbers(self) -> tuple[int, int] | None:
        """(2, 7) of a play named (2/7)."""
        found = _NUMBERS.match(self.name)
        return (int(found[1]), int(found[2])) if found else None

    @property
    def title(self) -> str:
        """The play's name, with its translation beside it."""
        return f"{self.name} · {self.translation}" if self.translation else self.name

    @property
    def short(self) -> str:
        """The play's name in the reader's language alone, with its numbers."""
        numbers = _NUMBERS.match(self.name)
        return f"{numbers[0]}{self.translation}" if numbers and self.translation else self.name

    @property
    def closes(self) -> bool:
        """Whether it is the last one of its playbook."""
        return self.numbers is not None and self.numbers[0] == self.numbers[1]

    @property
    def seconds(self) -> float:
        """From its first task to its end, or until now."""
        return (time.monotonic() if self.ended is None else self.ended) - self.begun


@dataclass
class Running:
    """The task that is running: who still works on it, whom it has changed, and what there is to say of it."""

    name: str
    begun: float = field(default_factory=time.monotonic)
    waiting: dict[str, None] = field(default_factory=dict)
    changed: dict[str, None] = field(default_factory=dict)
    fact: str = ""
    note: str = ""
    prompts: bool = False
    secret: bool = False  # no_log: nothing of what it does is shown

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self.begun


def translated(name: str, language: str) -> str:
    """A play's name without its numbers in that language; empty where that is no other one."""
    english = _NUMBERS.sub("", name)
    found = catalogue.name("play", english, language)
    return "" if found == english else found


def named(hosts: Sequence[str]) -> str:
    """The first hosts by name, the others by their number."""
    more = len(hosts) - _HOSTS_NAMED
    return ", ".join(hosts[:_HOSTS_NAMED]) + (f" (+{more})" if more > 0 else "")


def at_work(step: Mapping[str, Any], words: Words) -> tuple[str, str]:
    """How many steps a module has done (:mod:`at_most_one.system.live_step`), and what it is at within one; both may be
    empty. It may be of any program: nothing of it is taken for what it should be.
    """
    unit, done, total, waits_for, detail = (step.get(name) for name in ("unit", "done", "total", "waits_for", "detail"))
    steps = []
    if f"step_{unit}" in words and isinstance(done, int) and isinstance(total, int):
        steps.append(words[f"step_{unit}"].format(done, total))
    if waits_for and isinstance(waits_for, str):
        steps.append(words["step_waits"].format(terminal.plain(waits_for)))
    return ", ".join(steps), terminal.plain(detail) if isinstance(detail, str) else ""


def status(
    frame: str, phase: Phase, running: Running, hosts: int, words: Words, work: tuple[str, str] = ("", "")
) -> str:
    """The live line, drawn with a spinner's ``frame``; without one, the line with which a log says: it still runs.

    ``work`` is what its module is :func:`at_work` on. On a narrow terminal the steps stay, and what is behind goes.
    """
    waiting = f"  {words['waits']} {named(list(running.waiting))}" if hosts > 1 and running.waiting else ""
    took = terminal.seconds(running.seconds)
    steps, detail = work
    if not frame:
        done = "".join(f"  {part}" for part in work if part)
        return f"  … {running.name}: {took}{running.note}{done}{waiting}"
    number = "{}/{} ".format(*phase.numbers) if phase.numbers else ""
    head = f"  {frame} {number}{terminal.seconds(phase.seconds)} | " + (f"{steps} | " if steps else "")
    return f"{head}{running.name} ({took}){running.note}" + (f"  {detail}" if detail else "") + waiting


def changed_line(running: Running, hosts: int, check_mode: bool, words: Words) -> str:
    """What a task has changed, once, however many hosts there are."""
    word = words["would_change" if check_mode else "changed"]
    where = f" {words['on']} {named(list(running.changed))}" if hosts > 1 else ""
    fact = f", {running.fact}" if running.fact else ""
    return f"  {running.name}: {word}{where} ({terminal.seconds(running.seconds)}){fact}"


def fact(result: Mapping[str, Any], words: Words) -> str:
    """The one number of a module's result that a person would ask for."""
    if "removed" in result and "archived" in result:
        return words["rows"].format(result["archived"], result["removed"])
    if isinstance(result.get("summary"), str):
        return str(result["summary"])
    if isinstance(result.get("instances"), list):
        return words["instances"].format(len(result["instances"]))
    return ""


def recap_line(host: str, counted: Mapping[str, int]) -> str:
    """Ansible's own counts of one host, in the words by which other programs judge a run."""
    names = {"ok": "ok", "changed": "changed", "unreachable": "unreachable", "failed": "failures"}
    names |= {name: name for name in ("skipped", "rescued", "ignored")}
    return f"{host} : " + " ".join(f"{word}={counted[name]}" for word, name in names.items())


def table(
    phases: Iterable[Phase],
    *,
    stopped: bool,
    check_mode: bool,
    earlier: Mapping[str, float],
    words: Words,
    total: bool = True,
) -> Iterator[tuple[str, bool]]:
    """The phases with their seconds, beside those of an earlier run, and whether the line is the one that stopped.

    Without ``total`` where the run's own last words say how long it took.
    """
    numbered = [phase for phase in phases if phase.numbers]
    if len(numbered) < 2:
        return
    titles = max(terminal.width(phase.short) for phase in numbered) + 2
    outcomes = max(terminal.width(words[name]) for name in ("ok", "unchanged", "failed", "would_change")) + 2
    if any(phase.left_out for phase in numbered):
        outcomes = max(outcomes, terminal.width(words["left_out"]) + 2)
    for phase in numbered:
        last = stopped and phase is numbered[-1]
        done = (
            "would_change" if check_mode and phase.changed else "ok" if phase.changed or not phase.key else "unchanged"
        )
        done = "left_out" if phase.left_out else done
        line = terminal.pad(phase.short, titles) + terminal.pad(words["failed" if last else done], outcomes)
        line += f"{terminal.seconds(phase.seconds):>12}"
        if phase.key in earlier:
            line += f"   {words['last']} {terminal.seconds(earlier[phase.key])}"
        yield line, last
    if total:
        seconds = sum(phase.seconds for phase in numbered)
        yield terminal.pad(words["total"], titles + outcomes) + f"{terminal.seconds(seconds):>12}", False


def reports_in(given: object, base: Path) -> Path:
    """The directory of all reports: ``given``, unless that is a template, which has its own value from ``base``."""
    named = str(given or "")
    return Path(named).expanduser() if named and "{{" not in named else base / "artifacts"


def earlier_seconds(artifacts: Path, environment: str) -> dict[str, float]:
    """The seconds of each phase in the last run that really deployed: in this environment, or else in another one.

    A rehearsal is such another one. Empty when no report tells.
    """
    paths = [path for path in artifacts.glob("*/*/report.json") if not path.parent.is_symlink()]
    newest = sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)
    for path in sorted(newest, key=lambda path: path.parts[-3] != environment)[:_REPORTS_READ]:
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if report.get("outcome") == "deployed":
            return {phase["name"]: float(phase["seconds"] or 0) for phase in report.get("phases", [])}
    return {}
