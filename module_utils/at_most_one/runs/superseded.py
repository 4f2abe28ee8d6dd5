"""What a later run has made of an earlier one, put into the report that the earlier one has left.

A run that was taken back, or that was dead and taken over, cannot write its report again: the later run does it, where
the report is on the same control node.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..system import artifacts

_HEADLINE = re.compile(r'(<h1><span class=")\w+(">).*?(</span>)')
_TITLE = re.compile(r"(<title>).*?( \|)")
_WHAT_NOW = re.compile(r'(<section aria-labelledby="now"[^>]*>).*?(</section>)', re.DOTALL)
_COMMANDS = re.compile(r'\s*<section aria-labelledby="(?:rollback|again)">.*?</section>', re.DOTALL)
_TICKET_NOTE = re.compile(r"\A# [^:\n]*(: [^\n]*\n)(?:\n\*\*[^\n]*\*\*\n)?")
_TICKET_COMMANDS = re.compile(r"\n## [^\n]*\n\n(?:[^\n]+\n\n)?```\nansible-playbook [^\n]*\n```\n")


_RUN_ID = re.compile(r"[0-9A-Za-z][\w-]*", re.ASCII)


def directory_of(reports: Path, run_id: str) -> Path | None:
    """Where the run's report is; None for a name that no run has, such as ``..`` or the link to the latest."""
    return reports / run_id if _RUN_ID.fullmatch(run_id) and run_id != "latest" else None


def write(directory: Path, headline: str, title: str, note: str, data: Mapping[str, Any]) -> list[Path]:
    """Put ``headline`` and ``note`` at the top of the reports in ``directory``, and ``data`` into report.json.

    The files written come back.

    A report that is not there is left out. Commands to go on or to go back are taken out of the report. Doing it again
    with the same text changes nothing.
    """
    written = []
    for path in (directory / name for name in ("report.html", "report.md", "report.json")):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            if path.suffix == ".html":
                text = in_page(text, headline, title, note)
            else:
                text = in_ticket(text, headline, note) if path.suffix == ".md" else in_data(text, data)
            artifacts.write(path, text)
            written.append(path)
    return written


def in_page(text: str, headline: str, title: str, note: str) -> str:
    """The page: its headline and what was to be done then are replaced."""
    shown = html.escape(headline)
    text = _HEADLINE.sub(lambda found: f"{found[1]}soft{found[2]}{shown}{found[3]}", text, count=1)
    text = _TITLE.sub(lambda found: f"{found[1]}{shown}{found[2]}", text, count=1)
    now = f'<h2 id="now">{html.escape(title)}</h2>\n<div class="now"><p>{html.escape(note)}</p></div>\n'
    return _COMMANDS.sub("", _WHAT_NOW.sub(lambda found: f"{found[1]}\n{now}{found[2]}", text, count=1))


def in_ticket(text: str, headline: str, note: str) -> str:
    """The ticket: the note stands under its title."""
    return _TICKET_COMMANDS.sub(
        "", _TICKET_NOTE.sub(lambda found: f"# {headline}{found[1]}\n**{note}**\n", text, count=1)
    )


def in_data(text: str, data: Mapping[str, Any]) -> str:
    """The data, with some keys replaced."""
    return json.dumps({**json.loads(text), **data}, indent=4, ensure_ascii=False, sort_keys=True)
