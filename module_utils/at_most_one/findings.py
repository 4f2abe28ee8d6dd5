"""An error's text taken apart again: what a screen and a page show as three lines each."""

from __future__ import annotations

import re
from typing import NamedTuple

# The order of OperatorError's text. A text of several findings begins each after the first with "Seen:".
_FINDING = re.compile(
    r"(?P<seen>.+?)\s+Expected:\s+(?P<expected>.+?)\s+Next:\s+(?P<next_step>.+?)(?=\s+Seen:\s|\Z)", re.DOTALL
)
_REPORT = re.compile(r"\s+Report: (?P<path>\S+)\s*\Z")


class Finding(NamedTuple):
    """One thing that stopped the run. ``expected`` and ``next_step`` are empty where the text does not say them."""

    seen: str
    expected: str
    next_step: str


class Message(NamedTuple):
    """A whole error: its findings, at least one, and the path of the report that it names at its end, if any."""

    findings: tuple[Finding, ...]
    report: str


def parse(text: str) -> Message:
    """Take ``text`` apart. A text of another shape is one finding, as it stands."""
    named = _REPORT.search(text)
    body = (text[: named.start()] if named else text).strip()
    findings = tuple(
        Finding(
            match["seen"].strip().removeprefix("Seen:").strip(), match["expected"].strip(), match["next_step"].strip()
        )
        for match in _FINDING.finditer(body)
    )
    return Message(findings or (Finding(body, "", ""),), named["path"] if named else "")
