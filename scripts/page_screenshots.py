#!/usr/bin/env python3
"""Pictures of pages as a phone and a desk show them: page_screenshots.py OUTPUT [NAME=PAGE.html ...] [--height PIXELS]

Without a page: the lab's newest report of each outcome and language, and its dashboard, of artifacts/local.
Needs chromium and Pillow (of requirements/dev.txt). No network; a page that writes to the console fails.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

LAB = Path(__file__).parents[1] / "artifacts/local"
WIDTHS = {"phone": 360, "desk": 1100}
TALLEST = 8000  # pixels; what a page does not fill is cut off
QUIET = (
    *(
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
    ),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars", "--enable-logging=stderr"),
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


def shoot(page: Path, picture: Path, width: int, height: int) -> None:
    """One picture. Raises RuntimeError when the browser fails or the page writes to its console."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        raise RuntimeError("chromium is not installed. Expected: it on PATH. Next: apt-get install -y chromium")
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, *QUIET, f"--user-data-dir={profile}", f"--window-size={width},{height}"]
        command += [f"--screenshot={picture}", page.resolve().as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)  # noqa: S603 (a browser)
    if done.returncode or not picture.exists() or "CONSOLE" in done.stderr:
        raise RuntimeError(f"{page}: {done.stderr.strip()}")


def trim(picture: Path, height: int) -> None:
    """Cut what the page does not fill and what is below ``height``; few colours keep the file small."""
    image = Image.open(picture).convert("RGB")
    ground = Image.new("RGB", image.size, image.getpixel((0, 0)))
    box = ImageChops.difference(image, ground).getbbox() or (0, 0, *image.size)
    image = image.crop((0, 0, image.width, min(box[3] + 24, height)))
    image.quantize(160).save(picture, optimize=True)


def of_the_lab() -> dict[str, Path]:
    """The pages by outcome and language, such as deployed-en. Raises RuntimeError when the lab has none."""
    found = {}
    for report in sorted(LAB.glob("*T*Z-*/report.json")):  # a run's id begins with its time
        page = report.with_suffix(".html")
        document = json.loads(report.read_text(encoding="utf-8"))
        if not document["check_mode"]:
            found[f"{document['outcome']}-{_language(page)}"] = page
    dashboard = LAB / "monitor/index.html"
    if dashboard.exists():
        found[f"monitor-{_language(dashboard)}"] = dashboard
    if not found:
        raise RuntimeError(f"{LAB} has no report. Expected: one of the lab's. Next: make demo, then monitor.yml")
    return found


def _language(page: Path) -> str:
    named = re.search('<html lang="([a-z]+)"', page.read_text(encoding="utf-8"))
    return named[1] if named else "en"


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("pages", nargs="*")
    parser.add_argument("--height", type=int, default=TALLEST)
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    pages = dict(pair.split("=", 1) for pair in options.pages) or of_the_lab()
    for name, page in pages.items():
        for device, width in WIDTHS.items():
            picture = options.output / f"{name}-{device}.png"
            shoot(Path(page), picture, width, TALLEST)
            trim(picture, options.height)
            print(f"{os.path.relpath(picture)} {picture.stat().st_size // 1024} KB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
