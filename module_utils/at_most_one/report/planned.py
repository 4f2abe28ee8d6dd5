"""Write the planned indexes as a person reads them: what is run is built from the plan elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def definitions(plan: Mapping[str, Any]) -> dict[str, str]:
    """Return the definition of each planned index by its name."""
    return {index["name"]: _definition(plan, index) for index in plan.get("indexes", [])}


def _definition(plan: Mapping[str, Any], index: Mapping[str, Any]) -> str:
    unique = "UNIQUE " if index.get("unique") else ""
    columns = ", ".join(_column(column) for column in index["columns"])
    text = f"CREATE {unique}INDEX {index['name']} ON {plan['schema']}.{index.get('table', plan['table'])}"
    text += f" USING {index.get('method', 'btree')} ({columns})"
    text += f" INCLUDE ({', '.join(index['include'])})" if index.get("include") else ""
    text += " NULLS NOT DISTINCT" if index.get("nulls_not_distinct") else ""
    return text + (f" WHERE {index['predicate']}" if index.get("predicate") else "")


def _column(column: str | Mapping[str, Any]) -> str:
    if isinstance(column, str):
        return column
    text = column.get("column") or f"({column.get('expression')})"
    text += f' COLLATE "{column["collation"]}"' if column.get("collation") else ""
    text += f" {column['opclass']}" if column.get("opclass") else ""
    text += f" {str(column['order']).upper()}" if column.get("order") else ""
    return str(text) + (f" NULLS {str(column['nulls']).upper()}" if column.get("nulls") else "")
