"""The files of a chosen candidate, as text: the plan, its migration, and a comment for Prisma's schema."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import OperatorError
from ..findings import observed, say
from ..indexes import definitions
from ..plan import parse
from ..postgres.connection import Connection
from . import statuses
from .candidates import Candidate
from .catalog_facts import Table

_ID = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST_NAME = 63  # bytes of a name in PostgreSQL
# When a row began or was made: of a group, the one with the latest stays. The first that the table has.
_MOMENTS = (
    "started_at",
    "opened_at",
    "created_at",
    "inserted_at",
    "created",
    "created_on",
    "updated_at",
    "modified_at",
)
_TIMES = ("timestamptz", "timestamp", "date")
_PLAIN = re.compile(r"[A-Za-z_][\w-]*")
_YAML_WORDS = frozenset(("true", "false", "yes", "no", "on", "off", "null", "y", "n"))


@dataclass(frozen=True)
class Files:
    """What is to be written, and where: the plan by its id, the migration below prisma/migrations/."""

    plan_id: str
    plan: str
    migration: str  # the directory's name
    migration_sql: str
    schema_hint: str

    def by_path(self) -> dict[str, str]:
        """The texts by their paths below plans/. A directory of the plan's name holds what the application gets."""
        return {
            f"{self.plan_id}.yml": self.plan,
            f"{self.plan_id}/prisma/migrations/{self.migration}/migration.sql": self.migration_sql,
            f"{self.plan_id}/schema.prisma.txt": self.schema_hint,
        }


def require_id(plan_id: str) -> None:
    """Raise OperatorError unless this can be the name of a plan and of its files."""
    if not _ID.fullmatch(plan_id) or len(plan_id) > _LONGEST_NAME:
        raise OperatorError(
            observed("AMO-2508", "discover_plan_id is {plan_id}.", plan_id=repr(plan_id)),
            expected=say("small letters, digits and hyphens, 63 at most, such as one-open-order-per-customer."),
            next_step=say("name the plan with -e discover_plan_id=one-open-order-per-customer."),
        )


def suggested_id(candidate: Candidate) -> str:
    """A name for the candidate's plan, of what its table's and its key's names have in small letters and digits."""
    said = ["one", *statuses.words(candidate.table.name), "per"]
    said += [word for name in candidate.key.columns for word in statuses.words(name)]
    plan_id = "-".join(filter(None, (re.sub(r"[^a-z0-9]", "", word) for word in said)))
    return plan_id[:_LONGEST_NAME].rstrip("-")


def index_names(candidate: Candidate) -> list[str]:
    """Names for the rule's index, the first of which is to be taken unless something has it already."""
    table, condition = candidate.table, candidate.condition
    stem = "_".join(["one", table.name, "per", *candidate.key.columns, condition.kind])
    return [_short(stem if number == 1 else f"{stem}_{number}") for number in range(1, 10)]


def files(connection: Connection, candidate: Candidate, plan_id: str, index: str, when: str) -> Files:
    """The texts for the candidate; the plan is one that :func:`at_most_one.plan.parse` accepts."""
    content = data(candidate, plan_id, index, when)
    plan = parse(content)
    title = content["title"]["en"]
    statement = definitions.create_statement(plan.rule_index, plan.schema).as_string(connection)
    return Files(
        plan_id,
        _plan_text(content, candidate),
        plan.migration,
        f"-- {title}. Existing duplicates must be gone before: this stops at the first one.\n{statement};\n",
        _schema_hint(candidate.table, title, plan.migration),
    )


def data(candidate: Candidate, plan_id: str, index: str, when: str) -> dict[str, Any]:
    """The plan as the mapping that its file holds."""
    table, condition, count = candidate.table, candidate.condition, candidate.count
    key, moment = list(candidate.key.columns), _moment(table)
    keep = {"column": moment or table.primary_key[0], "direction": "desc", "nulls": "last"}
    surplus: dict[str, Any] = {"action": "delete", "references": "stop"}
    if condition.leaving:
        surplus = {"action": "update", "values": dict(condition.leaving)}
    title = {
        "en": f"At most one row of {table.name} where {condition.sql} per {', '.join(key)}",
        "ko": f"{table.name}에서 {condition.sql} 조건의 행은 {', '.join(key)}별 최대 1개",
    }
    return {
        "id": plan_id,
        "title": {
            language: " ".join(text.split()) for language, text in title.items()
        },  # one line: it is a comment too
        "schema": table.schema,
        "table": table.name,
        "primary_key": list(table.primary_key),
        "key": key,
        "predicate": condition.sql,
        "keep": [keep],
        "show": [*dict.fromkeys(name for name in (condition.column, moment) if name)],
        "surplus": surplus,
        "expected": {"groups": count.groups or 0, "rows": count.surplus or 0},
        "ceiling": max(10, 2 * (count.surplus or 0)),
        "indexes": [{"name": index, "unique": True, "columns": key, "predicate": condition.sql}],
        "family": {"pattern": f"^{re.escape(index)}"},
        "migration": f"{when}_{plan_id.replace('-', '_')}",
    }


def _moment(table: Table) -> str | None:
    said = {"_".join(statuses.words(name)): name for name, column in table.columns.items() if column.type in _TIMES}
    return next((said[name] for name in _MOMENTS if name in said), None)


def _short(name: str) -> str:
    """The name, in as many bytes as PostgreSQL keeps; a hash tells those apart that begin alike."""
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    end = "_" + hashlib.sha256(name.encode()).hexdigest()[:8]
    return name.encode()[: _LONGEST_NAME - len(end)].decode(errors="ignore") + end


def _plan_text(content: Mapping[str, Any], candidate: Candidate) -> str:
    """The plan's file: JSON's texts are YAML's too, and what is plainly a word stands without quotes."""
    keep, surplus, index = content["keep"][0], content["surplus"], content["indexes"][0]
    referring = ", ".join(f"{one['table']} by {one['constraint']}" for one in candidate.table.references)
    review = [
        "# Written by discover.yml. Review keep, surplus and ceiling; plans/README.md describes every key.",
        *([f"# Foreign keys to this table: {referring}."] if referring else []),
        *([f"# Triggers of this table: {', '.join(candidate.table.triggers)}."] if candidate.table.triggers else []),
    ]
    lines = [
        "---",
        "# yaml-language-server: $schema=schema.json",
        *review,
        f"id: {_scalar(content['id'])}",
        "title:",
        *(f"  {language}: {_scalar(text)}" for language, text in content["title"].items()),
        "",
        f"schema: {_scalar(content['schema'])}",
        f"table: {_scalar(content['table'])}",
        f"primary_key: {_list(content['primary_key'])}",
        "",
        f"key: {_list(content['key'])}",
        f"predicate: {_scalar(content['predicate'])}",
        "",
        "# Of each group, the row that is first in this order stays.",
        "keep:",
        f"  - {{column: {_scalar(keep['column'])}, direction: {keep['direction']}, nulls: {keep['nulls']}}}",
        f"show: {_list(content['show'])}",
        "",
        "surplus:",
        f"  action: {surplus['action']}",
        *([f"  references: {surplus['references']}"] if "references" in surplus else []),
        *(["  values:"] if "values" in surplus else []),
        *(f"    {_scalar(name)}: {_scalar(value)}" for name, value in surplus.get("values", {}).items()),
        "",
        "# As it was counted. More stops a run.",
        f"expected: {{groups: {content['expected']['groups']}, rows: {content['expected']['rows']}}}",
        f"ceiling: {content['ceiling']}",
        "",
        "indexes:",
        f"  - name: {_scalar(index['name'])}",
        "    unique: true",
        f"    columns: {_list(index['columns'])}",
        f"    predicate: {_scalar(index['predicate'])}",
        "",
        "family:",
        f"  pattern: {_scalar(content['family']['pattern'])}",
        "",
        f"migration: {_scalar(content['migration'])}",
    ]
    return "\n".join(lines) + "\n"


def _scalar(text: str) -> str:
    return text if _PLAIN.fullmatch(text) and text.lower() not in _YAML_WORDS else json.dumps(text, ensure_ascii=False)


def _list(names: list[str]) -> str:
    return f"[{', '.join(map(_scalar, names))}]"


def _schema_hint(table: Table, title: str, migration: str) -> str:
    """A comment to put above the table's model: a condition cannot be said in schema.prisma."""
    return (
        f"// {title}:\n"
        f"// a partial unique index, which migration {migration} builds and schema.prisma cannot say.\n"
        f"// It belongs above the model of {table.schema}.{table.name}. An @@unique in its place would have no\n"
        "// condition, and refuse the rows outside it as well.\n"
    )
