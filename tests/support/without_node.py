"""A PATH on which nothing of Node.js is found, and everything else that the machine has."""

from __future__ import annotations

import os
from pathlib import Path

NAMES = ("node", "nodejs", "npm", "npx", "pm2", "prisma", "corepack")


def path(directory: Path) -> str:
    """PATH as it is; a directory that holds one of these programs is replaced by links to its others."""
    places = []
    for number, place in enumerate(dict.fromkeys(os.environ["PATH"].split(os.pathsep))):
        if not any((Path(place) / name).exists() for name in NAMES):
            places.append(place)
            continue
        links = directory / str(number)
        links.mkdir(parents=True)
        for program in Path(place).iterdir():
            if program.name not in NAMES:
                (links / program.name).symlink_to(program)
        places.append(str(links))
    return os.pathsep.join(places)
