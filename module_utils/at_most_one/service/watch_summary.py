"""What the watch of all hosts has come to: the document that is kept, the figures to show, the alert."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import catalogue
from ..findings import Finding, joined

Hosts = Mapping[str, Mapping[str, Any]]  # by host, what watching it returned


def document(hosts: Hosts, language: str = "en", **about: Any) -> dict[str, Any]:
    """Return watch.json: ``about`` it, whether it is good, and what every host was compared with and has seen."""
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
    named = ((host, Finding.of_data(one)) for host, watched in hosts.items() for one in watched["findings"])
    return [Finding(one.name, joined([host, one.seen], ": "), one.expected, one.next_step) for host, one in named]


def error(hosts: Hosts, language: str | None = None) -> str:
    """The same as one text, in the shape that the core's own ``findings`` takes apart; in English without identifiers.

    With ``language`` as its reader is told, with them.
    """
    return " Seen: ".join(str(catalogue.told(one, language) if language else one) for one in by_host(hosts))
