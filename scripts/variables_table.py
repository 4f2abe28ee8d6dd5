"""Write the table of variables in README.md from the roles' argument_specs; with --check, fail if it is out of date."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BEGIN = "<!-- variables: generated from roles/*/meta/argument_specs.yml by `make docs` -->\n"
END = "<!-- end of variables -->"


def table() -> str:
    """One table per role, in the order of the phases; then the roles that are no phase."""
    order = ["run", "prepare", "cleanup", "migrate", "verify", "pm2_reload", "healthcheck", "rollback", "report"]
    others = {path.parent.parent.name for path in ROOT.glob("roles/*/meta/argument_specs.yml")} - {*order}
    parts = []
    for role in [*order, *sorted(others)]:
        spec = yaml.safe_load((ROOT / f"roles/{role}/meta/argument_specs.yml").read_text(encoding="utf-8"))
        entry = spec["argument_specs"]["main"]
        rows = [f"| `{name}` | {_default(option)} | {_text(option)} |" for name, option in entry["options"].items()]
        parts.append(
            f"**{role}**: {entry['short_description'].lower()}\n\n| variable | default | what |\n|---|---|---|\n"
        )
        parts.append("\n".join(rows) + "\n\n")
    return "<details><summary>All variables</summary>\n\n" + "".join(parts) + "</details>\n"


def _default(option: dict[str, Any]) -> str:
    if "default" not in option:
        return ""
    value = yaml.safe_dump(option["default"], default_flow_style=True, width=1000, allow_unicode=True)
    return f"`{value.removesuffix('...' + chr(10)).strip()}`"


def _text(option: dict[str, Any]) -> str:
    choices = f" One of {', '.join(map(str, option['choices']))}." if "choices" in option else ""
    return f"{option['description']}{choices}".replace("|", "\\|")


def main() -> int:
    """Replace what stands between the two markers."""
    old = README.read_text(encoding="utf-8")
    head, rest = old.split(BEGIN, 1)
    new = head + BEGIN + "\n" + table() + "\n" + END + rest.split(END, 1)[1]
    if "--check" in sys.argv:
        if new != old:
            print(
                "README.md: the table of variables is out of date. Expected: what argument_specs say. Next: make docs"
            )
        return int(new != old)
    README.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
