"""Every state of Prisma's history has one verdict; the order among them is what these tables pin down."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from at_most_one.errors import OperatorError
from at_most_one.prisma import files, migration_history
from at_most_one.prisma.files import Migration
from at_most_one.prisma.migration_history import Row

OURS = "20251110_add_partial_unique_indexes"
EARLIER = "20251001_init"
LATER = "20251201_later"
MIGRATIONS = tuple(Migration(name, f"sha of {name}") for name in (EARLIER, OURS, LATER))
EPOCH = datetime(2025, 11, 10, tzinfo=UTC)


def row(name: str, state: str, minute: int = 0, checksum: str | None = None) -> Row:
    at = EPOCH + timedelta(minutes=minute)
    return Row(
        id=f"{name}-{minute}",
        migration_name=name,
        checksum=checksum or f"sha of {name}",
        started_at=at,
        finished_at=at if state in ("applied", "applied, then rolled back") else None,
        rolled_back_at=at if state in ("rolled back", "applied, then rolled back") else None,
        applied_steps_count=0,
        logs=None,
    )


DONE = row(EARLIER, "applied")


@pytest.mark.parametrize(
    ("history", "indexes_exact", "expected"),
    [
        (None, None, "absent_table"),
        (None, True, "absent_table"),
        ((DONE,), False, "pending"),
        ((DONE,), None, "pending"),
        ((DONE, row(OURS, "applied")), True, "applied"),
        ((DONE, row(OURS, "applied")), None, "applied"),
        ((DONE, row(OURS, "applied")), False, "applied_without_indexes"),
        ((DONE, row(OURS, "failed")), False, "failed"),
        ((DONE, row(OURS, "failed")), None, "failed"),
        ((DONE, row(OURS, "failed")), True, "failed_with_indexes"),
        ((DONE, row(OURS, "rolled back")), False, "rolled_back"),
        ((DONE, row(OURS, "applied, then rolled back")), False, "rolled_back"),
        # `resolve --applied` on a failed one leaves two rows and no index
        ((DONE, row(OURS, "rolled back"), row(OURS, "applied", 1)), False, "applied_without_indexes"),
        ((DONE, row(OURS, "rolled back"), row(OURS, "applied", 1)), True, "applied"),
        ((DONE, row(OURS, "applied"), row(OURS, "failed", 1)), True, "failed_with_indexes"),
        ((DONE, row(OURS, "failed"), row(OURS, "rolled back", 1)), False, "failed"),
        ((DONE, row(OURS, "applied", checksum="of another file")), True, "edited"),
        ((DONE, row(OURS, "applied", checksum="of another file")), False, "edited"),
        ((), False, "earlier_pending"),
        ((row(EARLIER, "rolled back"),), False, "earlier_pending"),
        ((row(OURS, "applied"),), True, "applied"),  # what else is pending is not this plan's matter any more
        ((row(EARLIER, "failed"),), False, "earlier_failed"),
        ((DONE, row(LATER, "failed")), False, "earlier_failed"),  # any failed row stops every deploy
        ((DONE, row(OURS, "rolled back"), row(LATER, "failed")), False, "earlier_failed"),
        ((row(EARLIER, "failed"), row(OURS, "failed")), False, "failed"),
        ((DONE, row("20251120_elsewhere", "applied")), False, "ahead"),
        ((row("20251120_elsewhere", "applied"),), False, "ahead"),  # before what is pending
        ((row(EARLIER, "failed"), row("20251120_elsewhere", "applied")), False, "earlier_failed"),
        ((DONE, row("20251120_elsewhere", "rolled back")), False, "pending"),
        ((DONE, row("20251120_elsewhere", "applied"), row(OURS, "applied")), True, "applied"),  # not this plan's matter
    ],
)
def test_verdict(history: tuple[Row, ...] | None, indexes_exact: bool | None, expected: str) -> None:
    verdict = migration_history.judge(history, MIGRATIONS, OURS, indexes_exact)
    assert verdict.verdict == expected
    assert verdict.repair
    if expected in ("pending", "rolled_back"):
        migration_history.require_deployable(verdict, OURS)
    else:
        with pytest.raises(OperatorError, match=expected) as stop:
            migration_history.require_deployable(verdict, OURS)
        assert stop.value.next_step == migration_history.repair_in(verdict, None)


def test_what_a_deploy_would_apply_and_what_stops_it() -> None:
    verdict = migration_history.judge((DONE, row(OURS, "rolled back"), row(LATER, "failed")), MIGRATIONS, OURS, False)
    assert verdict.pending == (OURS, LATER)
    assert verdict.failed == (LATER,)
    assert verdict.row == row(OURS, "rolled back")
    commands = migration_history.repair_in(verdict, "/srv/release")
    assert f"cd /srv/release && node_modules/.bin/prisma migrate resolve --rolled-back {LATER};" in commands


def test_indexes_built_by_hand_ask_for_another_repair() -> None:
    assert "are there already" in migration_history.judge((DONE,), MIGRATIONS, OURS, True).repair
    assert migration_history.judge((DONE,), MIGRATIONS, OURS, False).repair.startswith("none")


def test_without_a_release_the_history_is_believed() -> None:
    edited = (row(OURS, "applied", checksum="of another file"),)
    assert migration_history.judge(edited, None, OURS, True).verdict == "applied"
    assert migration_history.judge((), None, OURS, False).verdict == "pending"
    assert migration_history.judge((), None, OURS, False).pending == (OURS,)


def test_a_release_without_the_migration_is_named() -> None:
    with pytest.raises(OperatorError, match=f"holds no migration {OURS}"):
        migration_history.judge((), (Migration(EARLIER, "sha"),), OURS, False)


def test_the_checksum_is_that_of_the_file(tmp_path: Path) -> None:
    for name in (LATER, EARLIER):
        (tmp_path / "prisma/migrations" / name).mkdir(parents=True)
        (tmp_path / "prisma/migrations" / name / "migration.sql").write_bytes(f"-- {name}\r\n".encode())
    (tmp_path / "prisma/migrations/migration_lock.toml").write_text("provider = 'postgresql'")

    found = files.read_migrations(tmp_path)
    assert found is not None
    assert [(migration.name, migration.sha256) for migration in found] == [
        (name, hashlib.sha256(f"-- {name}\r\n".encode()).hexdigest()) for name in (EARLIER, LATER)
    ]
    with pytest.raises(OperatorError, match="holds no migration"):
        files.read_migrations(tmp_path / "prisma")


def test_what_prisma_would_stop_at_is_found_before(tmp_path: Path) -> None:
    """P3015 and P3019, which it says only when it is to deploy."""
    directory = tmp_path / "prisma/migrations"
    (directory / OURS).mkdir(parents=True)
    (directory / OURS / "migration.sql").write_text("")
    (directory / "20990101_empty").mkdir()
    with pytest.raises(OperatorError, match=r"has no migration\.sql in 20990101_empty"):
        files.read_migrations(tmp_path)
    (directory / "20990101_empty").rmdir()
    (directory / "migration_lock.toml").write_text('# provider = "x"\nprovider = "mysql"\n')
    with pytest.raises(OperatorError, match="names the provider mysql"):
        files.read_migrations(tmp_path)


@pytest.mark.parametrize("content", [b"SELECT 1;\nSELECT 2;\n", b"SELECT 1;\r\nSELECT 2;\r\n"])
def test_other_line_endings_are_no_edit_as_prisma_sees_it(content: bytes) -> None:
    ours = files.migration_of(OURS, content)
    other = content.replace(b"\r\n", b"\n") if b"\r" in content else content.replace(b"\n", b"\r\n")
    for recorded, verdict in ((content, "applied"), (other, "applied"), (content + b"--", "edited")):
        checksum = hashlib.sha256(recorded).hexdigest()
        assert migration_history.judge([row(OURS, "applied", 0, checksum)], [ours], OURS, True).verdict == verdict


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("SELECT 1".encode("utf-16"), "is UTF-16"),
        ("SELECT 1".encode("utf-16-le"), "has NUL characters"),
        ("SELECT 1".encode("utf-8-sig"), "begins with a byte order mark"),
        ("SELECT 'é'".encode("latin-1"), "is not UTF-8"),
    ],
)
def test_a_script_that_nobody_can_read_is_refused(content: bytes, fault: str) -> None:
    with pytest.raises(OperatorError, match=fault):
        files.decode(content, OURS)
    assert files.decode("SELECT 'é'".encode(), OURS) == "SELECT 'é'"


def test_the_documents_table_has_the_same_verdicts() -> None:
    """In the order of precedence, which the cases above pin down."""
    text = (Path(__file__).parents[2] / "docs/prisma-history.md").read_text()
    documented = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert len(documented) == len(set(documented))
    assert set(documented) == set(migration_history._REPAIRS)


def test_a_database_ahead_of_the_release_is_named() -> None:
    ahead = row("20251120_of_another_branch", "applied")
    verdict = migration_history.judge((DONE, ahead), MIGRATIONS, OURS, False)
    assert (verdict.verdict, verdict.unknown) == ("ahead", ("20251120_of_another_branch",))
    with pytest.raises(OperatorError, match="not in this release: 20251120_of_another_branch"):
        migration_history.require_deployable(verdict, OURS)
    assert (
        migration_history.judge((DONE, ahead), None, OURS, False).verdict == "pending"
    )  # without a release nothing is unknown


def test_the_repair_by_hand_names_the_migration() -> None:
    verdict = migration_history.judge((DONE, row("it's ours", "applied")), None, "it's ours", False)
    assert "SET rolled_back_at = now() WHERE migration_name = 'it''s ours'" in verdict.repair
