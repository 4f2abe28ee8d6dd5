"""What a run's clean-up has planned and done, all of its rounds added up, and what stops it.

Each planned row is archived, or known to be changed by somebody else: by its primary key, and why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ..errors import OperatorError
from ..findings import observed, say

SHOWN_ROWS = 20  # of those that a message names

# What is added up, and what a removal calls it.
_ADDED = {
    **{"groups": "group_count", "planned": "row_count", "removed": "removed", "archived": "removed"},
    **{name: name for name in ("repointed", "kept_meanwhile", "gone_meanwhile", "batches", "seconds")},
}


@dataclass(frozen=True)
class Account:
    """The journal keeps it as the details of the phase."""

    groups: int = 0
    planned: int = 0
    removed: int = 0
    archived: int = 0
    repointed: int = 0  # rows of other tables that point to a keeper now
    kept_meanwhile: int = 0  # planned, still in the table, no longer surplus
    gone_meanwhile: int = 0  # planned, no longer in the table
    batches: int = 0
    seconds: float = 0
    unarchived: list[dict[str, Any]] = field(default_factory=list)  # row and why; at most 1,000 of each removal
    longest_batch_ms: int = 0

    @classmethod
    def kept(cls, phases: list[dict[str, Any]]) -> Account | None:
        """What the last clean-up among the journal's ``phases`` of a run came to; None when there was none."""
        for phase in reversed(phases):
            if phase["name"] == "cleanup" and phase["status"] != "failed":
                known = {one.name for one in fields(cls)}
                return cls(**{name: value for name, value in phase["details"].items() if name in known})
        return None

    def plus(self, removal: Mapping[str, Any]) -> Account:
        """With one more removal, which may have stopped half way: then it says less."""
        return replace(
            self,
            **{ours: round(getattr(self, ours) + removal.get(theirs, 0), 3) for ours, theirs in _ADDED.items()},
            unarchived=[*self.unarchived, *removal.get("unarchived", [])],
            longest_batch_ms=max(self.longest_batch_ms, removal.get("longest_batch_ms", 0)),
        )

    def require_complete(self) -> None:
        """Raise OperatorError unless each planned row is archived, or known to be changed by somebody else."""
        named = self.kept_meanwhile + self.gone_meanwhile
        if self.archived + named < self.planned:
            raise OperatorError(
                observed(
                    "AMO-3301",
                    "{planned} rows were planned, {archived} are archived, and {named} are known to be "
                    "changed by somebody else.",
                    planned=self.planned,
                    archived=self.archived,
                    named=named,
                ),
                expected=say("each planned row in one of the two."),
                next_step=say(
                    "compare the run's cleanup_plan.json with at_most_one.archived_row, and run the same command again."
                ),
                planned=self.planned,
                archived=self.archived,
                changed_by_others=named,
            )


def refuse_left(rows: int, groups: int) -> None:
    """Raise OperatorError when surplus rows are left after the last round."""
    if rows:
        raise OperatorError(
            observed(
                "AMO-3302",
                "{rows} surplus rows in {groups} groups are left after the clean-up.",
                rows=rows,
                groups=groups,
            ),
            expected=say("0."),
            next_step=say("run the same command again; it cleans up what is left, under the fence that stays up."),
            rows_left=rows,
            groups_left=groups,
        )


def refuse_uncovered(preview: Mapping[str, Any], reviewed: str) -> None:
    """Raise OperatorError when the removal of the ``reviewed`` file's rows would leave surplus rows."""
    if not preview["rows_left"]:
        return
    changed = [", ".join(one["row"]) for one in preview["unarchived"] if one["why"] == "changed"]
    since = say(" (changed since: {changed})", changed="; ".join(changed[:SHOWN_ROWS])) if changed else ""
    raise OperatorError(
        observed(
            "AMO-3303",
            "{rows_left} surplus rows are not in {reviewed} as they are now{since}.",
            rows_left=preview["rows_left"],
            reviewed=reviewed,
            since=since,
        ),
        expected=say("all of them, with the content that was reviewed."),
        next_step=say(
            "ansible-playbook deploy.yml -l <environment> without cleanup_reviewed_plan --check, "
            "review its cleanup_plan.json, name that one."
        ),
        rows_left=preview["rows_left"],
    )


def too_many_for_the_fence(most: int) -> OperatorError:
    """The fence cannot exempt the surplus rows that there are, although all that there were have left just now."""
    return OperatorError(
        observed("AMO-3304", "More rows have become surplus during the clean-up than the write fence can exempt."),
        expected=say("at most {most}.", most=most),
        next_step=say(
            "find out what creates duplicates so fast, then run the same command again; it goes on from here."
        ),
    )
