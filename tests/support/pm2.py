"""PM2 of the version that is tested."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from at_most_one.pm2 import client

ROOT = Path(__file__).resolve().parents[2]
PM2_VERSION = "7.0.4"


def find_or_install(directories: pytest.TempPathFactory) -> str:
    """The executable: PM2_BIN, the lab's, or one that is installed now."""
    lab = sorted(map(str, (ROOT / ".lab").glob("tools/**/node_modules/pm2/bin/pm2")))
    for candidate in filter(None, [os.environ.get("PM2_BIN"), *lab]):
        found = client.Pm2(candidate, "/nonexistent")
        if shutil.which(candidate) and client.executable_version(found) == PM2_VERSION:
            return candidate
    directory = directories.mktemp("pm2")
    install = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(directory), f"pm2@{PM2_VERSION}"]
    subprocess.run(install, check=True, capture_output=True, timeout=300)
    return str(directory / "node_modules" / "pm2" / "bin" / "pm2")
