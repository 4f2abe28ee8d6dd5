"""What the watch of all hosts has come to: the document that is kept, the figures to show, the alert."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .. import catalogue
from ..findings import Finding, joined, observed, of_result, say
from ..system.redaction import redact

Hosts = Mapping[str, Mapping[str, Any]]  # by host, what watching it returned
UNWATCHED = "unwatched"  # the finding about a host that was lost, or could not be watched: no reason to go back


def document(hosts: Hosts, language: str = "en", **about: Any) -> dict[str, Any]:
    """Return watch.json: ``about`` it, whether it is good, and what every host was compared with and has seen."""
    hosts = _answered(hosts)
    findings = [
        {**catalogue.shown(Finding.of_data(found), language), "host": host}
        for host, watched in hosts.items()
        for found in watched["findings"]
    ]
    return {
        **about,
        "verdict": "bad" if findings else "good",
        "findings": findings,
        **{part: {host: watched[part] for host, watched in hosts.items()} for part in ("since", "rounds")},
    }


def figures(hosts: Hosts) -> list[dict[str, Any]]:
    """Each host in numbers: per path the median before and that of the slowest round, requests, instances."""
    hosts = _answered(hosts)
    return [
        {
            "name": host,
            "latency": [
                {
                    "name": path,
                    "before_ms": before,
                    "slowest_ms": max((one["latency_ms"].get(path, 0) for one in watched["rounds"]), default=0),
                }
                for path, before in watched["since"]["latency_ms"].items()
            ],
            **{name: sum(one[name] for one in watched["rounds"]) for name in ("requests", "failures")},
            "rounds": len(watched["rounds"]),
            "instances": len(watched["since"]["instances"]),
        }
        for host, watched in hosts.items()
    ]


def by_host(hosts: Hosts) -> list[Finding]:
    """The findings of all hosts, each with its host's name in front."""
    named = ((host, Finding.of_data(one)) for host, watched in _answered(hosts).items() for one in watched["findings"])
    return [Finding(one.name, joined([host, one.seen], ": "), one.expected, one.next_step) for host, one in named]


def error(hosts: Hosts, language: str | None = None) -> str:
    """The same as one text, in the shape that the core's own ``findings`` takes apart; in English without identifiers.

    With ``language`` as its reader is told, with them.
    """
    return " Seen: ".join(str(catalogue.told(one, language) if language else one) for one in by_host(hosts))


def _answered(hosts: Hosts) -> dict[str, Mapping[str, Any]]:
    """The hosts, where one that has given no answer has seen nothing but that."""
    nothing: dict[str, Any] = {"rounds": [], "since": {"latency_ms": {}, "instances": {}}}
    return {
        host: watched if "rounds" in watched else {**nothing, "findings": [_unwatched(watched).as_data()]}
        for host, watched in hosts.items()
    }


def _unwatched(answer: Mapping[str, Any]) -> Finding:
    if found := of_result(answer):
        return replace(found[0], name=UNWATCHED)
    return Finding(
        UNWATCHED,
        observed(
            "AMO-4420",
            "The watch of this host has ended without an answer: {why}.",
            why=redact(str(answer.get("msg") or "")).strip().rstrip(".") or say("no reason given"),
        ),
        say("a host that can be watched until the end."),
        say(
            "find out whether it is up and what it serves (readlink of the application's path, pm2 list), then watch "
            "again."
        ),
    )
