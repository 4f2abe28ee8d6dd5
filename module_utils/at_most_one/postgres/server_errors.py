"""What a server's error says to a person: whose function raised it, and its detail where that holds no row values."""

from __future__ import annotations

import re
from typing import NamedTuple

import psycopg2

from ..findings import say

# CONTEXT, the innermost first: PL/pgSQL function public.stamp() line 3 at RAISE; SQL function "stamp" statement 1. The
# words around the name are in the server's language. Ours, and a DO block, are nobody's function.
_FUNCTION = re.compile(
    r"^(?:\S+ \S+ |\S+ )(?:(?P<signature>(?:[\w.$]|\"[^\"]+\")+\([^()\n]*\))|\"(?P<name>[^\"\n]+)\")(?= )", re.MULTILINE
)
_OURS = re.compile(r"(?:at_most_one|pg_temp\w*|pg_catalog)\.")
# Classes whose DETAIL names objects, sessions and limits. That of 22, 23 and of what a function raises may be a row.
_DETAIL_WITHOUT_ROWS = ("0A", "2B", "3D", "3F", "40", "42", "53", "54", "55", "57", "58")
# What a function only passes on: a deadline, a deadlock, a lost server, a full disk. Its cause is not in the function.
_PASSED_ON = ("08", "40", "53", "57", "58", "55P03", "25006")


class Said(NamedTuple):
    """An error in words: what the server said, and what is expected and to be done next."""

    message: str
    expected: str
    next_step: str


# A quotation that ends a message is the value that it refuses, whatever the quotation marks of the server's language.
_VALUE = re.compile(r"(?<=: )[\"'\u00ab\u00bb\u201e\u201c\u300c].*|(?<=value )\"[^\"]*\"")


def without_value(line: str) -> str:
    """The line without the value that it quotes."""
    return _VALUE.sub("(a value)", line)


def first_line(failure: Exception) -> str:
    """The server's message, or libpq's where none answered: without DETAIL and CONTEXT, which may hold row values.

    A value that a cast or a function refuses (class 22) stands in the message itself. Where it is a part of the
    statement, the server says at which position: the plan's own is shown, a row's is not.
    """
    if not isinstance(failure, psycopg2.Error):
        return _line(str(failure))
    line = _line(failure.diag.message_primary or str(failure))
    of_a_row = (failure.pgcode or "").startswith("22") and failure.diag.statement_position is None
    return without_value(line) if of_a_row else line


def _line(said: str) -> str:
    return (said.strip().splitlines() or [say("no reason given")])[0]


def function_of(failure: psycopg2.Error) -> str | None:
    """The user's function, as CONTEXT names it, inside of which the error was raised; None when it was in none."""
    for found in _FUNCTION.finditer(failure.diag.context or ""):
        name = found["signature"] or found["name"]
        if not _OURS.match(name):
            return name
    return None


def explain(failure: psycopg2.Error, expected: str, next_step: str) -> Said:
    """The error with what the caller expected and advises, unless a function of the user's raised it.

    Who calls that function is asked of the catalog by the command of the next step: the transaction has failed.
    """
    message = first_line(failure).rstrip(".")
    code = failure.pgcode or "08000"
    detail = (failure.diag.message_detail or "").strip().partition("\n")[0].rstrip(".")
    if detail and code.startswith(_DETAIL_WITHOUT_ROWS):
        message = f"{message} ({detail})"
    function = function_of(failure)
    if function is None:
        return Said(message, expected, next_step)
    message = say("{message}, raised inside the function {function}", message=message, function=function)
    if code.startswith(_PASSED_ON):
        return Said(message, expected, next_step)
    return Said(
        message,
        say("no error in the database's own functions, which triggers, event triggers and index expressions call."),
        say(
            "read and correct {function}, or disable what calls it; then run this again. Who calls "
            'it: psql -c "{callers}"',
            function=function,
            callers=_callers(function),
        ),
    )


def _callers(function: str) -> str:
    quoted = function.replace("'", "''").replace('"', '\\"')
    of = f"'{quoted}'::regprocedure" if function.endswith(")") else f"'{quoted}'::regproc"
    objects = "pg_describe_object(classid, objid, objsubid) FROM pg_depend"
    return f"SELECT {objects} WHERE refclassid = 'pg_proc'::regclass AND refobjid = {of}"
