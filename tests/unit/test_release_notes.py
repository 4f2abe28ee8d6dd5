"""A release says what its version brings, and nothing is released without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.release_notes import notes

CHANGES = (
    "# Changelog\n\n## Unreleased\n\n- later\n\n## 1.1.0 (2025-11-10)\n\n### Deploy\n\n- new\n\n## 1.0.0\n\n- old\n"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text('[tool.collection]\nversion = "1.1.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGES)
    return tmp_path


def test_the_notes_are_the_versions_own_section(root: Path) -> None:
    assert notes("1.1.0", root) == "### Deploy\n\n- new\n"


def test_another_version_than_the_collections_is_refused(root: Path) -> None:
    with pytest.raises(SystemExit, match=r"The tag says 1\.0\.0, pyproject\.toml says 1\.1\.0"):
        notes("1.0.0", root)


def test_a_version_without_a_section_is_refused(root: Path) -> None:
    (root / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n- later\n")
    with pytest.raises(SystemExit, match=r"no section 1\.1\.0, but Unreleased"):
        notes("1.1.0", root)
