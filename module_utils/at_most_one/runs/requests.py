"""What people ask of a run that is at work: to pause, to wait before the cutover, to go on, to end.

A request is a row of at_most_one.request that nobody changes again; what is in force follows from their order. So it
survives the controller, the journal says who asked when and from where, and who takes a run over reads them too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from psycopg2.extras import RealDictCursor

from ..errors import OperatorError
from ..findings import Phrase, joined, observed, say
from ..postgres.connection import Connection
from ..postgres.own_schema import exists, missing
from ..verdicts import word
from .run_status import dead_since, why_dead

# What each action sets or lifts; nothing lifts an abort.
_EFFECT = {
    "pause": ("pause", True),
    "resume": ("pause", False),
    "hold_cutover": ("hold_cutover", True),
    "continue": ("hold_cutover", False),
    "abort": ("abort", True),
}
LIFTED_BY = {"pause": "resume", "hold_cutover": "continue"}

_REQUESTS = """
SELECT action, who, controller, to_char(asked_at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS at
FROM at_most_one.request WHERE run_id = %s ORDER BY position"""
_WRITE = """
INSERT INTO at_most_one.request (run_id, position, action, who, controller)
SELECT %(run_id)s, coalesce(max(position), 0) + 1, %(action)s, %(who)s, %(controller)s
FROM at_most_one.request WHERE run_id = %(run_id)s"""
_INHERIT = """
INSERT INTO at_most_one.request (run_id, position, action, who, controller, asked_at)
SELECT %s, row_number() OVER (ORDER BY last.position), last.action, last.who, last.controller, last.asked_at
FROM (SELECT DISTINCT ON (action) * FROM at_most_one.request WHERE run_id = %s AND action = ANY (%s)
      ORDER BY action, position DESC) AS last"""
# The row's lock keeps two requests apart, and a take-over or a closing; the lease is renewed beside it once it is free.
_OPEN = """
SELECT r.run_id, r.who, r.controller, r.controller_pid, r.controller_process, r.outcome, r.progress,
       to_char(r.lease_until, 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS lease_until,
       to_char(r.lease_until - r.lease, 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS last_sign_at,
       r.lease_until < clock_timestamp() AS lease_expired
FROM at_most_one.run AS r WHERE r.plan_id = %s AND r.finished_at IS NULL"""
# Through jsonb, because an older journal has no numbers.
_LAST = """
SELECT run_id, outcome, to_char(finished_at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
FROM at_most_one.run AS r WHERE plan_id = %s
ORDER BY (to_jsonb(r) ->> 'number')::bigint DESC NULLS LAST, started_at DESC LIMIT 1"""


@dataclass(frozen=True)
class Request:
    """One request; ``controller`` is the machine that it came from, ``at`` the database's time, in UTC."""

    action: str
    who: str
    controller: str
    at: str

    def __str__(self) -> str:
        return str(self.phrase)

    @property
    def phrase(self) -> Phrase:
        """Who asked for it, for a person."""
        return say("{who} from {controller} at {at}", who=self.who, controller=self.controller, at=self.at)


@dataclass(frozen=True)
class Effective:
    """The request by which the run pauses, waits before the cutover or ends; ``None`` where nobody asks for it."""

    pause: Request | None = None
    hold_cutover: Request | None = None
    abort: Request | None = None

    def each(self) -> list[Request]:
        """Those that there are."""
        return [request for request in (self.pause, self.hold_cutover, self.abort) if request]


@dataclass(frozen=True)
class Answer:
    """What became of a request. ``request``: the one in force, or to be written; None where there was nothing to lift.

    ``sentence`` says it to a person.
    """

    run_id: str
    changed: bool
    request: Request | None
    sentence: Phrase


def in_force(requests: Iterable[Request]) -> Effective:
    """What is in force after all ``requests``, in their order."""
    found: dict[str, Request | None] = {}
    for request in requests:
        name, is_set = _EFFECT[request.action]
        found[name] = (found.get(name) or request) if is_set else None
    return Effective(**found)


def read(connection: Connection, run_id: str) -> list[Request]:
    """The requests of a run, in their order. The journal is of this release."""
    with connection.cursor() as cursor:
        cursor.execute(_REQUESTS, (run_id,))
        return [Request(*row) for row in cursor.fetchall()]


def described(connection: Connection, run_id: str) -> list[dict[str, str]]:
    """The requests that are in force of a run, as data."""
    return [asdict(request) for request in in_force(read(connection, run_id)).each()]


def write(connection: Connection, run_id: str, action: str, who: str, controller: str) -> None:
    """Write a request down. Needs the caller's commit."""
    with connection.cursor() as cursor:
        cursor.execute(_WRITE, {"run_id": run_id, "action": action, "who": who, "controller": controller})


def inherit(connection: Connection, run_id: str, from_run: str) -> None:
    """Let ``run_id``, which takes ``from_run`` over, pause and wait before the cutover as that one was asked to.

    An abort is not inherited: the run that it was meant for has ended. Needs the caller's commit.
    """
    asked = in_force(read(connection, from_run))
    actions = [request.action for request in (asked.pause, asked.hold_cutover) if request]
    with connection.cursor() as cursor:
        cursor.execute(_INHERIT, (run_id, from_run, actions))


def ask(connection: Connection, plan_id: str, action: str, who: str, controller: str, *, check: bool = False) -> Answer:
    """Ask the unfinished run of the plan for ``action``, unless it is in force already. Needs the caller's commit.

    ``check`` says what would come of it and writes nothing. Raises OperatorError where no run is open, where the open
    one reads no requests, and where it has been asked to end.
    """
    run = _open_run(connection, plan_id, lock=not check)
    run_id, dead = run["run_id"], why_dead(run)
    asked = in_force(read(connection, run_id))
    name, is_set = _EFFECT[action]
    there: Request | None = getattr(asked, name)
    if action == "abort" and dead and not there:
        raise _nothing_to_end(run, dead)
    if asked.abort and action != "abort":
        raise OperatorError(
            observed(
                "AMO-2221",
                "Run {run_id} was asked to end by {request}; nothing lifts that.",
                run_id=run_id,
                request=asked.abort.phrase,
            ),
            expected=say("a run that goes on."),
            next_step=say("wait until it has ended (control_action=status), then start again what is to be done."),
            run_id=run_id,
        )
    if bool(there) == is_set:
        return Answer(run_id, False, there, _unchanged(run_id, action, there, asked))
    if not check:
        write(connection, run_id, action, who, controller)
    asked_to = {"run_id": run_id, "action": _WORDS[action]}
    sentence = (
        say("Run {run_id} would be asked to {action}.", **asked_to)
        if check
        else say("Run {run_id} is asked to {action}.", **asked_to)
    )
    if dead:
        reads = say("It is dead ({reason}): the deployment that takes it over reads that.", reason=dead)
        sentence = joined([sentence, reads], " ")
    written = None if check else read(connection, run_id)[-1]
    return Answer(run_id, True, written or Request(action, who, controller, ""), sentence)


_WORDS = {
    "pause": say("pause at its next checkpoint"),
    "resume": say("go on where it pauses"),
    "hold_cutover": say("wait before the cutover"),
    "continue": say("go on with the cutover"),
    "abort": say("end at its next checkpoint"),
}


def _unchanged(run_id: str, action: str, there: Request | None, asked: Effective) -> Phrase:
    if there:
        return say(
            "Run {run_id} was already asked to {action}, by {request}.",
            run_id=run_id,
            action=_WORDS[action],
            request=there.phrase,
        )
    others = [one for one in asked.each() if LIFTED_BY.get(one.action) not in (None, action)]
    hints = [
        say(
            "It was asked to {action} by {request}: control_action={lifting} lifts that.",
            action=_WORDS[one.action],
            request=one.phrase,
            lifting=LIFTED_BY[one.action],
        )
        for one in others
    ]
    nothing = say("Nothing of run {run_id} is to be lifted by {action}.", run_id=run_id, action=action)
    return joined([nothing, *hints], " ")


def _open_run(connection: Connection, plan_id: str, *, lock: bool) -> dict[str, Any]:
    """The unfinished run of the plan, which reads requests."""
    is_there, is_current = exists(connection), not missing(connection)
    run: dict[str, Any] | None = None
    last: Sequence[Any] | None = None
    if is_there:
        with connection.cursor(cursor_factory=RealDictCursor) as cursor:
            # Through jsonb where an older release has written the journal: it may not have the column.
            statement = _OPEN if is_current else _OPEN.replace("r.progress", "to_jsonb(r) -> 'progress' AS progress")
            cursor.execute(statement + (" FOR NO KEY UPDATE" if lock and is_current else ""), (plan_id,))
            run = next((dict(row) for row in cursor.fetchall()), None)
        with connection.cursor() as cursor:
            cursor.execute(_LAST, (plan_id,))
            last = cursor.fetchone()
    if run is None:
        raise OperatorError(
            observed(
                "AMO-2222",
                "No run of plan {plan_id} is open: the last one, {run_id}, ended at {at} ({outcome}).",
                plan_id=plan_id,
                run_id=last[0],
                at=last[2],
                outcome=word(last[1]),
            )
            if last
            else observed("AMO-2223", "No run of plan {plan_id} is open: there has been none.", plan_id=plan_id),
            expected=say("a deployment that is at work."),
            next_step=say(
                "`ansible-playbook history.yml -l <environment>` shows the last runs; where another plan is at work,"
                " name it: -e plan=<its name>."
            ),
            plan=plan_id,
        )
    if not is_current or run["progress"] is None:
        raise OperatorError(
            observed(
                "AMO-2224",
                "Run {run_id} of plan {plan_id}, of {who} from {controller}, reads no requests.",
                run_id=run["run_id"],
                plan_id=plan_id,
                who=run["who"],
                controller=run["controller"],
            ),
            expected=say("a deployment. A rollback and a purge read none, nor does a run of an older release."),
            next_step=say(
                "wait for it: a rollback that stopped half-way would leave more to repair than it takes to end."
            ),
            run_id=run["run_id"],
        )
    return run


def _nothing_to_end(run: Mapping[str, Any], dead: str) -> OperatorError:
    return OperatorError(
        observed(
            "AMO-2225",
            "Run {run_id} is dead since {since} ({reason}): nobody is there to end it.",
            run_id=run["run_id"],
            since=dead_since(run),
            reason=dead,
        ),
        expected=say("a run that is at work."),
        next_step=say(
            "`ansible-playbook rollback.yml -l <environment>` takes back what it has reached,"
            " `ansible-playbook deploy.yml -l <environment>` goes on from it."
        ),
        run_id=run["run_id"],
    )
