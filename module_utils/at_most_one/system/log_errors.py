"""Which error lines in the application's logs are the new release's own.

The release before writes to the same files until its last process is gone, and with PM2's ``merge_logs`` all instances
share one file. So a line counts when it is provably the new release's: it names a new process or instance, or it was
written when no process of the release before was left. An error that the release before wrote as well, and no less
often, is known: it is counted apart and is not the new release's fault.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from ..findings import Phrase, joined, say
from .app_logs import lines_from, log_sizes, rotated_file
from .processes import uptime
from .redaction import redact

ERROR_PATTERN = r"\bERROR\b|Unhandled|uncaughtException"  # also the default of healthcheck_log_error_pattern
NOT_COUNTED = "not counted: "
_WARNING = "WARN"  # lines with it are counted, and fail nothing

_HISTORY_BYTES = 1024 * 1024  # of a log with times, from before the run
_LINE_SHOWN = 300
_LINES_SHOWN = 10
_MORE_OFTEN = 3  # how many times as often as before a known error is still no fault of the new release
_ALWAYS_KNOWN = 3  # lines of a known error that count as no change, however rare it was
_SHORTEST_S = 0.3  # a rate over less than this says nothing
_HISTORY_S = 60.0  # of which a log has the lines from before the run, at least: one in its last second is no rate

# The same error with other values is the same error. Statuses and codes such as P2002 tell errors apart and stay.
_VALUES = re.compile(
    r"(?P<kept>(?:status|code|http)\W{1,3}[1-5]\d\d\b)"
    r"|[\w.+-]+@[\w-]+\.[\w.]+"
    r"|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    r"|\b0x[0-9a-f]+\b"
    r"|\b(?=[a-f]*\d)[a-f0-9]{6,}\b"
    r"|\b(?=[a-z_-]*\d)[a-z0-9_-]{12,}\b"
    r"|(?<![a-z0-9])\d+(?:[.:,]\d+)*",
    re.IGNORECASE,
)
_WHEN = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d{1,6}))?\s?(Z|[+-]\d\d:?\d\d)?")
_WHEN_MS = re.compile(r'"time":\s*(\d{13})\b')  # pino
_PID = re.compile(r'"pid":\s*(\d+)|\bpid[ =:]\s?(\d+)|^[^\[]{0,40}\[(\d+)\]')
_PM_ID = re.compile(r'"process_id":\s*(\d+)|^\s*(\d+)\|')  # PM2's log_type json; the prefix of `pm2 logs`


@dataclass(frozen=True)
class Moment:
    """How long a log was (bytes) at a Unix time. ``up``: for how long its host had been up, whatever its clock said."""

    size: int
    at: float
    up: float | None = None


@dataclass(frozen=True)
class Served:
    """From where in the log an instance is the new one: the process before it was gone at that moment."""

    pm_id: int
    pid: int
    old_pid: int | None
    size: int
    at: float
    up: float | None = None


@dataclass(frozen=True)
class Mark:
    """One log around a cutover.

    ``before`` are moments, in order, between which only the release before wrote; the last stretch had the probe's
    requests. It is empty where nothing can be compared. ``started_at`` is when that release's processes started.
    """

    path: str
    served: tuple[Served, ...]
    before: tuple[Moment, ...] = ()
    started_at: float | None = None

    @property
    def since(self) -> int:
        """From here on no process of the release before writes."""
        return max((one.size for one in self.served), default=0)


@dataclass
class Scan:
    """What one log says. ``shown`` are the first lines that count, without secrets; ``known`` lines do not count."""

    path: str
    errors: int = 0
    warnings: int = 0
    shown: list[str] = field(default_factory=list)
    known: int = 0
    known_kinds: int = 0
    compared_s: float = 0.0
    more_often: int = 0  # of ``errors``, those that the release before wrote too, but less often


def moments(paths: Iterable[str]) -> dict[str, Moment]:
    """How long each log is now."""
    at, up = time.time(), uptime()
    return {path: Moment(size, at, up) for path, size in log_sizes(paths).items()}


def age(moment: Moment | Served) -> float:
    """How many seconds ago it was."""
    return _between(moment, Moment(0, time.time(), uptime()))


def _between(earlier: Moment | Served, later: Moment | Served) -> float:
    """The seconds from one to the other, also where the clock was set meanwhile; a host that was booted counts anew."""
    if earlier.up is not None and later.up is not None and earlier.up <= later.up:
        return later.up - earlier.up
    return later.at - earlier.at


def _at_least(moment: Moment | Served) -> float:
    """The Unix time that what is written after it has at least, also where the clock was set back since."""
    return min(moment.at, time.time() - age(moment))


def _order(moment: Moment | Served) -> float:
    return moment.at if moment.up is None else moment.up


def mark_of(given: Mapping[str, Any], earlier: Mapping[str, Any] | None = None) -> Mark:
    """The mark in a module's result. ``earlier`` is one more moment of the release before, as ``{size, at}``."""
    before = tuple(Moment(**one) for one in given["before"])
    first = Moment(**earlier) if earlier else None
    if first and before and first.size <= before[0].size and _between(first, before[0]) >= 0:
        before = (first, *before)
    return Mark(given["path"], tuple(Served(**one) for one in given["served"]), before, given["started_at"])


def kind(line: str) -> str:
    """The error without its values, so that two lines of one error are equal."""
    return " ".join(_VALUES.sub(lambda found: found["kept"] or "#", line).split())[:_LINE_SHOWN]


def written_at(line: str) -> float | None:
    """The Unix time at the beginning of a line, None without one. A time without a zone is this host's."""
    if found := _WHEN.search(line[:160]):
        date, clock, fraction, zone = found.groups()
        offset = (zone or "").replace("Z", "+00:00")
        if offset and ":" not in offset:
            offset = f"{offset[:3]}:{offset[3:]}"  # before Python 3.11 the colon is no choice
        text = f"{date}T{clock}.{(fraction or '0'):0<6}{offset}"
        try:
            return datetime.fromisoformat(text).timestamp()
        except ValueError:
            return None
    in_ms = _WHEN_MS.search(line)
    return int(in_ms[1]) / 1000 if in_ms else None


def scan(mark: Mark, errors: str, now: float | None = None) -> Scan:
    """Count the new release's lines that match, and its warnings. Raises OSError when the log is unreadable.

    A log that did not exist and still does not has no lines.
    """
    found, is_error = Scan(mark.path), re.compile(errors)
    if mark.since == 0 and not os.path.exists(mark.path):
        return found
    mark, earlier = _across_rotation(mark)
    known, new, shown = _Known(mark.before, mark.started_at), Counter[str](), dict[str, list[str]]()
    for line in _new_lines(mark, earlier, known, is_error):
        if is_error.search(line):
            new[kind(line)] += 1
            examples = shown.setdefault(kind(line), [])
            if len(examples) < _LINES_SHOWN:
                examples.append(line)
        elif _WARNING in line:
            found.warnings += 1
    first = min(mark.served, key=_order, default=Moment(0, 0.0))
    lasted = max(0.0, age(first) if now is None else now - first.at)
    for what, count in new.items():
        if count <= known.bearable(what, lasted):
            found.known += count
            found.known_kinds += 1
            continue
        found.errors += count
        found.more_often += count if known.has(what) else 0
        found.shown += [redact(line)[:_LINE_SHOWN] for line in shown[what]]
    found.shown = found.shown[:_LINES_SHOWN]
    found.compared_s = known.seconds
    return found


def told(scans: Sequence[Scan]) -> Phrase:
    """What was counted and what was not, in one sentence for a person."""
    errors, warnings, known = (sum(getattr(one, name) for one in scans) for name in ("errors", "warnings", "known"))
    said = [say("{errors} with errors, {warnings} with warnings", errors=errors, warnings=warnings)]
    if more := sum(one.more_often for one in scans):
        said.append(say("{count} of them are of errors that were there before, but less often", count=more))
    if known:
        kinds, compared_s = sum(one.known_kinds for one in scans), max(one.compared_s for one in scans)
        said.append(
            say(
                "not counted: {lines} lines of {kinds} that the release before wrote as well (measured for {compared_s}"
                " s before the cutover)",
                lines=known,
                kinds=say("1 error") if kinds == 1 else say("{count} errors", count=kinds),
                compared_s=f"{compared_s:.0f}",
            )
        )
    return joined(said)


class _Known:
    """The errors of the release before, by stretches of time: the log's history, then from moment to moment."""

    def __init__(self, bounds: tuple[Moment, ...], started_at: float | None) -> None:
        self._bounds = bounds
        self._stretches = [Counter[str]() for _ in bounds]
        self._lasted = [0.0, *(_between(earlier, later) for earlier, later in zip(bounds, bounds[1:]))]
        life_s = bounds[0].at - started_at if bounds and started_at is not None else 0.0
        self._shortest_s = min(_HISTORY_S, max(0.0, life_s))

    @property
    def seconds(self) -> float:
        return sum(self._lasted[1:])

    def add(self, offset: int, line: str, at: float | None = None) -> None:
        stretch = min(sum(bound.size <= offset for bound in self._bounds), len(self._bounds) - 1)
        self._stretches[stretch][kind(line)] += 1
        if at is not None:
            self._lasted[0] = max(self._lasted[0], self._shortest_s, self._bounds[0].at - at)

    def has(self, what: str) -> bool:
        return any(what in stretch for stretch in self._stretches)

    def bearable(self, what: str, seconds: float) -> float:
        """How many lines of it in so many seconds are no change."""
        if not self.has(what):
            return 0
        measured = zip(self._stretches, self._lasted)
        rates = [stretch[what] / lasted for stretch, lasted in measured if lasted >= _SHORTEST_S]
        recent = sum(stretch[what] for stretch in self._stretches[1:])
        return max(_ALWAYS_KNOWN, recent, _MORE_OFTEN * max(rates, default=0.0) * seconds)


def _across_rotation(mark: Mark) -> tuple[Mark, str | None]:
    """The mark, and the file that the log has become where it was rotated since the last moment and is still there.

    A moment at which the log was shorter than before was after a rotation. What was written before that is in another
    file, and nothing can be compared.
    """
    longest = 0
    taken: list[Moment | Served] = [*mark.before, *sorted(mark.served, key=_order)]
    later: list[Moment | Served] = []
    for one in taken:
        if one.size < longest:
            later.append(one)
        longest = max(longest, one.size)
    if later:
        served = tuple(one if one in later else replace(one, size=0) for one in mark.served)
        return replace(mark, before=(), served=served), None
    size = os.path.getsize(mark.path) if os.path.exists(mark.path) else 0
    return mark, rotated_file(mark.path, longest, _at_least(taken[-1])) if size < longest else None


def _lines(path: str, earlier: str | None, first: int) -> Iterator[tuple[int, str]]:
    """The lines of the log from an offset on, as if it had never been rotated."""
    if earlier is None:
        yield from lines_from(path, first)
        return
    size = os.path.getsize(earlier)
    yield from lines_from(earlier, first)
    if os.path.exists(path):  # logrotate need not have created it anew
        for offset, line in lines_from(path, 0):
            yield size + offset, line


def _new_lines(mark: Mark, earlier: str | None, known: _Known, is_error: re.Pattern[str]) -> Iterator[str]:
    """The lines that are the new release's; error lines of the release before go to ``known``.

    ``earlier``: the file that the log was before it was rotated, where that is there.
    """
    begin = mark.before[0].size if mark.before else min((one.size for one in mark.served), default=0)
    timed = mark.started_at is not None and bool(mark.before)
    rotated = earlier is None and os.path.getsize(mark.path) < mark.since
    after = _at_least(mark.before[-1]) if mark.before else 0.0
    new_pids = {one.pid: one.size for one in mark.served}
    pm_ids = {one.pm_id: one.size for one in mark.served}
    old_pids = {one.old_pid for one in mark.served} - {None}
    first = 0 if rotated else max(0, begin - _HISTORY_BYTES) if timed else begin
    for offset, line in _lines(mark.path, earlier, first):
        if rotated:
            at = written_at(line)
            if at is None or at > after:
                yield line
        elif offset < begin:
            at = written_at(line) if is_error.search(line) else None
            if at is not None and mark.started_at is not None and at >= mark.started_at:
                known.add(offset, line, at)
        elif mark.before and offset < mark.before[-1].size:
            if is_error.search(line):
                known.add(offset, line)
        elif not is_error.search(line):
            if offset >= mark.since:
                yield line
        elif offset >= _counts_from(line, mark.since, new_pids, pm_ids, old_pids):
            yield line


def _counts_from(
    line: str, since: int, new_pids: Mapping[int, int], pm_ids: Mapping[int, int], old_pids: Collection[int | None]
) -> float:
    """The offset from which such a line counts, infinite when it names a process of the release before."""
    pid = _number(_PID, line)
    if pid in new_pids:
        return new_pids[pid]
    if pid in old_pids:
        return float("inf")
    return pm_ids.get(_number(_PM_ID, line), since)


def _number(pattern: re.Pattern[str], line: str) -> int:
    found = pattern.search(line)
    return int(next(group for group in found.groups() if group)) if found else -1
