"""The turns of a rehearsal (forward, back, forward again), and its evidence as it grows with each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import OperatorError
from ..findings import joined, observed, say
from ..plan import Plan
from ..verdicts import difference, word


@dataclass(frozen=True)
class Turn:
    """One turn: how its run has to end, and which state it has to bring back."""

    name: str
    outcome: str
    same_as: str = ""  # the name of an earlier state; the first way forward makes a new one


TURNS = (Turn("forward", "deployed"), Turn("back", "rolled_back", "before"), Turn("again", "deployed", "forward"))


@dataclass(frozen=True)
class Beginning:
    """What is known of a rehearsal when it begins."""

    environment: str
    hosts: Sequence[str]
    who: str
    controller: str
    tool: str  # the version of this project
    commit_before: str
    commit_after: str
    clone: Mapping[str, Any]  # what the database was cloned from; empty unless it was


def begin(plan: Plan, beginning: Beginning, state: Mapping[str, Any], now: str) -> dict[str, Any]:
    """The evidence before the first turn. ``state`` is what was found (digests.State.kept), ``now`` an ISO 8601 time.

    Raises OperatorError where every planned index is there already: then no turn would do anything.
    """
    if len(state["schema"]["usable_indexes"]) >= len(plan.indexes):
        reason = say(", because the source of the clone has") if beginning.clone else ""
        raise OperatorError(
            observed(
                "AMO-2409",
                "{environment} has every planned index{reason}: there is nothing to rehearse.",
                environment=beginning.environment,
                reason=reason,
            ),
            expected=say("a database as production's is before the deployment."),
            next_step=say("clone from before it, or rehearse the plan that comes next."),
        )
    return {
        "rehearsal_id": f"{now}-{beginning.environment}",
        "plan": {"id": plan.id, "sha256": plan.sha256},
        "commit": {"before": beginning.commit_before, "after": beginning.commit_after},
        "environment": beginning.environment,
        "hosts": list(beginning.hosts),
        "who": beginning.who,
        "controller": beginning.controller,
        "tool": beginning.tool,
        "began_at": now,
        "ended_at": now,
        "outcome": "unfinished",
        "turns": [],
        "recovery_seconds": 0,
        "states": {"before": state},
        "differences": [],
        "clone": dict(beginning.clone),
    }


def next_turn(evidence: Mapping[str, Any], run_id: str, outcome: str | None) -> Turn:
    """The turn that a run was. Raises OperatorError unless the journal has the outcome that this turn needs."""
    done = len(evidence["turns"])
    if done >= len(TURNS):
        raise OperatorError(
            observed(
                "AMO-2410",
                "The rehearsal {rehearsal_id} has had its {turns} turns.",
                rehearsal_id=evidence["rehearsal_id"],
                turns=len(TURNS),
            ),
            expected=say("a rehearsal that goes on."),
            next_step=say("begin another one: ansible-playbook rehearse.yml -l <environment>"),
        )
    turn = TURNS[done]
    if outcome != turn.outcome:
        raise OperatorError(
            observed(
                "AMO-2411",
                "The turn {turn} ended as {outcome} (run {run_id}): nothing was rehearsed by it.",
                turn=word(turn.name),
                outcome=word(outcome) if outcome else say("no closed run"),
                run_id=run_id,
            ),
            expected=say("{outcome}.", outcome=word(turn.outcome)),
            next_step=say(
                "read artifacts/{environment}/{run_id}/report.html.", environment=evidence["environment"], run_id=run_id
            ),
        )
    return turn


def with_turn(
    evidence: Mapping[str, Any],
    turn: Turn,
    run: Mapping[str, Any],
    state: Mapping[str, Any],
    differences: Sequence[str],
    now: str,
) -> dict[str, Any]:
    """The evidence with one turn more, the state that it has left and how that differs from the one to bring back.

    The last turn decides the outcome: passed, or failed where any turn has left a difference.
    """
    phases = [{key: phase[key] for key in ("name", "status", "seconds")} for phase in run["phases"]]
    times = {"seconds": run["seconds"], "phases": phases}
    found = [*evidence["differences"], *(f"{turn.name} is not as {turn.same_as}: {line}" for line in differences)]
    grown = {
        **evidence,
        "ended_at": now,
        "turns": [*evidence["turns"], {"name": turn.name, "run_id": run["run_id"], "outcome": run["outcome"], **times}],
        "states": {**evidence["states"], turn.name: state},
        "differences": found,
    }
    if turn.outcome == "rolled_back":
        grown["recovery_seconds"] = run["seconds"]
    else:
        grown["commit"] = {**evidence["commit"], "after": run["commit_after"] or ""}  # none without an application
    if turn is TURNS[-1]:
        grown["outcome"] = "failed" if found else "passed"
    return grown


def require_no_difference(evidence: Mapping[str, Any]) -> None:
    """Raise OperatorError where the rehearsal has ended and a turn has left what it should not."""
    if evidence["outcome"] == "failed":
        raise OperatorError(
            observed(
                "AMO-2412",
                "The rehearsal went all the way, and something is different: {differences}.",
                differences=joined(map(difference, evidence["differences"])),
            ),
            expected=say("after the way back everything as before, after both ways forward the same."),
            next_step=say(
                "find out whose these are; if somebody works in {environment} meanwhile, rehearse without them.",
                environment=evidence["environment"],
            ),
        )
