"""Write a message in the reader's language, by gettext's catalogues in locale/; English where one has nothing.

Only the control node has them. A module on a host hands over phrases (:mod:`.findings`).
"""

from __future__ import annotations

import gettext
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from .findings import Finding, Phrase, of_answer

LOCALE = Path(__file__).parent / "locale"
DOMAIN = "at_most_one"


@lru_cache
def _translations(language: str) -> gettext.NullTranslations:
    return gettext.translation(DOMAIN, LOCALE, [language], fallback=True)


def render(text: str, language: str) -> str:
    """The text in that language, with the phrases inside of it. Foreign text stays as it is."""
    if not isinstance(text, Phrase) or not text.template:
        return str(text)
    values = {name: render(value, language) if isinstance(value, str) else value for name, value in text.values.items()}
    return template(text.template, language).format(**values)


def template(text: str, language: str) -> str:
    """The template of a phrase in that language."""
    return _translations(language).gettext(text)


def name(kind: str, english: str, language: str) -> str:
    """The name of a ``play`` or a ``task`` in that language; as it stands where the catalogue has none."""
    return _translations(language).pgettext(kind, english)


def in_words(answer: Mapping[str, Any], language: str) -> dict[str, Any]:
    """What a module has answered, with the texts of its ``phrases`` in that language, and without those."""
    named = [name for name in answer.get("phrases") or {} if name in answer]
    texts = {name: render(of_answer(answer, name), language) for name in named}
    return {**{name: value for name, value in answer.items() if name != "phrases"}, **texts}


def shown(finding: Finding, language: str) -> dict[str, Any]:
    """The finding for a reader of ``language``, with its identifier and, beside it, its English."""
    phrases = finding.phrases()
    return {
        "name": finding.name,
        "identifier": finding.identifier,
        **{name: render(text, language) for name, text in phrases.items()},
        "english": {name: str(text) for name, text in phrases.items()},
    }


def told(finding: Finding, language: str) -> Finding:
    """The finding as a text for a reader of ``language`` says it, with its identifier at the end of what was seen."""
    behind = f" [{finding.identifier}]" if finding.identifier else ""
    phrases = {name: render(text, language) for name, text in finding.phrases().items()}
    return Finding(finding.name, phrases["seen"] + behind, phrases["expected"], phrases["next_step"])
