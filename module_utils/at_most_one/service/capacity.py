"""What a service answers at when nothing else is asked of it, and what a probe may therefore ask."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..errors import OperatorError
from ..findings import joined, observed, say
from ..system.strict_zip import strict_zip
from . import traffic_probe

_MOST_REQUESTS = 60
_SHARE = 1 / 3  # of what one connection brings, so that the users have the rest
_SLOWEST_PER_S = 0.2
_UNEXPECTED = re.compile(r"status_[1-4]\d\d")  # no answer and 5xx may pass with the release that runs


@dataclass(frozen=True)
class Capacity:
    """What a service answers at, asked by one client that waits for each answer."""

    requests: int
    failures: int
    p50_ms: float | None  # None: no answer
    targets_p50_ms: dict[str, float]
    bears_per_s: float  # what one connection brings, the targets in turn
    rate_per_s: float  # what a probe may ask
    shortest_gap_ms: int  # a shorter pause does not show in a receipt at this rate
    watched_closely: bool


def measure(settings: traffic_probe.Settings, *, seconds: float, least_rate_per_s: float) -> Capacity:
    """Ask one request after the other, no faster than ``settings.rate_per_s`` and for about ``seconds``.

    The probe's rate is the lower of the configured one and a third of what one connection brings: a service that is
    asked for more answers late because of its probe. Only GET and HEAD are asked: a measurement leaves nothing behind.

    Raises OperatorError where a target is never answered as expected: the receipt would count that as lost requests.
    """
    reading = tuple(one for one in settings.targets if one.method in ("GET", "HEAD"))
    settings = replace(settings, targets=reading or (replace(settings.targets[0], method="HEAD", body=None),))
    clients = traffic_probe.clients_of(settings)
    answered: list[list[float]] = [[] for _ in settings.targets]
    problems: list[set[str | None]] = [set() for _ in settings.targets]
    failures, requests, ends = 0, 0, time.monotonic() + seconds
    for number in itertools.cycle(range(len(settings.targets))):
        began = time.monotonic()
        if requests >= _MOST_REQUESTS or (began >= ends and requests >= len(settings.targets)):
            break
        problem, _build, _refusal, answer = traffic_probe.ask(clients[number], settings, number)
        took = time.monotonic() - began
        requests += 1
        failures += problem is not None
        problems[number].add(problem)
        if answer:
            answered[number].append(took * 1000)
        time.sleep(max(0.0, 1 / settings.rate_per_s - took))  # the rate is a limit here, too
    for client in clients:
        client.close()
    _require_expected(
        f"{target.name} ({', '.join(sorted(seen))})"
        for target, seen in strict_zip(settings.targets, problems)
        if reading and seen and all(_UNEXPECTED.fullmatch(str(one)) for one in seen)
    )
    medians = {
        target.name: round(middle, 1)
        for target, times in strict_zip(settings.targets, answered)
        if (middle := traffic_probe.percentile(sorted(times), 50)) is not None
    }
    middle = traffic_probe.percentile(sorted(itertools.chain.from_iterable(answered)), 50)
    bears = 1000 * len(medians) / max(sum(medians.values()), 0.1) if medians else 0.0
    rate = min(settings.rate_per_s, max(bears * _SHARE, _SLOWEST_PER_S))
    return Capacity(
        requests,
        failures,
        None if middle is None else round(middle, 1),
        medians,
        round(bears, 1),
        round(rate, 1),
        round(1000 / round(rate, 1) + (0.0 if middle is None else round(middle, 1))),
        rate >= min(least_rate_per_s, settings.rate_per_s),
    )


def _require_expected(others: Iterable[str]) -> None:
    targets = [*others]
    if targets:
        raise OperatorError(
            observed(
                "AMO-4421",
                "Before the cutover the service answers none of the traffic probe's requests as expected: {targets}.",
                targets=joined(targets, ", "),
            ),
            expected=say("the statuses of pm2_reload_probe_urls: 200 from / and from app_health_path, unless given."),
            next_step=say(
                "where / redirects, name in pm2_reload_probe_urls what users ask in its place (name, url, method, "
                "expect), and leave root out of healthcheck_checks."
            ),
        )


def require(found: Capacity, least_rate_per_s: float) -> None:
    """Raise OperatorError if a cutover could not be watched closely."""
    if not found.watched_closely:
        raise OperatorError(
            observed(
                "AMO-4401",
                "Asked alone, the service answers {bears_per_s} requests a second, so the traffic probe "
                "may send {rate_per_s}.",
                bears_per_s=f"{found.bears_per_s:g}",
                rate_per_s=f"{found.rate_per_s:g}",
            ),
            expected=say(
                "{least_rate_per_s} (pm2_reload_probe_min_rate_per_s), so that a lost request shows in the cutover.",
                least_rate_per_s=f"{least_rate_per_s:g}",
            ),
            next_step=say(
                "deploy when the service has less to do, or accept a coarse receipt: ansible-playbook "
                "deploy.yml -l <environment> -e pm2_reload_probe_below_min=warn"
            ),
        )
