"""Conditions of a rule, made from columns that say which state a row is in.

Literals come from an enum's labels, from a check constraint, or from a text column with few values whose name says that
it is a status. Of no other column is a value ever read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MOST_VALUES = 20  # a text column with more is no status
_LONGEST = 40

# A row in one of these states is still at work: a second one beside it is what a rule forbids.
_OPEN = (
    *("active", "open", "in_progress", "paused", "pending", "running", "started", "ongoing", "current", "processing"),
    *("scheduled", "draft", "waiting", "queued", "new", "live", "enabled", "suspended", "on_hold", "reserved", "held"),
    *("assigned", "confirmed", "trial", "trialing", "past_due", "checked_out", "requested", "submitted", "in_review"),
    *("진행", "진행중", "대기", "대기중", "활성", "예약"),
)
# A row in one of these states does not count any more, whatever it was. The order is that of the condition, and the
# first of them is what a surplus row becomes.
_VOID = (
    *(
        "superseded",
        "replaced",
        "cancelled",
        "canceled",
        "void",
        "voided",
        "deleted",
        "removed",
        "revoked",
        "withdrawn",
    ),
    *("obsolete", "discarded", "archived", "inactive", "disabled", "expired", "rejected", "duplicate"),
    *("취소", "취소됨", "삭제", "삭제됨", "폐기", "만료"),
)
# The last word of a column's name.
_STATUS_NAMES = frozenset(("status", "state", "type", "kind", "phase", "stage", "active"))
_PLACES = frozenset(("city", "zip", "zipcode", "postcode", "postal", "street", "country", "address"))
_FLAGS = {
    **dict.fromkeys(("current", "default", "primary", "latest", "main"), 1.0),
    **dict.fromkeys(("active", "open", "valid", "enabled", "live"), 0.6),
}
_ENDINGS = re.compile(
    r"(deleted|archived|cancelled|canceled|revoked|superseded|removed|ended|closed|completed|finished|released|returned)_at"
)
_WITHOUT_STATUS = frozenset(("text", "varchar", "bpchar", "citext"))
_STATUS_VALUE = re.compile(r"[^\W\d][\w -]*")


@dataclass(frozen=True)
class Condition:
    """A condition over one column, as SQL; ``leaving`` is what takes a row out of it, by column, if that is known."""

    column: str
    kind: str  # open | valid | flag | unset
    sql: str
    weight: float
    leaving: Mapping[str, str]
    values: tuple[str, ...] = ()  # that the condition names
    negated: bool = False


def words(name: str) -> list[str]:
    """The words of a name, in small letters: started_at, startedAt and STARTED_AT have the same two."""
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return [word for word in re.split(r"[^\w]+|_+", parts.lower()) if word]


def says_status(name: str, type_name: str, names: Sequence[str]) -> bool:
    """Whether a text column's name says that it is a status; ``names`` are those of the table's columns.

    A state beside a city is a part of somebody's address.
    """
    said = words(name)
    if type_name not in _WITHOUT_STATUS or not said or said[-1] not in _STATUS_NAMES:
        return False
    return said[-1] != "state" or not _PLACES & {word for other in names for word in words(other)}


def are_statuses(values: Sequence[str]) -> bool:
    """Whether these look like the values of a status: few, short, and none of them like a number or an address."""
    return 0 < len(values) <= MOST_VALUES and all(
        len(value) <= _LONGEST and _STATUS_VALUE.fullmatch(value) and not re.search(r"\d{4}", value) for value in values
    )


def checked_values(expression: str) -> list[str]:
    """The texts that a check constraint over one column allows, from the catalog's words for it; else none."""
    if not re.search(r"= ANY \(\(?ARRAY\[", expression):
        return []
    return [text.replace("''", "'") for text in re.findall(r"'((?:[^']|'')*)'", expression)]


def of_values(column: str, quoted: str, values: Sequence[str], *, fixed: bool) -> list[Condition]:
    """The conditions that a status column's values suggest; ``fixed``: by its type or by a constraint."""
    said = {value: "_".join(words(value)) for value in values}
    opened = [value for value in values if said[value] in _OPEN]
    void = sorted((value for value in values if said[value] in _VOID), key=lambda value: _VOID.index(said[value]))
    leaving = {column: void[0]} if void else {}
    found = []
    if opened and len(opened) < len(values):
        text = f"{quoted} IN ({_literals(opened)})"
        found.append(Condition(column, "open", text, 1.0 if fixed else 0.8, leaving, tuple(opened)))
    if void and len(void) < len(values):
        text = f"{quoted} NOT IN ({_literals(void)})"
        found.append(Condition(column, "valid", text, 1.0, leaving, tuple(void), negated=True))
    return found


def of_flag(column: str, quoted: str) -> list[Condition]:
    """The condition of a boolean column whose name says that it marks one row of several."""
    said = [word for word in words(column) if word not in ("is", "flag", "yn")]
    weight = _FLAGS.get(said[-1], 0.0) if said else 0.0
    return [Condition(column, "flag", quoted, weight, {column: "false"})] if weight else []


def of_moment(column: str, quoted: str) -> list[Condition]:
    """The condition of a nullable time whose name says that a row ended then."""
    if not _ENDINGS.fullmatch("_".join(words(column))):
        return []
    return [Condition(column, "unset", f"{quoted} IS NULL", 0.5, {column: "now"})]


def _literals(values: Sequence[str]) -> str:
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)
