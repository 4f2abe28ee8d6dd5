"""The script behind `make test-packages`: what it cannot install it names, and the suites that need it do not begin."""

from __future__ import annotations

import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts/test_packages.sh"


def run(directory: Path, *pairs: str) -> tuple[int, str]:
    """With no other program in PATH than those of the directory; so nothing is installed."""
    done = subprocess.run(
        ["/bin/sh", str(SCRIPT), *pairs], env={"PATH": str(directory)}, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stderr


def test_what_is_missing_is_named_by_its_package_and_what_is_there_is_not(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("#!/bin/sh\n")
    (tmp_path / "there").chmod(0o755)
    assert run(tmp_path, "there:package-of-it", f"{tmp_path}/there:package-of-it") == (0, "")

    code, said = run(tmp_path, "there:package-of-it", f"{tmp_path}/systemd:systemd", "not-there:another")
    assert code == 1
    assert "The tests need the system packages systemd another, which are not there" in said
    assert "Next: install them (apt-get install systemd another)." in said
    assert "package-of-it" not in said
