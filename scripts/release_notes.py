#!/usr/bin/env python3
"""Print what CHANGELOG.md says of a version: release_notes.py VERSION

Fails where there is no section of that version, or where pyproject.toml's collection has another one.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def notes(version: str, root: Path = ROOT) -> str:
    built = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["collection"]["version"]
    if version != built:
        raise SystemExit(
            f"The tag says {version}, pyproject.toml says {built}. Expected: the same. Next: correct one of the two."
        )
    sections = re.split(r"^## ", (root / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    found = {section.split(maxsplit=1)[0]: section.partition("\n")[2].strip() for section in sections}
    if not found.get(version):
        raise SystemExit(
            f"CHANGELOG.md has no section {version}, but {', '.join(found) or 'none at all'}. Expected: what this "
            "version brings. Next: write it, then tag again."
        )
    return found[version] + "\n"


if __name__ == "__main__":
    sys.stdout.write(notes(sys.argv[1]))
