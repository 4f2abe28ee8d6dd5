"""Judge the receipt of a cutover: whether users lost requests in it.

A probe that asks twice a second cannot see a shorter pause, and among 60 requests a single one is more than 1 %.
So the limits are widened by what the probe's own rate and the service's usual answer explain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..findings import Finding, Phrase, joined, observed, say


@dataclass(frozen=True)
class Limits:
    """What a cutover may cost, as the inventory has it."""

    failed_percent: float
    gap_ms: int

    def failures(self, receipt: Mapping[str, Any]) -> int:
        """How many of the receipt's requests may have failed: a single one may, unless none at all."""
        return int(max(receipt["requests"] * self.failed_percent / 100, 1 if self.failed_percent > 0 else 0))

    def longest_gap_ms(self, receipt: Mapping[str, Any]) -> int:
        """The limit with the time between two requests and the time of an answer."""
        between_ms = 1000 / float(receipt["rate_per_s"])
        return round(self.gap_ms + between_ms + float(receipt["p50_before_ms"] or 0))


def refusal(receipt: Mapping[str, Any], limits: Limits, path: str) -> Finding | None:
    """Why the cutover is not accepted; None where it is. ``path``: where the receipt is."""
    failures, gap_ms = limits.failures(receipt), limits.longest_gap_ms(receipt)
    whole = receipt["ended_by"] == "signal"
    if whole and receipt["requests"] > 0 and receipt["failures"] <= failures and receipt["longest_gap_ms"] <= gap_ms:
        return None
    kinds = ", ".join(f"{kind} {count}" for kind, count in receipt["failures_by_kind"].items())
    seen: Phrase = observed(
        "AMO-4413",
        "{failures} of {requests} requests failed during the cutover ({kinds}), longest gap {longest_gap_ms} ms, at "
        "{rate_per_s} requests a second. The median answer took {before_ms} ms before and {during_ms} ms during the "
        "cutover.",
        **{name: receipt[name] for name in ("failures", "requests", "longest_gap_ms", "rate_per_s")},
        kinds=kinds or say("none"),
        before_ms=receipt["p50_before_ms"] or "?",
        during_ms=receipt["p50_ms"] or "?",
    )
    if not whole:
        seen = joined([seen, say("The probe ended too early ({ended_by}).", ended_by=receipt["ended_by"])], " ")
    return Finding(
        "",
        seen,
        say(
            "some requests until the end of the cutover, at most {failures} of them failed "
            "(healthcheck_max_failed_percent: {failed_percent}), no gap above {gap_ms} ms (healthcheck_max_gap_ms: "
            "{limit_ms}, the time between two requests and an answer's time).",
            failures=failures,
            failed_percent=limits.failed_percent,
            gap_ms=gap_ms,
            limit_ms=limits.gap_ms,
        ),
        say(
            "read in {path} what failed and when; a service that was only slower than before wants a lower "
            "pm2_reload_probe_rate_per_s ({rate_per_s} now). A whole run takes itself back where it may; otherwise "
            "ansible-playbook rollback.yml -l <environment>",
            path=path,
            rate_per_s=receipt["rate_per_s"],
        ),
    )
