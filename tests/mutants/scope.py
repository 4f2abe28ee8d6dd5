"""What is mutated: the core's files that read, rank, guard, remove or return rows. What judges: the database tests."""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CORE = Path("module_utils/at_most_one")
FILES = tuple(
    f"{package}/{name}"
    for package, names in {
        "duplicates": (
            "ranking",
            "worklist",
            "surplus_rows",
            "groups",
            "references",
            "key_equality",
            "batch_sql",
            "batches",
            "batch_size",
            "update_action",
            "effects",
            "archive",
            "restore",
            "returning",
            "archived_rows",
            "repointed_rows",
        ),
        "preflight": ("out_and_back",),
        "fence": (
            "write_fence",
            "building",
            "dropping",
            "exempting_index",
        ),
        "postgres": (
            "fence_names",
            "partitions",
            "publications",
        ),
        "indexes": (
            "definitions",
            "verification",
            "build_concurrently",
            "on_partitions",
            "brief_lock",
            "dropping",
        ),
    }.items()
    for name in names
)
TESTS = Path("tests/database")
# They start Prisma, PgBouncer or roles in processes of their own, or are about other files: no mutant meets them.
ELSEWHERE = (
    *("test_backup", "test_by_hand", "test_cleanup_role", "test_clone", "test_control_playbook", "test_copying"),
    "test_digests",
    *("test_duplicates_module", "test_evidence_kept", "test_index_module", "test_journal", "test_journal_lease"),
    *("test_journal_module", "test_journal_reached", "test_pooler", "test_prisma", "test_prisma_deploy"),
    *(
        "test_database_rollback",
        "test_real_prisma",
        "test_real_shape",
        "test_recorded_phases",
        "test_settings",
        "test_subscribers",
        "test_two_starts",
        "test_usage",
        "test_watched_database",
    ),
)


def judges() -> list[str]:
    """The files whose tests judge, as pytest names them."""
    return [
        file.relative_to(ROOT).as_posix()
        for file in sorted((ROOT / TESTS).glob("test_*.py"))
        if file.stem not in ELSEWHERE
    ]


def equivalent() -> dict[str, str]:
    """The mutants that no test can notice, by name, each with the reason."""
    entries = yaml.safe_load((Path(__file__).parent / "equivalent.yml").read_text()) or []
    return {mutant: entry["reason"] for entry in entries for mutant in entry["mutants"]}
