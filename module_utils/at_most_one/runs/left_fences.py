"""Write fences that no run is at work behind and no plan asks for: its file is gone, or names another table by now.

A plan finds its fence on its own table and by the name, which is made of its id. The journal knows the ids of all.
"""

from __future__ import annotations

from ..findings import Finding, observed, say
from ..indexes import on_partitions
from ..plan import Plan
from ..postgres.connection import Connection
from ..postgres.fence_names import PATTERN, name_of
from ..postgres.own_schema import exists
from . import journal

_FENCES = """
SELECT n.nspname::text, c.relname::text, i.relname::text
FROM pg_catalog.pg_index AS x JOIN pg_catalog.pg_class AS i ON i.oid = x.indexrelid
JOIN pg_catalog.pg_class AS c ON c.oid = x.indrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE i.relname ~ %s AND c.relpersistence <> 't' ORDER BY 1, 2, 3"""


def read(connection: Connection, plan: Plan | None = None) -> list[Finding]:
    """A finding for each, with the command that drops it; without that of ``plan`` on its table, which it finds."""
    with connection.cursor() as cursor:
        cursor.execute(_FENCES, (PATTERN,))
        fences = cursor.fetchall()
        plans: dict[str, str] = {}
        if fences and exists(connection):
            cursor.execute("SELECT DISTINCT plan_id FROM at_most_one.run")
            plans = {name_of(plan_id): plan_id for (plan_id,) in cursor.fetchall()}
    found = []
    for schema, table, index in fences:
        plan_id = plans.get("_".join(index.split("_")[:5]), "")  # without the number of a later one
        if plan is not None and (plan_id, schema, table) == (plan.id, plan.schema, plan.table):
            continue
        last = next(iter(journal.read(connection, plan_id=plan_id, limit=1)), None) if plan_id else None
        if last is None or last["outcome"] is not None or last["dead_since"] is not None:
            drop = on_partitions.drop_step(connection, index, table, schema).statement.as_string(connection)
            run_id = last["run_id"] if last else ""
            found.append(_finding(f"{schema}.{table}", f"{schema}.{index}", drop, plan_id, run_id))
    return found


def _finding(table: str, index: str, drop: str, plan_id: str, run_id: str) -> Finding:
    known = say("plan {plan_id}, whose last run is {run_id}", plan_id=plan_id, run_id=run_id)
    return Finding(
        f"fence:{index}",
        observed(
            "AMO-2231",
            "The write fence {index} is up on {table}, and no run is at work behind it: it is of {plan}.",
            index=index,
            table=table,
            plan=known if plan_id else say("a plan that the journal does not know"),
        ),
        say("a fence only while a run is at work: it refuses new duplicates of a rule that is not deployed."),
        say(
            "ansible-playbook deploy.yml -l <environment> -e plan={plan_id} goes on from what is there; where the"
            " plan's file is gone or names another table, by hand: {drop}; archived rows can return once the file is"
            " as it was.",
            plan_id=plan_id,
            drop=drop,
        )
        if plan_id
        else say("by hand: {drop};", drop=drop),
    )
