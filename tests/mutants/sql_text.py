"""Small changes of SQL, each of which a test should notice: conditions, comparisons, order, locks, settings.

The text may be a string literal as it stands in the source, quotes and placeholders included.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

LIKE_SQL = re.compile(
    r"\b(SELECT|INSERT INTO|DELETE FROM|UPDATE [{\w]|WHERE|LOCK TABLE|SET LOCAL|SET search_path|CREATE (UNIQUE )?INDEX"
    r"|DROP INDEX|FOR UPDATE|EXECUTE)"
)


@dataclass(frozen=True)
class Change:
    """Replace the characters from ``start`` to ``end``."""

    start: int
    end: int
    new: str


_WORDS: tuple[tuple[str, str], ...] = (
    (r"\bIS NOT DISTINCT FROM\b", "IS DISTINCT FROM"),
    (r"\bIS DISTINCT FROM\b", "IS NOT DISTINCT FROM"),
    (r"\bIS NOT NULL\b", "IS NULL"),
    (r"\bIS NULL\b", "IS NOT NULL"),
    (r"\bIS NOT TRUE\b", "IS TRUE"),
    (r"(?<!IF )\bNOT EXISTS\b", "EXISTS"),
    (r"(?<!NOT )(?<!IF )\bEXISTS\b", "NOT EXISTS"),
    (r"\bNOT IN\b", "IN"),
    (r"(?<!NOT )\bIN (?=\()", "NOT IN "),
    (r"(?<!IS )\bNOT (?!EXISTS|IN |NULL|DISTINCT|\{)", ""),
    (r"\bNULLS FIRST\b", "NULLS LAST"),
    (r"\bNULLS LAST\b", "NULLS FIRST"),
    (r"\bDESC\b", "ASC"),
    (r"\bLEFT JOIN\b", "JOIN"),
    (r"(?<!IS )(?<!IS NOT )\bDISTINCT (?!FROM|ON)", ""),
    (r" ?\bFOR (?:KEY SHARE|NO KEY UPDATE|UPDATE|SHARE)(?: OF (?:\w+|\{\w*\}))?", ""),
    (r"(?<= IN )(?!ACCESS SHARE)[A-Z ]+(?= MODE\b)", "ACCESS SHARE"),
    (r"\bONLY ", ""),
    (r"\bCONCURRENTLY ", ""),
    (r"\bUNIQUE (?=INDEX)", ""),
    (r"\bOVERRIDING SYSTEM VALUE ", ""),
    (r" ?\bLIMIT (?:%\(\w+\)s|%s|\{\w*\}|\d+)", ""),
    (r"(?<=set_config\(')\w+(?=')", "at_most_one.unused"),
    (r"(?<=SET LOCAL )search_path", "at_most_one.unused"),
    (r"\btrue\b", "false"),
    (r"\bfalse\b", "true"),
    (r"\bmin(?=\()", "max"),
    (r"\bmax(?=\()", "min"),
)
_COMPARED = {"=": "<>", "<>": "=", "<": "<=", "<=": "<", ">": ">=", ">=": ">", "~": "!~", "!~": "~"}
_COMPARISON = re.compile(r"(?<![<>=!:*&|~@.%-])(<=|>=|<>|!~|=|<|>|~)(?![<>=~@*-])")
_NUMBER = re.compile(r"(?<=[<>=] )\d+\b")
_LISTED = re.compile(r"(?:IN \(|ARRAY\[)('[^']*'(?:, '[^']*')+)[)\]]")

_TOKEN = re.compile(r"'(?:[^'\n]|'')*'|\"\w+\"|\{\w*\}|[A-Za-z_][\w.]*|[^\sA-Za-z_]")
_CONDITION = re.compile(r"\b(WHERE|AND|OR|ON|HAVING) ")
_ENDS = {
    *("AND", "OR", "ORDER", "GROUP", "HAVING", "LIMIT", "FOR", "RETURNING", "UNION", "WINDOW", "THEN", "ELSE", "END"),
    *("WHERE", "JOIN", "LEFT", "CROSS", "INNER", "EXCEPT", "ON", "CONFLICT", "DO", "OFFSET", "LOOP", "SET"),
}
_NOT_AFTER = re.compile(r"(BETWEEN \S+|DISTINCT|TRIGGER \S+|INDEX|RULE|COMMENT|PUBLICATION \w+|ACTION|CONFLICT)\s+$")


def changes(text: str) -> Iterator[Change]:
    """Every change of the text, from left to right within each kind."""
    yield from _conditions(text)
    for pattern, new in _WORDS:
        for found in re.finditer(pattern, text):
            yield Change(found.start(), found.end(), new)
    for found in _COMPARISON.finditer(text):
        if _worth(text, found):
            yield Change(found.start(), found.end(), _COMPARED[found[1]])
    for found in _NUMBER.finditer(text):
        yield Change(found.start(), found.end(), str(int(found[0]) + 1))
    for found in re.finditer(r"\bORDER BY ", text):
        end = _end(text, found.end())
        if not re.search(r"\b(DESC|ASC)$", text[found.end() : end]):
            yield Change(end, end, " DESC")
    for found in _LISTED.finditer(text):
        yield from _one_less(text, found.start(1), found.end(1))


def _conditions(text: str) -> Iterator[Change]:
    """Each condition taken away: true among those joined by AND, false after OR."""
    for found in _CONDITION.finditer(text):
        if _NOT_AFTER.search(text, 0, found.start()):
            continue
        end = _end(text, found.end())
        new = "false" if found[1] == "OR" else "true"
        if text[found.end() : end] not in ("", new):
            yield Change(found.end(), end, new)


def _end(text: str, start: int) -> int:
    """Where the expression that begins at ``start`` ends."""
    depth = cases = between = 0
    end = start
    for token in _TOKEN.finditer(text, start):
        word = token[0]
        if word in ")]}":
            depth -= 1
        if depth < 0 or word in '";':
            break
        if depth == 0:
            if word == "END" and cases:
                cases -= 1
            elif word == "AND" and between:
                between -= 1
            elif not cases and (word in _ENDS or word == ","):
                break
            cases += word == "CASE"
            between += word == "BETWEEN"
        if word in "([{":
            depth += 1
        end = token.end()
    return end


def _worth(text: str, operator: re.Match[str]) -> bool:
    """After SET, ``=`` assigns; the opposite of a condition that is taken away as well would be noticed even sooner."""
    keywords = re.findall(r"\b(SET|SELECT|WHERE|AND|OR|ON|WHEN|HAVING|IF)\b", text[: operator.start()])
    return operator[1] != "=" or not keywords or keywords[-1] not in ("SET", "WHERE", "AND", "OR", "ON", "HAVING")


def _one_less(text: str, start: int, end: int) -> Iterator[Change]:
    """Each value of a list left out."""
    values = list(re.finditer(r"'[^']*'", text[start:end]))
    for number, value in enumerate(values):
        first = values[number - 1].end() if number else value.start()
        last = value.end() if number else values[1].start()
        yield Change(start + first, start + last, "")
