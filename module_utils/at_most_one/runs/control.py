"""The checkpoints of a run: at each it says how far it is, reads what people ask of it, and waits or ends accordingly.

Nothing is given up while it waits: the write fence stands, and the caller goes on renewing the lease. A checkpoint
costs one statement; where a run waits, it is asked again every two seconds on the same connection. A call whose
controller is gone waits no longer: it would renew the lease of a run that nobody holds.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg2.errors

from ..errors import OperatorError
from ..findings import Phrase, observed, say
from ..postgres.checkpoint import Checkpoint, Place, unasked
from ..postgres.connection import Connection, Login, connect
from ..system import live_step, processes
from ..verdicts import word
from . import journal, requests
from .requests import Effective, Request

_POLL_S = 2.0
_WRITE_S = 2.0  # between two notes of how far the run is
_LOST_S = 300.0  # for which a run that waits for a person may be without the server

_READ = """
SELECT to_char(clock_timestamp(), 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), q.action, q.who, q.controller,
       to_char(q.asked_at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
FROM at_most_one.run AS r LEFT JOIN at_most_one.request AS q USING (run_id)
WHERE r.run_id = %s AND r.finished_at IS NULL ORDER BY q.position"""
_NOTE = "UPDATE at_most_one.run SET progress = %s WHERE run_id = %s AND finished_at IS NULL"


def checkpoint(run_id: str | None) -> Checkpoint:
    """The checkpoints of one call for this run; without a run nobody is asked."""
    return unasked if run_id is None else Checkpoints(run_id)


def reason_to_wait(asked: Effective, place: Place) -> Request | None:
    """The request by which a run waits at this place. Before the first host is switched both hold it."""
    is_before_the_cutover = place.phase == "pm2_reload" and place.done == 0
    return asked.pause or (asked.hold_cutover if is_before_the_cutover else None)


@dataclass
class Checkpoints:
    """Call it between two steps: see :data:`Checkpoint`."""

    run_id: str
    poll_s: float = _POLL_S
    _series: tuple[str, str, int] = ("", "", 0)  # of phase, unit and total: with another one the rate begins anew
    _began: float = 0.0
    _waited: float = 0.0  # seconds of the series
    _noted: float = field(default=float("-inf"))
    _since: str = ""  # when the wait began, by the database's clock

    def __call__(self, connection: Connection, place: Place) -> float:
        now, asked = self._read(connection)
        if (place.phase, place.unit, place.total) != self._series:
            self._series = (place.phase, place.unit, place.total)
            self._began, self._waited, self._noted = time.monotonic(), 0.0, float("-inf")
        live_step.steps(place.unit, place.done, place.total)
        began, waiting = time.monotonic(), ""
        while (request := reason_to_wait(asked, place)) and not asked.abort:
            if request.action != waiting:
                waiting, self._since = request.action, self._since or now
                self._note(connection, place, now, {"for": waiting, "since": self._since})
                live_step.steps(place.unit, place.done, place.total, requests.LIFTED_BY[waiting])
            time.sleep(self.poll_s)
            if processes.nobody_reads():
                raise _alone(self.run_id)
            now, asked = self._read(connection)
        waited = time.monotonic() - began if waiting else 0.0
        self._waited, self._since = self._waited + waited, ""
        if waiting:
            live_step.steps(place.unit, place.done, place.total)
        if waiting or asked.abort or time.monotonic() - self._noted >= _WRITE_S:
            self._note(connection, place, now, None)
        if asked.abort:
            raise _ended(self.run_id, asked.abort, place)
        return waited

    def _read(self, connection: Connection) -> tuple[str, Effective]:
        """The database's time and what is in force. Raises OperatorError when the run is not open any more."""
        rows: list[tuple[Any, ...]] = []
        try:
            with connection.cursor() as cursor:
                cursor.execute(_READ, (self.run_id,))
                rows = cursor.fetchall()
        except psycopg2.errors.UndefinedTable:  # no journal, or an older one: the run is not of this release
            rows = []
        if not rows:
            journal.require_held(connection, self.run_id)
            return "", Effective()
        return rows[0][0], requests.in_force(Request(*row[1:]) for row in rows if row[1] is not None)

    def _note(self, connection: Connection, place: Place, now: str, waiting: Mapping[str, str] | None) -> None:
        if not now:  # a journal of an older release has no place for it
            return
        seconds = time.monotonic() - self._began - self._waited
        progress = {"phase": place.phase, "unit": place.unit, "done": place.done, "total": place.total}
        note = json.dumps({**progress, "seconds": round(seconds, 3), "at": now, "waiting": waiting})
        try:
            with connection.cursor() as cursor:
                cursor.execute(_NOTE, (note, self.run_id))
        except psycopg2.errors.LockNotAvailable:  # somebody closes it or takes it over: the next hold says who
            return
        self._noted = time.monotonic()


def before_switching(login: Login, run_id: str, place: Place, *, poll_s: float = _POLL_S) -> float:
    """The checkpoint before hosts are switched, on connections of its own, because a person may take hours.

    A server that is gone is asked again for five minutes. The lease is renewed: a reload asks no database, and there
    may be many of them. Returns the seconds that were waited.
    """
    at, lost_at = Checkpoints(run_id, poll_s), 0.0
    began = time.monotonic()
    while True:
        try:
            with connect(login, autocommit=True) as connection:
                lost_at = 0.0
                waited = at(connection, place)
                with contextlib.suppress(psycopg2.errors.LockNotAvailable):  # as in Checkpoints._note
                    journal.renew(connection, run_id)
                return time.monotonic() - began if waited else 0.0
        except OperatorError as stop:
            now = time.monotonic()
            lost_at = lost_at or now
            if "database" not in stop.details or now - lost_at > _LOST_S:  # as `connect` names it when there is none
                raise
            time.sleep(poll_s)


def _alone(run_id: str) -> OperatorError:
    return OperatorError(
        observed("AMO-2227", "Run {run_id} has waited until its controller was gone.", run_id=run_id),
        expected=say("ansible-playbook to be there for as long as its run waits."),
        next_step=say(
            "ansible-playbook deploy.yml -l <environment>: once the lease has ended it takes the run over, and waits as"
            " that one was asked to."
        ),
        cause="alone",
    )


def _where(place: Place) -> Phrase:
    if place.phase == "cleanup":
        return say("between two batches of the clean-up")
    if place.done:
        return say("with {done} of {total} {unit} done", done=place.done, total=place.total, unit=word(place.unit))
    return say("before the indexes were built") if place.phase == "migrate" else say("before the cutover")


def _ended(run_id: str, request: Request, place: Place) -> OperatorError:
    return OperatorError(
        observed(
            "AMO-2226",
            "Run {run_id} was asked to end by {request}, and has ended {where}.",
            run_id=run_id,
            request=request.phrase,
            where=_where(place),
        ),
        expected=say("a run that nobody asks to end."),
        next_step=say(
            "ask {who} why. What it had reached is taken back where rollback_automatic is true;"
            " otherwise `ansible-playbook rollback.yml -l <environment>` takes it back, and"
            " `ansible-playbook deploy.yml -l <environment>` goes on from it.",
            who=request.who,
        ),
        cause="aborted",
        request={"who": request.who, "controller": request.controller, "at": request.at},
    )
