"""The verdicts, states, phases and differences of the journal's and the reports' data, as a message says them.

As data they stay what they are; a message has the phrase, which is the same text in English.
"""

from __future__ import annotations

import re

from .findings import Phrase, say

PHASES = ("prepare", "cleanup", "migrate", "verify", "pm2_reload", "healthcheck")  # of a deployment, in their order

_WORDS = {
    str(word): word
    for word in (
        # Of an index (indexes/verification.py).
        say("present"),
        say("missing"),
        say("different"),
        say("invalid"),
        say("unexpected"),
        # Of the parts of its definition, and of its health.
        say("kind"),
        say("table"),
        say("method"),
        say("columns"),
        say("opclass"),
        say("collation"),
        say("order"),
        say("include"),
        say("predicate"),
        say("unique"),
        say("nulls_not_distinct"),
        say("deferrable"),
        say("valid"),
        say("ready"),
        say("live"),
        say("storage"),
        say("index"),
        say("something else"),
        say("none"),
        say("yes"),
        say("no"),
        # Of the other objects of a table (postgres/catalog_snapshot.py).
        say("column"),
        say("constraint"),
        say("trigger"),
        # Of what a change sets off (duplicates/effects.py).
        say("rule"),
        say("event trigger"),
        say("foreign key"),
        say("the database"),
        say("does something instead"),
        say("does something also"),
        # Of Prisma's history (prisma/migration_history.py).
        say("absent_table"),
        say("ahead"),
        say("applied"),
        say("applied_without_indexes"),
        say("earlier_failed"),
        say("earlier_pending"),
        say("edited"),
        say("failed"),
        say("failed_with_indexes"),
        say("not_kept"),
        say("pending"),
        say("rolled_back"),
        # Of another tool's history (migration/tool_history.py).
        say("later"),
        # Of the write fence (fence/write_fence.py).
        say("lowered"),
        say("partial"),
        say("raised"),
        # Of the phases (playbooks/).
        say("prepare"),
        say("cleanup"),
        say("migrate"),
        say("verify"),
        say("pm2_reload"),
        say("healthcheck"),
        say("rollback"),
        say("purge"),
        # What a run counts (postgres/checkpoint.py).
        say("rows"),
        say("indexes"),
        say("hosts"),
        # Of a run (runs/journal.py), and of the turns of a rehearsal (rehearsal/turns.py).
        say("abandoned"),
        say("deployed"),
        say("stopped"),
        say("unchanged"),
        say("forward"),
        say("back"),
        say("again"),
    )
}
# A line of catalog_snapshot.differences and of digests.differences.
_OBJECT = re.compile(r"([-+]) (column|constraint|index|trigger|table) (.+)", re.DOTALL)
_MIGRATION = re.compile(r"([-+]) migration (.+) (applied|failed)")
_CONTENT = re.compile(
    r"content of (?P<table>.+): (?P<then>\d+) rows then, (?P<now>\d+) now,"
    r" digest (?P<before>\w+) -> (?P<after>\w+)"
)


def word(verdict: str) -> str | Phrase:
    """The verdict for a person; one that is not known here stays as it is."""
    return _WORDS.get(verdict, verdict)


def difference(line: str) -> str | Phrase:
    """A line that names what is gone, new or changed, for a person: what the catalog says in it stays SQL.

    The journal and a rehearsal's evidence keep the line as text, so it is taken apart. Any other text stays as it is.
    """
    if line.startswith(left := "back is not as before: "):
        return say("back is not as before: {difference}", difference=difference(line[len(left) :]))
    if line.startswith(left := "again is not as forward: "):
        return say("again is not as forward: {difference}", difference=difference(line[len(left) :]))
    if found := _CONTENT.fullmatch(line):
        return say("content of {table}: {then} rows then, {now} now, digest {before} -> {after}", **found.groupdict())
    if found := _MIGRATION.fullmatch(line):
        sign, name, state = found.groups()
        return say("{sign} migration {name} {state}", sign=sign, name=name, state=word(state))
    if found := _OBJECT.fullmatch(line):
        sign, kind, definition = found.groups()
        return say("{sign} {kind} {definition}", sign=sign, kind=word(kind), definition=definition)
    return line
