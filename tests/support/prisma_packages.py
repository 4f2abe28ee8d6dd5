"""The packages of the lab's application as they are installed: one build of it has Prisma 6, another may have 7."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".lab/cache"
PARTIAL = ".partial"  # the suffix of what is still being installed


def installed(source: Path) -> Path | None:
    """A node_modules directory made from the lock file of ``source``; None where there is none yet."""
    lock = (source / "package-lock.json").read_bytes()
    for built in sorted(CACHE.glob("*/package-lock.json")):
        whole = built.parent.suffix != PARTIAL and (built.parent / "node_modules/.bin/prisma").exists()
        if whole and built.read_bytes() == lock:
            return built.parent / "node_modules"
    return None
