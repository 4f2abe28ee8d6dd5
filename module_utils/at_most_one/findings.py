"""What a person acts on: what was seen, what was expected, what to do next; and a foreign text taken apart into it.

What the core has found travels as :class:`Finding`, not as its text. :func:`parse` is for what arrives as text only.
Its texts are each a :class:`Phrase`: English, with what a translation needs.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
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
    r"|The report or the message could not be written:|The link points to|The way back failed too:)"
)
_GOING_BACK = re.compile(r"rollback\.yml|roll(?:ed|s)? (?:it )?back|takes? itself back|롤백|되돌", re.IGNORECASE)
_CLAUSE = re.compile(r"(?<=[.;])\s+(?=\S)")


class Phrase(str):
    """A text in English, as it stands everywhere; with the template and the values that it is made of.

    ``identifier`` names the message for good: it stays when the words change. Only what was observed has one.
    """

    identifier: str = ""
    template: str = ""
    values: Mapping[str, Any] = MappingProxyType({})

    def __deepcopy__(self, memo: Mapping[int, Any]) -> Phrase:
        """It never changes; a value may be what cannot be copied, such as an exception."""
        return self

    def as_data(self) -> dict[str, Any]:
        """The template with its values, to be handed over as JSON; :func:`phrase_of` makes a phrase of it again."""
        values = {
            name: value.as_data() if isinstance(value, Phrase) else str(value) for name, value in self.values.items()
        }
        return {"template": self.template, "values": values}


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
    """Several phrases as one, each translated by itself. It has the first identifier among theirs."""
    values = {f"part_{number}": phrase for number, phrase in enumerate(phrases)}
    identifier = next(filter(None, (getattr(phrase, "identifier", "") for phrase in values.values())), "")
    return _filled(identifier, separator.join(f"{{{name}}}" for name in values), values)


def filled(phrase: Phrase, **values: Any) -> Phrase:
    """The phrase with other ``values``, of those that its template has a place for."""
    known = {name: value for name, value in values.items() if name in phrase.values}
    return _filled(phrase.identifier, phrase.template, {**phrase.values, **known})


def phrase_of(data: Mapping[str, Any], identifier: str = "") -> Phrase:
    """The phrase that :meth:`Phrase.as_data` has taken apart. Raises KeyError for a value that is missing."""
    given: Mapping[str, Any] = data["values"]
    values = {name: phrase_of(value) if isinstance(value, Mapping) else value for name, value in given.items()}
    return _filled(identifier, data["template"], values)


def handed_over(data: Mapping[str, Any]) -> str:
    """The same, or the template as a text of its own where nothing fills it any more, as one that was masked."""
    try:
        return phrase_of(data)
    except (KeyError, ValueError, IndexError):
        return str(data.get("template", ""))


def of_answer(answer: Mapping[str, Any], name: str) -> str:
    """A text that a module has returned, as the phrase that it has under the same name in ``phrases``."""
    text = str(answer[name])
    phrase = handed_over((answer.get("phrases") or {}).get(name) or {})
    return phrase if phrase == text else text


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

    @property
    def identifier(self) -> str:
        """The message's, such as AMO-3104; empty for a foreign text."""
        return str(getattr(self.seen, "identifier", ""))

    def phrases(self) -> dict[str, str]:
        """What a person reads, by field, in the order of reading."""
        return {"seen": self.seen, "expected": self.expected, "next_step": self.next_step}

    def as_data(self) -> dict[str, Any]:
        """The finding as it is handed over: the English, and the phrases that a translation is made of."""
        taken_apart = {name: text.as_data() for name, text in self.phrases().items() if isinstance(text, Phrase)}
        return {"name": self.name, **self.phrases(), "identifier": self.identifier, "phrases": taken_apart}

    @classmethod
    def of_data(cls, data: Mapping[str, Any]) -> Finding:
        """The finding that :meth:`as_data` has taken apart; a text that was masked since is English alone."""
        texts: dict[str, str] = {}
        for name in ("seen", "expected", "next_step"):
            texts[name] = str(data[name])
            if given := (data.get("phrases") or {}).get(name):
                with contextlib.suppress(KeyError, ValueError, IndexError):  # a mask in the template
                    phrase = phrase_of(given, str(data.get("identifier", "")) if name == "seen" else "")
                    texts[name] = phrase if phrase == texts[name] else texts[name]
        return cls(str(data.get("name", "")), **texts)


def of_result(result: Mapping[str, Any]) -> tuple[Finding, ...]:
    """What a failed task of the project's own hands over (at_most_one_entry); none where it is a foreign one."""
    return tuple(map(Finding.of_data, result.get("findings") or ())) if "next_step" in result else ()


def whole(found: Sequence[Finding]) -> Phrase:
    """The findings, at least one, as a phrase: a part of another message. A foreign text is that text."""
    seen, expected = (joined([getattr(one, name) for one in found], " ") for name in ("seen", "expected"))
    if not expected.strip():
        return seen
    next_step = joined(dict.fromkeys(one.next_step for one in found), " ")  # as OperatorError.of has it
    return say("{seen} Expected: {expected} Next: {next_step}", seen=seen, expected=expected, next_step=next_step)


def warning(found: Finding) -> Phrase:
    """A finding that stops nothing, in one line, with its identifier."""
    return say(
        "{seen} [{identifier}] Expected: {expected} Next: {next_step}", identifier=found.identifier, **found.phrases()
    )


def either(choices: Iterable[str]) -> str:
    """The choices, of which one is enough; empty when there are no choices."""
    first, *others = [*choices] or [""]
    for other in others:
        first = say("{first} or {other}", first=first, other=other)
    return first


def reason(result: Mapping[str, Any]) -> str:
    """Why a task has failed, to be a part of another message."""
    if found := of_result(result):
        return whole(found)
    return str(result["msg"]) if result.get("msg") else say("no reason given")


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
