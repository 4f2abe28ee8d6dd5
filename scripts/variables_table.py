"""Write docs/variables.md from the roles' argument_specs; with --check, fail if it is out of date."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/variables.md"
HEAD = """# Every variable

<!-- Generated from roles/*/meta/argument_specs.yml by `make docs`. -->

Read it when you want to set a variable: its default and its consequence. Set it in the inventory
(`group_vars/<environment>/main.yml`) or for one run with `-e`. What has to be filled in first:
[deploy.md](deploy.md#fill-in).

"""


def page() -> str:
    """One table per role, in the order of the phases; then the roles that are no phase."""
    order = ["run", "prepare", "cleanup", "migrate", "verify", "pm2_reload", "healthcheck", "rollback", "report"]
    others = {path.parent.parent.name for path in ROOT.glob("roles/*/meta/argument_specs.yml")} - {*order}
    parts = []
    for role in [*order, *sorted(others)]:
        spec = yaml.safe_load((ROOT / f"roles/{role}/meta/argument_specs.yml").read_text(encoding="utf-8"))
        entry = spec["argument_specs"]["main"]
        rows = [f"| `{name}` | {_default(option)} | {_text(option)} |" for name, option in entry["options"].items()]
        title = entry["short_description"]
        parts.append(f"## {role}\n\n{title[0].upper()}{title[1:]}.\n\n| variable | default | what |\n|---|---|---|\n")
        parts.append("\n".join(rows) + "\n\n")
    return HEAD + "".join(parts).rstrip() + "\n"


def _default(option: dict[str, Any]) -> str:
    if "default" not in option:
        return ""
    value = yaml.safe_dump(option["default"], default_flow_style=True, width=1000, allow_unicode=True)
    return f"`{value.removesuffix('...' + chr(10)).strip()}`"


def _text(option: dict[str, Any]) -> str:
    choices = f" One of {', '.join(map(str, option['choices']))}." if "choices" in option else ""
    return f"{option['description']}{choices}".replace("|", "\\|")


def main() -> int:
    new, old = page(), PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    if "--check" in sys.argv:
        if new != old:
            print("docs/variables.md is out of date. Expected: what argument_specs say. Next: make docs")
        return int(new != old)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
