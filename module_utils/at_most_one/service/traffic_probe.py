"""A prober outside the application that keeps asking on a fixed schedule, and the receipt of what it saw.

The schedule is open: a request is due at its time whether or not the one before has been answered, and its latency
counts from that time. So a stalled application shows as a gap and as late answers, and is not hidden by a prober that
waits with it ("coordinated omission").
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from ..errors import OperatorError
from ..findings import observed, say
from ..http.client import Client, NoAnswer, place
from ..system import daemon
from ..system.processes import start_ticks

_WORKERS = 32  # requests that can be under way at once; more than that wait, and their waiting counts
_NOTE_EVERY_S = 2.0
_FAILURES_SHOWN = 50
_STEPS = 60  # of the receipt's course


@dataclass(frozen=True)
class Target:
    """One address to ask, and the status codes that count as a success.

    ``legitimate`` are refusals that the service owes its users, such as the 409 for a second open session: answers, and
    counted apart.
    """

    name: str
    url: str
    method: str  # GET | HEAD | POST
    expect: tuple[int, ...]
    legitimate: tuple[int, ...] = ()
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: str | None = None


@dataclass(frozen=True)
class Settings:
    """What the prober does. ``rate_per_s`` is the total over all targets, which take turns.

    ``controller_pid`` is the process on whose behalf it runs, of this host: when that one is gone, the prober ends too.
    """

    targets: tuple[Target, ...]
    rate_per_s: float
    keepalive: bool = False
    timeout_s: float = 10.0
    max_s: float = 1800.0
    build_header: str | None = None
    controller_pid: int | None = None
    p50_before_ms: float | None = None  # what was measured before, for the receipt


@dataclass(frozen=True)
class Sample:
    """One request. Times are seconds on the monotonic clock; ``problem`` is None for a success.

    ``refusal`` is the status of a legitimate one, which is an answer.
    """

    target: int
    due: float
    done: float
    problem: str | None
    build: str | None
    refusal: int | None = None


def percentile(ordered: Sequence[float], percent: float) -> float | None:
    """The nearest-rank percentile of ascending values: always a value that was really seen."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else None


def longest_gap(started: float, successes: Iterable[float], ended: float) -> float:
    """The longest time without a success between ``started`` and ``ended``, both ends included, in the same unit."""
    moments = [started, *sorted(min(max(moment, started), ended) for moment in successes), ended]
    return max(later - earlier for earlier, later in zip(moments, moments[1:]))


def summarise(
    samples: Sequence[Sample], settings: Settings, started: float, ended: float, epoch: float
) -> dict[str, Any]:
    """The receipt. ``epoch`` is the Unix time at which the monotonic clock read ``started``."""

    def at(moment: float) -> str:
        return datetime.fromtimestamp(epoch + moment - started, timezone.utc).isoformat(timespec="milliseconds")

    ordered = sorted(samples, key=lambda sample: sample.done)
    builds: dict[str, dict[str, Any]] = {}
    for sample in ordered:
        if sample.build is not None:
            seen = builds.setdefault(sample.build, {"answers": 0, "first": at(sample.done), "last": None})
            seen["answers"] += 1
            seen["last"] = at(sample.done)
    newest = next((sample.build for sample in reversed(ordered) if sample.build is not None), None)
    old = [sample.done for sample in ordered if sample.build is not None and sample.build != newest]
    failures = [sample for sample in ordered if sample.problem is not None]
    return {
        "started_at": at(started),
        "ended_at": at(ended),
        "rate_per_s": settings.rate_per_s,
        "p50_before_ms": settings.p50_before_ms,
        **_figures(samples, started, ended),
        "course": _course(ordered, started, ended),
        "builds": builds,
        "last_old_answer": at(old[-1]) if old else None,
        "targets": {
            target.name: _figures([sample for sample in samples if sample.target == number], started, ended)
            for number, target in enumerate(settings.targets)
        },
        "first_failures": [
            {"at": at(sample.done), "name": settings.targets[sample.target].name, "kind": sample.problem}
            for sample in failures[:_FAILURES_SHOWN]
        ],
    }


def _figures(samples: Sequence[Sample], started: float, ended: float) -> dict[str, Any]:
    problems = Counter(sample.problem for sample in samples if sample.problem is not None)
    latencies = sorted((sample.done - sample.due) * 1000 for sample in samples if sample.problem is None)
    gap = longest_gap(started, (sample.done for sample in samples if sample.problem is None), ended)
    return {
        "requests": len(samples),
        "failures": sum(problems.values()),
        "failures_by_kind": dict(sorted(problems.items())),
        "legitimate": dict(sorted(Counter(f"status_{one.refusal}" for one in samples if one.refusal).items())),
        "longest_gap_ms": round(gap * 1000),
        **{
            f"p{percent}_ms": None if (value := percentile(latencies, percent)) is None else round(value, 1)
            for percent in (50, 95, 99)
        },
        "max_ms": round(latencies[-1], 1) if latencies else None,
    }


def _course(samples: Iterable[Sample], started: float, ended: float) -> list[dict[str, Any]]:
    """The same in order, in at most _STEPS steps of whole seconds, each with the requests that were due in it."""
    step = max(1, math.ceil((ended - started) / _STEPS))
    steps: list[dict[str, Any]] = [
        {"from_s": number * step, "requests": 0, "failures": 0, "slowest_ms": None}
        for number in range(max(1, math.ceil((ended - started) / step)))
    ]
    for sample in samples:
        one = steps[min(len(steps) - 1, int((sample.due - started) // step))]
        one["requests"] += 1
        if sample.problem is not None:
            one["failures"] += 1
        else:
            took = round((sample.done - sample.due) * 1000, 1)
            one["slowest_ms"] = max(took, one["slowest_ms"] or took)
    return steps


def probe(settings: Settings, stop: threading.Event, samples: list[Sample], started: float) -> None:
    """Ask on schedule from ``started`` (monotonic) until ``stop`` is set; append to ``samples``, then return."""
    slots = itertools.count()
    workers = [
        threading.Thread(target=_work, args=(settings, stop, samples, started, slots), daemon=True)
        for _ in range(min(_WORKERS, max(4, math.ceil(settings.rate_per_s * settings.timeout_s))))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _work(
    settings: Settings, stop: threading.Event, samples: list[Sample], started: float, slots: Iterator[int]
) -> None:
    clients = clients_of(settings)
    for slot in slots:  # next() on a count is atomic: each slot has one worker
        due = started + slot / settings.rate_per_s
        if stop.wait(max(0.0, due - time.monotonic())):
            break
        number = slot % len(settings.targets)
        if time.monotonic() - due > settings.timeout_s:
            # Every worker was waiting for an answer when this one was due. Its user would have given up by now.
            samples.append(Sample(number, due, time.monotonic(), "stalled", None))
            continue
        problem, build, refusal, _answered = ask(clients[number], settings, number)
        samples.append(Sample(number, due, time.monotonic(), problem, build, refusal))
    for client in clients:
        client.close()


def clients_of(settings: Settings) -> list[Client]:
    """A client for each target."""
    return [Client(one.url, timeout_s=settings.timeout_s, keepalive=settings.keepalive) for one in settings.targets]


def ask(client: Client, settings: Settings, number: int) -> tuple[str | None, str | None, int | None, bool]:
    """One request to one target: the problem, the build, the legitimate refusal, and whether there was an answer."""
    target = settings.targets[number]
    body = target.body.encode() if target.body else None
    try:
        answer = client.request(target.method, place(target.url).target, dict(target.headers), body)
    except NoAnswer as failure:
        return failure.kind, None, None, False
    except Exception as failure:  # never lose a request in silence: what the prober cannot do is a failure too
        return f"prober_{type(failure).__name__}", None, None, False
    build = answer.header(settings.build_header) if settings.build_header else None
    if answer.status in target.legitimate:
        return None, build, answer.status, True
    return (None if answer.status in target.expect else f"status_{answer.status}"), build, None, True


def start(settings: Settings, output: str) -> tuple[int, bool]:
    """Start the detached prober; its receipt will be in ``output``. Returns its pid and whether it was started now.

    One that already runs with these settings is left alone, and one of another controller is replaced: it would end
    with that one. With other settings it is an OperatorError.
    """
    note = {"settings": _as_json(settings), "controller_pid": settings.controller_pid}
    noted = running(output)
    if noted and noted.get("controller_pid") != settings.controller_pid:
        daemon.terminate(noted, within_s=settings.timeout_s + 10)
        noted = None
    if noted:
        if noted.get("settings") != note["settings"]:
            raise OperatorError(
                observed(
                    "AMO-4402",
                    "A traffic probe with other settings already writes {output} (pid {pid}).",
                    output=output,
                    pid=noted["pid"],
                ),
                expected=say("one probe per receipt."),
                next_step=say("stop it first (state: stopped), or give this one another output."),
                pid=noted["pid"],
            )
        return int(noted["pid"]), False
    output = os.path.abspath(output)
    if os.path.exists(output):
        os.unlink(output)  # a receipt of an earlier run must not be taken for this one's
    return daemon.spawn(lambda: _run(settings, output), _pid_file(output), note), True


def running(output: str) -> dict[str, Any] | None:
    """What the pid file says of the prober behind ``output``, when it runs."""
    noted = daemon.read_json(_pid_file(output))
    return noted if daemon.alive(noted) else None


def stop(output: str) -> tuple[dict[str, Any], bool]:
    """Stop the prober. Returns its receipt, also that of one that has already ended, and whether it still ran.

    Raises OperatorError when there never was one, or when it ended without a receipt.
    """
    noted = daemon.read_json(_pid_file(output))
    ran = daemon.alive(noted)
    # After the signal, requests under way may take their whole time.
    timeout_s = float((noted or {}).get("settings", {}).get("timeout_s", 10.0))
    obeyed = daemon.terminate(noted, within_s=timeout_s + 10) if noted else True
    receipt = daemon.read_json(output)
    if not receipt or not receipt.get("finished"):
        so_far = (
            say(
                " after {requests} requests, {failures} failed",
                requests=receipt["requests"],
                failures=receipt["failures"],
            )
            if receipt
            else ""
        )
        seen = (
            observed("AMO-4411", "No traffic probe has written {output}.", output=output)
            if not noted and not receipt
            else observed(
                "AMO-4412",
                "The traffic probe behind {output} {how}{so_far}: no receipt.",
                output=output,
                how=say("died") if obeyed else say("had to be killed"),
                so_far=so_far,
            )
        )
        raise OperatorError(
            seen,
            expected=say("a probe that ran from before the cutover until now."),
            next_step=say(
                "treat the traffic during the cutover as unknown; on that host look for the OOM killer, "
                "or for a session manager that ends processes at logout (KillUserProcesses in "
                "logind.conf)."
            ),
            receipt=receipt,
        )
    if receipt.get("error"):
        raise OperatorError(
            observed("AMO-4403", "The traffic probe ended with an error: {error}.", error=receipt["error"]),
            expected=say("a probe that asks until it is stopped."),
            next_step=say("correct its settings and start it again."),
        )
    if noted:
        os.unlink(_pid_file(output))
    return receipt, ran


def _run(settings: Settings, output: str) -> None:
    """The detached process: probe until SIGTERM, ``max_s`` or its controller's end, then write the receipt."""
    stopping, samples = threading.Event(), list[Sample]()
    epoch, started = time.time(), time.monotonic()
    controller_ticks = start_ticks(settings.controller_pid) if settings.controller_pid else None
    prober = threading.Thread(target=probe, args=(settings, stopping, samples, started))
    try:
        prober.start()
        ended_by = "signal"
        while not daemon.asked_to_end(min(_NOTE_EVERY_S, started + settings.max_s - time.monotonic())):
            if time.monotonic() - started >= settings.max_s:
                ended_by = "max_s"
                break
            if settings.controller_pid and start_ticks(settings.controller_pid) != controller_ticks:
                ended_by = "controller_gone"
                break
            failures = sum(sample.problem is not None for sample in list(samples))
            daemon.write_json(output, {"finished": False, "requests": len(samples), "failures": failures})
        ended = time.monotonic()
        stopping.set()
        prober.join()
        receipt = summarise(samples, settings, started, ended, epoch)
        daemon.write_json(output, {"finished": True, "ended_by": ended_by, **receipt})
    except Exception as failure:
        daemon.write_json(output, {"finished": True, "error": f"{type(failure).__name__}: {failure}"})
        raise


def _pid_file(output: str) -> str:
    return f"{os.path.abspath(output)}.pid"


def _as_json(settings: Settings) -> dict[str, Any]:
    return {
        # What a request carries may be a login: the note says only whether it is the same.
        "targets": [
            [t.name, t.url, t.method, [*t.expect], [*t.legitimate], _digest(t.headers, t.body)]
            for t in settings.targets
        ],
        "rate_per_s": settings.rate_per_s,
        "p50_before_ms": settings.p50_before_ms,
        "keepalive": settings.keepalive,
        "timeout_s": settings.timeout_s,
        "max_s": settings.max_s,
        "build_header": settings.build_header,
    }


def _digest(headers: Sequence[tuple[str, str]], body: str | None) -> str:
    return hashlib.sha256(repr((headers, body)).encode()).hexdigest()
