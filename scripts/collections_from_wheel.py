#!/usr/bin/env python3
"""Take a few collections out of the `ansible` package's wheel, so that neither Galaxy nor the other hundred are needed.

    collections_from_wheel.py WHEEL_DIRECTORY REQUIREMENTS_YML DESTINATION

The wheel was fetched and checked against its hash by pip. Which collections, and that their versions agree with
requirements.yml, is read from that file, whose every version is exact.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import zipfile
from pathlib import Path

PACKAGE = "ansible_collections"


def wanted(requirements: str) -> dict[str, str]:
    """Collection names and their versions. The file is our own and simple: no YAML parser is needed for it."""
    return dict(re.findall(r'- name: ([\w.]+)\n\s+version: "?==?([\d.]+)"?', requirements))


def extract(wheel: zipfile.ZipFile, name: str, version: str, destination: Path) -> None:
    """Put one collection in place, whole or not at all."""
    prefix = f"{PACKAGE}/{name.replace('.', '/')}/"
    carried = json.loads(wheel.read(f"{prefix}MANIFEST.json"))["collection_info"]["version"]
    if carried != version:
        raise SystemExit(
            f"The ansible package carries {name} {carried}. Expected: {version}, as requirements.yml says. "
            "Next: write the carried version there."
        )
    target = destination / prefix
    partial = destination / f"{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    wheel.extractall(partial, [entry for entry in wheel.namelist() if entry.startswith(prefix)])
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    (partial / prefix).rename(target)
    shutil.rmtree(partial)


def main(arguments: list[str]) -> int:
    """The command line."""
    wheels, requirements, destination = map(Path, arguments)
    collections = wanted(requirements.read_text(encoding="utf-8"))
    if not collections:
        raise SystemExit(f"{requirements} names no collection with an exact version.")
    with zipfile.ZipFile(next(wheels.glob("ansible-*.whl"))) as wheel:
        for name, version in collections.items():
            extract(wheel, name, version, destination)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
