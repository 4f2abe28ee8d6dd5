"""The time after a cutover: round by round, whether the service still does what it did, and whether the rule holds.

A round is a stretch of ordinary requests on a fixed schedule, and a look at health, log, instances and database at its
end. What is a fact (a duplicate, a restarted instance, an error line) counts at once; what may be a hiccup (one bad
answer, one slow round) counts when the next round has it too. So nothing that stays is found later than in the second
round after it began.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..errors import OperatorError
from ..findings import Finding, joined, observed, say
from ..pm2 import client
from ..pm2.client import Instance, Listing, Pm2
from ..pm2.preflight import require_running
from ..system import log_errors
from ..system.log_errors import Mark, Moment, Scan, Served
from . import health_checks, traffic_probe
from .api_client import Settings as Visiting

HICCUPS = ("health", "latency", "traffic", "database")
STRETCH_S = 60.0  # of one call of the module; whoever watches another host is asked in between
_BASELINE_RATE_PER_S = 10.0  # a median of a few seconds needs some answers


@dataclass(frozen=True)
class Limits:
    """What a round may be like. Factors apply to the median of the time before; below the floor nothing is slow."""

    latency_factor: float = 3.0
    latency_floor_ms: float = 100.0
    failed_percent: float = 10.0
    error_lines: int = 0


@dataclass(frozen=True)
class Since:
    """How everything was when the watch began: what a round is compared with."""

    latency_ms: Mapping[str, float] = field(default_factory=dict)  # median by target
    instances: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # pm_id to pid and restarts
    log_offsets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # marks, as log_errors has them


@dataclass(frozen=True)
class Seen:
    """What one round has seen. A part that is None was not looked at; an error says why one could not be."""

    figures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by target, as the receipt has them
    checks: Sequence[health_checks.Check] = ()
    scans: Sequence[Scan] = ()
    instances: Listing | OperatorError | None = None
    faults: Sequence[str] | OperatorError | None = None  # of the indexes
    duplicates: int | None = None


@dataclass(frozen=True)
class Watched:
    """What came of a stretch of watching. ``suspects`` have been seen once; ``findings`` end it."""

    rounds: list[dict[str, Any]]
    findings: list[Finding]
    suspects: list[str]


@dataclass(frozen=True)
class Watcher:
    """Whom a round asks, and how. Without ``name`` no instances and logs, with ``database`` the indexes too."""

    asking: traffic_probe.Settings
    visiting: Visiting
    pm2: Pm2
    name: str | None
    log_error_pattern: str
    database: Callable[[], tuple[Sequence[str] | OperatorError, int | None]] | None = None

    def begin(
        self, seconds: float, cutover: Mapping[str, Mapping[str, Any]], before: Mapping[str, float] | None = None
    ) -> Since:
        """How it is now, asked for so many seconds. ``before``: the medians from before a deployment, if measured."""
        instances: Sequence[Instance] = ()
        if self.name:
            found = client.listing(self.pm2, self.name)
            require_running(self.pm2, found, self.name)  # of an application that is not there nothing can restart
            instances = found.instances
        began = log_errors.moments(path for one in instances for path in (one.out_log, one.err_log))
        asking = replace(self.asking, rate_per_s=max(self.asking.rate_per_s, _BASELINE_RATE_PER_S))
        measured = medians(measure(asking, 1.0 if before else seconds))
        return Since(
            before or measured,
            {str(one.pm_id): (one.pid, one.restarts) for one in instances},
            marks(instances, began, cutover),
        )

    def look(self, since: Since, round_s: float) -> Seen:
        """One round."""
        figures = measure(self.asking, round_s)
        faults, duplicates = self.database() if self.database else (None, None)
        return Seen(
            figures,
            health(self.visiting, page="page" in figures),
            scans(since.log_offsets, self.log_error_pattern),
            listed(self.pm2, self.name) if self.name else None,
            faults,
            duplicates,
        )


def measure(settings: traffic_probe.Settings, seconds: float) -> dict[str, dict[str, Any]]:
    """Ask on the schedule for so long; the figures of each target, as :func:`traffic_probe.summarise` has them.

    Each is asked at least once, however low the rate: one that was not asked would count as one that answers well.
    """
    stop, samples = threading.Event(), list[traffic_probe.Sample]()
    if not settings.targets:
        time.sleep(seconds)
        return {}
    settings = replace(settings, rate_per_s=max(settings.rate_per_s, len(settings.targets) / max(seconds, 0.001)))
    epoch, began = time.time(), time.monotonic()
    prober = threading.Thread(target=traffic_probe.probe, args=(settings, stop, samples, began))
    prober.start()
    stop.wait(seconds)
    stop.set()
    prober.join()
    figures: dict[str, dict[str, Any]] = traffic_probe.summarise(samples, settings, began, time.monotonic(), epoch)[
        "targets"
    ]
    return figures


def medians(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The median of each target that has answered, in milliseconds."""
    return {name: float(one["p50_ms"]) for name, one in figures.items() if one.get("p50_ms") is not None}


def judge(seen: Seen, since: Since, limits: Limits) -> list[Finding]:
    """Everything about one round that is not as it should be, whether or not it may be a hiccup.

    Names: health, log, duplicates, indexes, instances, latency, traffic, database.
    """
    found = [*_traffic(seen, since, limits)]
    for check in seen.checks:
        if check.ok is False:
            found.append(
                Finding(
                    "health",
                    observed("AMO-4404", "{request} got {got}.", request=check.request, got=check.got),
                    say("{expected}.", expected=check.expected),
                    say("repeat it by hand and read the application's log of this moment."),
                )
            )
    errors = sum(scan.errors for scan in seen.scans)
    if errors > limits.error_lines:
        lines = " | ".join(line for scan in seen.scans for line in scan.shown[:3])
        found.append(
            Finding(
                "log",
                observed(
                    "AMO-4405", "{errors} error lines since the watch began: {lines}.", errors=errors, lines=lines
                ),
                say("at most {error_lines}.", error_lines=limits.error_lines),
                say("read {logs}.", logs=", ".join(scan.path for scan in seen.scans if scan.errors)),
            )
        )
    return [*found, *_instances(seen.instances, since), *_database(seen)]


def _traffic(seen: Seen, since: Since, limits: Limits) -> list[Finding]:
    found = []
    for name, figures in seen.figures.items():
        asked, failed = int(figures["requests"]), int(figures["failures"])
        if asked and failed * 100 > limits.failed_percent * asked:
            found.append(
                Finding(
                    "traffic",
                    observed(
                        "AMO-4406",
                        "{failed} of {asked} requests to {name} failed: {failures_by_kind}.",
                        failed=failed,
                        asked=asked,
                        name=name,
                        failures_by_kind=figures["failures_by_kind"],
                    ),
                    say("at most {failed_percent} %.", failed_percent=f"{limits.failed_percent:g}"),
                    say("look at the instances and at what stands in front of them."),
                )
            )
        before, now = since.latency_ms.get(name), figures.get("p50_ms")
        if before is None or now is None:
            continue
        allowed = max(before * limits.latency_factor, limits.latency_floor_ms)
        if now >= allowed:
            found.append(
                Finding(
                    "latency",
                    observed(
                        "AMO-4407",
                        "{name} takes {now} ms (median of {asked} requests).",
                        name=name,
                        now=f"{now:g}",
                        asked=asked - failed,
                    ),
                    say(
                        "less than {allowed} ms: it took {before} ms before.",
                        allowed=f"{allowed:g}",
                        before=f"{before:g}",
                    ),
                    say(
                        "look at what runs in the database (pg_stat_activity) and at the processor time of the "
                        "instances."
                    ),
                )
            )
    return found


def _instances(listing: Listing | OperatorError | None, since: Since) -> list[Finding]:
    if listing is None:
        return []
    if isinstance(listing, OperatorError):
        return [replace(one, name="instances") for one in listing.findings]
    now = {str(one.pm_id): one for one in listing.instances}
    changed = []
    for pm_id, (pid, restarts) in since.instances.items():
        one = now.get(pm_id)
        if one is None:
            changed.append(say("instance {pm_id} is gone", pm_id=pm_id))
        elif not one.online:
            changed.append(say("instance {pm_id} is {status}", pm_id=pm_id, status=one.status))
        elif one.restarts > restarts or one.pid != pid:  # `pm2 reset` counts from 0 again, and restarts nothing
            changed.append(
                say(
                    "instance {pm_id} was restarted (pid {before} is {now} now, {restarts} restarts before, "
                    "{restarts_now} now)",
                    pm_id=pm_id,
                    before=pid,
                    now=one.pid,
                    restarts=restarts,
                    restarts_now=one.restarts,
                )
            )
    if not changed:
        return []
    return [
        Finding(
            "instances",
            observed("AMO-4408", "{changed}.", changed=joined(changed)),
            say("the processes that served when the watch began."),
            say("read the instance's error log from before its restart; `pm2 describe` tells why it ended."),
        )
    ]


def _database(seen: Seen) -> list[Finding]:
    if isinstance(seen.faults, OperatorError):
        return [replace(one, name="database") for one in seen.faults.findings]
    found = []
    if seen.duplicates:
        found.append(
            Finding(
                "duplicates",
                observed("AMO-4409", "{duplicates} duplicate groups are inside the rule.", duplicates=seen.duplicates),
                say("none, ever again."),
                say("the rule's index is not there or does not hold: deploy again, which cleans up and builds it."),
            )
        )
    if seen.faults:
        found.append(
            Finding(
                "indexes",
                observed("AMO-4410", "{faults}.", faults=joined(seen.faults)),
                say("exactly the planned indexes, valid and ready."),
                say("find out who changed them; deploying again builds what is missing."),
            )
        )
    return found


def confirmed(found: Sequence[Finding], suspects: Sequence[str]) -> tuple[list[Finding], list[str]]:
    """Which findings count now, and which kinds of hiccup to look for again in the next round."""
    counting = [one for one in found if one.name not in HICCUPS or one.name in suspects]
    return counting, sorted({one.name for one in found if one.name in HICCUPS})


def watch(
    look: Callable[[], Seen], since: Since, limits: Limits, *, seconds: float, suspects: Sequence[str] = ()
) -> Watched:
    """Round after round for so many seconds, or until something counts. ``look`` takes as long as a round lasts."""
    ends = time.monotonic() + seconds
    rounds: list[dict[str, Any]] = []
    waiting = list(suspects)
    while True:
        began = time.time()
        seen = look()
        found = judge(seen, since, limits)
        counting, waiting = confirmed(found, waiting)
        rounds.append(
            {
                "at": round(began, 3),
                "latency_ms": medians(seen.figures),
                "failures": sum(int(one["failures"]) for one in seen.figures.values()),
                "requests": sum(int(one["requests"]) for one in seen.figures.values()),
                "duplicates": seen.duplicates,
                "findings": [one.as_data() for one in found],
            }
        )
        if counting or time.monotonic() >= ends:
            return Watched(rounds, counting, waiting)


def in_stretches(
    call: Callable[[dict[str, Any]], dict[str, Any]], seconds: float, found_elsewhere: Callable[[], bool]
) -> dict[str, Any]:
    """Watch one host by calls of the module, each of at most STRETCH_S, each going on from the one before.

    It ends at a finding of this host, or in the stretch in which another host has one. A call that fails is the answer.
    What may be a hiccup in the last round gets one more: the next round is what tells.
    """
    rounds: list[dict[str, Any]] = []
    more: dict[str, Any] = {}
    left, one_more = seconds, True
    while True:
        answer = call({**more, "seconds": min(max(left, 0.0), STRETCH_S)})
        if "rounds" not in answer:
            return answer
        rounds += answer["rounds"]
        left -= STRETCH_S
        ends = left <= 0 and not (one_more and answer["suspects"])
        one_more = left > 0
        if answer["findings"] or ends or found_elsewhere():
            return {**answer, "rounds": rounds}
        more = {"since": answer["since"], "suspects": answer["suspects"]}


def marks(
    instances: Sequence[Instance], began: Mapping[str, Moment], cutover: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Where the watch begins in each log. Errors that were there before it, or before the cutover, are known."""
    now = log_errors.moments(began)
    found = {}
    for path, moment in now.items():
        writers = [one for one in instances if path in (one.out_log, one.err_log)]
        before = log_errors.mark_of(cutover[path]).before if path in cutover else ()
        if before and before[-1].size > moment.size:
            before = ()  # the log was rotated since
        mark = Mark(
            path,
            tuple(Served(one.pm_id, one.pid, None, moment.size, moment.at, moment.up) for one in writers),
            before or (began[path], moment),
            None if before else max((one.started_ms / 1000 for one in writers), default=None),
        )
        found[path] = asdict(mark)
    return found


def scans(offsets: Mapping[str, Mapping[str, Any]], pattern: str) -> list[Scan]:
    """What the instances have logged since. A log that cannot be read is an error line of its own."""
    done = []
    for path, mark in offsets.items():
        try:
            done.append(log_errors.scan(log_errors.mark_of(mark), pattern))
        except OSError as failure:
            done.append(
                Scan(path, errors=1, shown=[say("{path} cannot be read: {reason}", path=path, reason=failure.strerror)])
            )
    return done


def targets(base_url: str, paths: Mapping[str, str]) -> tuple[traffic_probe.Target, ...]:
    """What is asked in a round: each path by its name, which must be answered with 200."""
    return tuple(
        traffic_probe.Target(name, f"{base_url.rstrip('/')}{path}", "GET", (200,)) for name, path in paths.items()
    )


def health(visiting: Visiting, *, page: bool) -> list[health_checks.Check]:
    """Health and, where it is watched, the page, as :mod:`.health_checks` checks them."""
    return health_checks.run_checks(visiting, ["root", "health"] if page else ["health"], read_only=True)


def listed(target: Pm2, name: str) -> Listing | OperatorError:
    """The instances, or why they could not be had."""
    try:
        return client.listing(target, name)
    except OperatorError as stop:
        return stop
