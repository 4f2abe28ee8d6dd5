"""The price of the rule: what the service asks and writes, before and after the three indexes.

Two copies of one database, one of them with the indexes. The same statement goes to both, one after the other, in turns
first to the one and first to the other; what counts is the difference within a pair.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from at_most_one.postgres.connection import Connection

from bench.results import Result, median
from bench.run import Bench
from bench.seed import MIGRATION, groups, seed
from bench.server import superuser

SURPLUS = 125_000
BLOCKS = 40
WARMING = 20  # blocks before; the questions are the same ones over and over, so that what they read is in memory
PAIRS_PER_BLOCK = 100
INSPECTOR = "00000000-0000-4000-a000-000000000001"


@dataclass(frozen=True)
class Kind:
    """A statement of the service; ``values`` gives its parameters for the n-th pair among that many groups."""

    name: str
    statement: str
    values: Callable[[int, int], tuple[Any, ...]]
    pairs: int = PAIRS_PER_BLOCK

    @property
    def reads(self) -> bool:
        """A question may be asked twice."""
        return self.statement.startswith("SELECT")


def _spread(number: int, size: int) -> int:
    """All numbers below ``size``, once each, in no order: a prime step that no size here shares."""
    return number * 7_919 % size


# Serials with an even number have one open session, those with an odd number have none: there an INSERT is new.
KINDS = (
    Kind(
        "INSERT of a session",
        "INSERT INTO aedpics.inspection_sessions (equipment_serial, inspector_id, status, started_at, device_info)"
        " VALUES (%s, %s, 'active', now(), '{\"institution\": \"기관\"}')",
        lambda n, size: (f"11-{2 * _spread(n, size) + 1:07d}", INSPECTOR),
    ),
    Kind(
        "INSERT of a schedule",
        "INSERT INTO aedpics.inspection_schedules (aed_data_id, scheduled_for) VALUES (%s, now())",
        lambda n, size: (1 + _spread(n, 2 * size),),
    ),
    Kind(
        "open session of an equipment",
        "SELECT * FROM aedpics.inspection_sessions WHERE equipment_serial = %s AND status IN ('active', 'paused')"
        " ORDER BY started_at DESC NULLS LAST LIMIT 1",
        lambda n, size: (f"11-{_spread(n, 2 * size):07d}",),
    ),
    Kind(
        "schedules of an equipment by date",
        "SELECT * FROM aedpics.inspection_schedules WHERE aed_data_id = %s AND scheduled_for >= '2025-09-01'"
        " ORDER BY scheduled_for",
        lambda n, size: (1 + _spread(n, 2 * size),),
    ),
    Kind(
        "active schedules of an equipment",
        "SELECT * FROM aedpics.inspection_schedules WHERE aed_data_id = %s AND status NOT IN ('cancelled')"
        " ORDER BY scheduled_for",
        lambda n, size: (1 + _spread(n, 2 * size),),
    ),
    Kind(
        "monitoring of duplicate sessions",
        "SELECT equipment_serial, count(*) FROM aedpics.inspection_sessions WHERE status IN ('active', 'paused')"
        " GROUP BY equipment_serial HAVING count(equipment_serial) > 1 ORDER BY equipment_serial",
        lambda n, size: (),
        pairs=1,
    ),
)


def measure(bench: Bench) -> list[Result]:
    """Two figures a statement: the difference in milliseconds, and in percent of what it took before."""
    surplus = bench.size(SURPLUS, least=3)
    template = seed(bench.server, "bench_price", surplus)
    with contextlib.closing(superuser(template)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM aedpics.inspection_sessions WHERE id IN (SELECT id FROM (SELECT id, row_number() OVER"
            " (PARTITION BY equipment_serial ORDER BY started_at DESC, id) AS place FROM aedpics.inspection_sessions"
            " WHERE status IN ('active', 'paused')) AS ranked WHERE place > 1)"
        )
        cursor.execute("VACUUM (FREEZE, ANALYZE)")
    found = []
    with (
        bench.server.copy(template, "bench_before") as before,
        bench.server.copy(template, "bench_after") as after,
        contextlib.closing(superuser(before)) as without,
        contextlib.closing(superuser(after)) as with_rule,
    ):
        with with_rule.cursor() as cursor:
            cursor.execute(MIGRATION)
            cursor.execute("VACUUM (ANALYZE)")
            cursor.execute("CHECKPOINT")
        for kind in KINDS:
            base, change = _compare(kind, without, with_rule, groups(surplus))
            found.append(bench.result(f"{kind.name}: before", base, "ms", repetitions=BLOCKS))
            found.append(bench.result(f"{kind.name}: change", change, "ms", repetitions=BLOCKS))
            found.append(bench.result(f"{kind.name}: change in percent", 100 * change / base, "%", repetitions=BLOCKS))
    bench.server.drop(template.dbname)
    return found


def _compare(kind: Kind, without: Connection, with_rule: Connection, size: int) -> tuple[float, float]:
    """Milliseconds before, and the change: medians of the blocks' means."""
    base, change = [], []
    pairs = max(min(kind.pairs, size // (WARMING + BLOCKS)), 1)  # no equipment twice
    for block in range(WARMING + BLOCKS):
        took = {without: 0.0, with_rule: 0.0}
        for pair in range(pairs):
            number = (block % WARMING if kind.reads else block) * pairs + pair
            values = kind.values(number, size)
            for connection in (without, with_rule) if pair % 2 == block % 2 else (with_rule, without):
                took[connection] += _timed_ms(connection, kind.statement, values)
        if block >= WARMING:
            base.append(took[without] / pairs)
            change.append((took[with_rule] - took[without]) / pairs)
    return median(base), median(change)


def _timed_ms(connection: Connection, statement: str, values: tuple[Any, ...]) -> float:
    with connection.cursor() as cursor:
        begin = time.perf_counter()
        cursor.execute(statement, values)
        return 1000 * (time.perf_counter() - begin)


def draw(panel: Any, results: dict[str, Result]) -> None:
    """The change of each statement in percent."""
    names = [kind.name for kind in KINDS]
    values = [results[f"{name}: change in percent"].value for name in names]
    labels = [
        f"{results[f'{name}: change'].value:+.3f} ms ({value:+.0f} %)"
        for name, value in zip(names, values, strict=True)
    ]
    bars = panel.barh(names, values, color=["#b5483a" if value > 0 else "#2b7a4b" for value in values])
    panel.bar_label(bars, labels, padding=3)
    panel.axvline(0, color="black", linewidth=0.8)
    panel.invert_yaxis()
    panel.margins(x=0.6)
    panel.set_title("Price of the rule: a statement with the three indexes, in % more or less", loc="left")
