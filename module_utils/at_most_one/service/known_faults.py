"""Decide which faults of a service were there before a change and may stay.

A fault is a check's name and the statuses 5xx that it met. Whatever breaks the rule itself (two sessions of one race,
duplicates that are counted) has no statuses here, so no policy can accept it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..findings import say

ACCEPT, REFUSE = "accept", "refuse"
JUDGED = ("monitoring", "race")  # the checks that a running service may fail without breaking the rule


@dataclass(frozen=True)
class KnownFaults:
    """The policy of each check, and what the release that ran before the change was seen to answer."""

    policy: Mapping[str, str] = field(default_factory=dict)
    before: Mapping[str, Sequence[int]] | None = None  # a check that was not asked is absent; [] answered well

    def accepts(self, check: str, statuses: Sequence[int]) -> bool:
        """Whether this fault was there before, no better than now, and the policy lets it stay."""
        return bool(statuses) and self.policy.get(check) == ACCEPT and set(statuses) <= set(self._before(check) or ())

    def reason(self, check: str, statuses: Sequence[int]) -> str:
        """Why the fault is not accepted, for a person; empty where the policy has no part in it."""
        if check not in JUDGED or not statuses:
            return ""
        before = self._before(check)
        if before is None:
            return say("the release before was not asked")
        if not before:
            return say("new in this release: the one before did not")
        if not set(statuses) <= set(before):
            statuses_before = ", ".join(map(str, before))
            return say("new in this release: the one before answered {statuses}", statuses=statuses_before)
        return say("there before as well, but healthcheck_known_faults.{check} is {policy}", check=check, policy=REFUSE)

    def _before(self, check: str) -> Sequence[int] | None:
        return (self.before or {}).get(check)
