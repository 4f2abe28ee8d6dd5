"""What a person acts on: what was seen, what was expected, what to do next; and a foreign text taken apart into it.

What the core has found travels as :class:`Finding`, not as its text. :func:`parse` is for what arrives as text only.
Its texts are each a :class:`Phrase`: English, with what a translation needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

# The order of OperatorError's text. A text of several findings begins each of them with "Seen:".
_FINDING = re.compile(
    r"(?P<seen>.+?)\s+Expected:\s+(?P<expected>.+?)\s+Next:\s+(?P<next_step>.+?)(?=\s+Seen:\s|\Z)", re.DOTALL
)
_REPORT = re.compile(r"\s+Report: (?P<path>\S+)\s*\Z")
_HEAD = re.compile(r"\A(?P<head>(?:(?!\bExpected:).)+?)\s+(?=Seen:\s)", re.DOTALL)
# What a run that stopped adds to its first error: what became of the way back, and what else failed.
_AFTERWARDS = re.compile(
    r"\n(?=Rolled back automatically:|The way back failed:|The write fence stays up:|The journal stays open:"
    r"|The report or the message could not be written:)"
)
_GOING_BACK = re.compile(r"rollback\.yml|roll(?:ed|s)? (?:it )?back|takes? itself back", re.IGNORECASE)
_CLAUSE = re.compile(r"(?<=[.;])\s+(?=\S)")


class Phrase(str):
    """A text in English, as it stands everywhere; with the template and the values that it is made of.

    ``identifier`` names the message for good: it stays when the words change. Only what was observed has one.
    """

    identifier: str = ""
    template: str = ""
    values: Mapping[str, Any] = MappingProxyType({})


def say(template: str, /, **values: Any) -> Phrase:
    """Fill ``template`` as str.format does. It is what the catalogue translates: whole phrases, no pieces of one.

    A value is a name, a number, what a program has printed, or a phrase of its own, which is translated with it.
    """
    return _filled("", template, values)


def observed(identifier: str, template: str, /, **values: Any) -> Phrase:
    """The same for what was seen, the first phrase of a message. ``identifier``: a free one of its package's block.

    scripts/troubleshooting.py has the blocks.
    """
    return _filled(identifier, template, values)


def joined(phrases: Iterable[str], separator: str = "; ") -> Phrase:
    """Several phrases as one, each translated by itself. It has the first one's identifier."""
    values = {f"part_{number}": phrase for number, phrase in enumerate(phrases)}
    identifier = getattr(values.get("part_0"), "identifier", "")
    return _filled(identifier, separator.join(f"{{{name}}}" for name in values), values)


def filled(phrase: Phrase, **values: Any) -> Phrase:
    """The phrase with other ``values``, of those that its template has a place for."""
    known = {name: value for name, value in values.items() if name in phrase.values}
    return _filled(phrase.identifier, phrase.template, {**phrase.values, **known})


def _filled(identifier: str, template: str, values: Mapping[str, Any]) -> Phrase:
    phrase = Phrase(template.format(**values))
    phrase.identifier, phrase.template, phrase.values = identifier, template, values
    return phrase


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be, in whole English phrases without secrets or row values.

    ``name`` is the same for as long as it is the same finding; it is empty where nobody asks which one it is. The other
    three are for a person. ``expected`` and ``next_step`` are empty where a foreign text does not say them.
    """

    name: str
    seen: str
    expected: str
    next_step: str

    def __str__(self) -> str:
        return f"{self.seen} Expected: {self.expected} Next: {self.next_step}"

    def phrases(self) -> dict[str, str]:
        """What a person reads, by field, in the order of reading."""
        return {"seen": self.seen, "expected": self.expected, "next_step": self.next_step}


class Message(NamedTuple):
    """A whole error: its findings, at least one, and the path of the report that it names at its end, if any.

    ``head`` stands before several findings; ``afterwards`` is what came after the first error.
    """

    findings: tuple[Finding, ...]
    report: str
    head: str = ""
    afterwards: str = ""


def parse(text: str) -> Message:
    """Take ``text`` apart. A text of another shape is one finding, as it stands."""
    named = _REPORT.search(text)
    body = (text[: named.start()] if named else text).strip()
    body, _, afterwards = _AFTERWARDS.sub("\0", body, count=1).partition("\0")
    headed = _HEAD.match(body)
    head, listed = (headed["head"].strip(), body[headed.end() :]) if headed else ("", body)
    findings = tuple(
        Finding(
            "",
            match["seen"].strip().removeprefix("Seen:").strip(),
            match["expected"].strip(),
            match["next_step"].strip(),
        )
        for match in _FINDING.finditer(listed)
    )
    path = named["path"] if named else ""
    if not findings:
        return Message((Finding("", body.strip(), "", ""),), path, "", afterwards.strip())
    return Message(findings, path, head, afterwards.strip())


def without_going_back(next_step: str) -> str:
    """A next step without the clauses that ask for a rollback: for a run that was taken back already."""
    kept = [clause for clause in _CLAUSE.split(next_step.strip()) if not _GOING_BACK.search(clause)]
    text = " ".join(kept).rstrip(",; ")
    return text if not text or text.endswith(".") else f"{text}."
