"""How the indexes of the planned tables are used, how large they are, and what that suggests.

Everything is the server's own statistics: they count since pg_stat_database.stats_reset, on this server alone. A scan
on a replica is not in them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from psycopg2.extras import RealDictCursor

from ..plan import Plan
from ..postgres.connection import Connection
from ..postgres.fence_names import PATTERN
from ..postgres.partitions import tree

# A partitioned table's index is used where those of its partitions are. pg_stats has the average width of each column;
# an expression's stands under the index's own name.
_USE = f"""
SELECT c.relname AS name, t.relname AS "table", i.indisunique AS is_unique, m.amname AS method,
       s.scans, s.bytes, s.hit, s.read,
       c.reltuples AS rows, c.relpages AS pages, pg_catalog.current_setting('block_size')::integer AS block,
       (SELECT coalesce(sum(coalesce(p.avg_width, 8)), 8) FROM pg_catalog.pg_attribute a
          LEFT JOIN pg_catalog.pg_stats p ON p.schemaname = n.nspname AND p.attname = a.attname
               AND p.tablename IN (t.relname, c.relname)
         WHERE a.attrelid = c.oid AND a.attnum > 0) AS width,
       (SELECT extract(epoch FROM clock_timestamp() - coalesce(d.stats_reset, pg_catalog.pg_postmaster_start_time()))
          / 86400 FROM pg_catalog.pg_stat_database d WHERE d.datname = current_database())::float8 AS days
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_class t ON t.oid = i.indrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
  JOIN pg_catalog.pg_am m ON m.oid = c.relam
  CROSS JOIN LATERAL (
      SELECT coalesce(sum(s.idx_scan), 0)::bigint AS scans,
             coalesce(sum(pg_catalog.pg_relation_size(p.oid)), 0)::bigint AS bytes,
             coalesce(sum(o.idx_blks_hit), 0)::bigint AS hit, coalesce(sum(o.idx_blks_read), 0)::bigint AS read
        FROM unnest(ARRAY{tree("c.oid")}) AS p (oid)
        LEFT JOIN pg_catalog.pg_stat_all_indexes s ON s.indexrelid = p.oid
        LEFT JOIN pg_catalog.pg_statio_all_indexes o ON o.indexrelid = p.oid) AS s
 WHERE n.nspname = %s AND t.relname = ANY (%s) AND c.relname !~ %s
 ORDER BY t.relname, c.relname
"""  # noqa: S608  (the part is a constant)
_PAGE_HEADER, _BTREE_SPECIAL, _LINE_POINTER, _TUPLE_HEADER = 24, 16, 4, 8  # src/include/storage/bufpage.h, itup.h
_FILLFACTOR = 0.9  # of a B-tree's leaves: CREATE INDEX, storage parameters
_FEW_READS = 1_000


@dataclass(frozen=True)
class Thresholds:
    """From when on a recommendation is made."""

    unused_days: float = 30.0
    bloat_percent: float = 50.0
    bloat_bytes: int = 10 * 1024 * 1024
    hit_percent: float = 90.0


@dataclass(frozen=True)
class Use:
    """One index. ``advice``: rule, fine, wait, unused, reindex or cold."""

    name: str
    table: str
    planned: bool
    scans: int
    bytes: int
    hit_percent: float | None  # of its blocks that were found in memory; None when none was asked for
    bloat_percent: int | None  # an estimate; None where there is no basis for one
    days: float  # how long these figures have been counted
    advice: str


def read(connection: Connection, plan: Plan, thresholds: Thresholds | None = None) -> list[Use]:
    """Every index of the planned tables, planned or not."""
    planned = {index.name for index in plan.indexes}
    with connection.cursor(cursor_factory=RealDictCursor) as cursor:
        cursor.execute(_USE, (plan.schema, sorted({index.table for index in plan.indexes}), PATTERN))
        return [judge(dict(row), planned, thresholds or Thresholds()) for row in cursor.fetchall()]


def judge(row: dict[str, Any], planned: set[str], thresholds: Thresholds) -> Use:
    """The figures of one index, and what they suggest. What enforces a rule is never called unused."""
    asked = row["hit"] + row["read"]
    hit = round(100 * row["hit"] / asked, 1) if asked else None
    bloat = estimate_bloat(row)
    if bloat is not None and bloat >= thresholds.bloat_percent and row["bytes"] >= thresholds.bloat_bytes:
        advice = "reindex"
    elif row["is_unique"]:
        advice = "rule"
    elif not row["scans"]:
        advice = "unused" if row["days"] >= thresholds.unused_days else "wait"
    elif hit is not None and hit < thresholds.hit_percent and asked >= _FEW_READS:
        advice = "cold"
    else:
        advice = "fine"
    return Use(
        row["name"],
        row["table"],
        row["name"] in planned,
        int(row["scans"]),
        int(row["bytes"]),
        hit,
        bloat,
        round(float(row["days"]), 1),
        advice,
    )


def estimate_bloat(row: dict[str, Any]) -> int | None:
    """Percent of a B-tree's pages that its rows would not need; None for other methods, small and unanalysed ones.

    Rows that share a key may share its storage (deduplication, PostgreSQL 13), so the estimate errs towards 0.
    """
    if row["method"] != "btree" or row["rows"] < 0 or row["pages"] < 10:
        return None
    tuple_bytes = _TUPLE_HEADER + math.ceil(float(row["width"]) / 8) * 8 + _LINE_POINTER
    usable = (int(row["block"]) - _PAGE_HEADER - _BTREE_SPECIAL) * _FILLFACTOR
    needed = 1 + math.ceil(float(row["rows"]) * tuple_bytes / usable)
    return max(0, round(100 * (1 - needed / int(row["pages"]))))
