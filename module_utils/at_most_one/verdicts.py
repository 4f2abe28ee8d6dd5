"""The verdicts and states of the journal's and the reports' data, as a message says them.

As data they stay what they are; a message has the phrase, which is the same word in English.
"""

from __future__ import annotations

from .findings import Phrase, say

_WORDS = {
    str(word): word
    for word in (
        # Of an index (indexes/verification.py).
        say("present"),
        say("missing"),
        say("different"),
        say("invalid"),
        say("unexpected"),
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
    )
}


def word(verdict: str) -> str | Phrase:
    """The verdict for a person; one that is not known here stays as it is."""
    return _WORDS.get(verdict, verdict)
