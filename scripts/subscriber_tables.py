#!/usr/bin/env python3
"""Print the SQL of every table of the schema at_most_one, for the subscribers of a publication that carries them.

A subscriber stops at the first change of a table that it does not have. What is there already stays as it is.
"""

from __future__ import annotations

import sys
from pathlib import Path


def statements() -> list[str]:
    """The statements that the runs themselves create these tables by."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))
    from at_most_one.postgres import own_schema

    return own_schema.definition()


if __name__ == "__main__":
    print("BEGIN;", *(f"{statement.strip()};" for statement in statements()), "COMMIT;", sep="\n")
