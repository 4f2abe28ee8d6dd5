"""Whether the service does, for a user, what it did before, and answers to the rule as it should.

Every check ends as one :class:`Check`: what was asked, what was expected, what came. Sessions opened by a check are
cancelled by it, whatever happens in between.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

from ..findings import Phrase, either, joined, say
from ..http.client import Answer, Client, NoAnswer, place
from ..system import log_errors
from .api_client import Failed, Settings, Visitor, message
from .known_faults import JUDGED, KnownFaults
from .nextauth import Identity, SignInFailed

_ATTEMPTS = 5  # rounds of a race before a change, as a multiple of those that are wanted
NOT_IN_CHECK_MODE = say("not run in check mode")
_CREATED = 201  # a service that answers it has made a row of its own; with 200 it may have found the other's
# Of 4xx, those that say nothing of who asked: not known, not allowed, or turned away before anybody looked.
_TURNED_AWAY = (401, 403, 429)


@dataclass(frozen=True)
class Check:
    """The outcome of one check. ``ok`` is None when it was not run.

    ``statuses`` holds the 5xx of a fault that may have been there before, ``known`` whether it was, and may stay.
    """

    name: str
    ok: bool | None
    request: str
    expected: str
    got: str
    seconds: float = 0.0
    statuses: tuple[int, ...] = ()
    known: bool = False

    def as_data(self) -> dict[str, Any]:
        """The check as report.json has it, and beside it, for the control node, the phrases of its texts."""
        texts = {"request": self.request, "expected": self.expected, "got": self.got}
        phrases = {name: text.as_data() for name, text in texts.items() if isinstance(text, Phrase)}
        return {**asdict(self), **{name: str(text) for name, text in texts.items()}, "phrases": phrases}


def run_checks(
    settings: Settings, names: Sequence[str], *, read_only: bool = False, faults: KnownFaults | None = None
) -> list[Check]:
    """Run the named checks in the order of :data:`CHECKS`. ``read_only`` leaves out those that open sessions.

    The race comes last: the refusals it provokes would otherwise be found in the log.
    """
    faults = faults or KnownFaults()
    visitor = Visitor(settings)
    done = []
    for name, (act, writes) in CHECKS.items():
        if name not in names:
            continue
        started = time.monotonic()
        if writes and read_only:
            done.append(Check(name, None, _creation(settings), "", NOT_IN_CHECK_MODE))
            continue
        try:
            found = act(visitor)
        except (Failed, SignInFailed) as failed:
            found = _Outcome(failed.request, failed.expected, failed.got, ok=False)
        seconds, known = round(time.monotonic() - started, 3), faults.accepts(name, found.statuses)
        done.append(Check(name, found.ok, found.request, found.expected, found.got, seconds, found.statuses, known))
    return done


def faults_of(checks: Sequence[Check]) -> dict[str, list[int]]:
    """What a later release may be compared with: the faults that were seen, [] for a check that answered well."""
    return {check.name: list(check.statuses) for check in checks if check.name in JUDGED and check.ok is not None}


class _Outcome(NamedTuple):
    request: str
    expected: str
    got: str
    ok: bool | None
    statuses: tuple[int, ...] = ()
    refused: int = 0  # of a race: how many did not get the session


def _root(visitor: Visitor) -> _Outcome:
    answer = visitor.ask("HEAD", "/", expected="200")
    return _Outcome("HEAD /", "200", str(answer.status), answer.status == 200)


def _health(visitor: Visitor) -> _Outcome:
    path, values = visitor.settings.health_path, visitor.settings.health_values
    expected = say("200 with status {status}", status=_either(values))
    answer = visitor.ask("GET", path, expected=expected)
    body = answer.json()
    status = body.get("status") if isinstance(body, dict) else None
    return _Outcome(f"GET {path}", expected, answer.line(), answer.status == 200 and status in values)


def _login(visitor: Visitor) -> _Outcome:
    """Both people where two are given; with a bearer token, that the service knows it."""
    settings = visitor.settings
    by_cookie = settings.auth == "nextauth"
    user = settings.credentials if by_cookie else settings.bearer_token
    administrator = settings.admin_credentials if by_cookie else settings.admin_bearer_token
    people = [visitor.person()] if user or not administrator else []
    if administrator:
        people.append(visitor.person(admin=True))
    if by_cookie:
        names = [*dict.fromkeys(person.who for person in people)]
        who = say("{first} and {second}", first=names[0], second=names[1]) if len(names) > 1 else names[0]
        return _Outcome(
            say("sign in through /api/auth"), say("a session with its user"), say("signed in: {who}", who=who), ok=True
        )
    expected, got, ok = say("2xx, or 4xx other than 401, 403 and 429"), list[str](), True
    for person in people:
        answer = visitor.ask("GET", settings.sessions_path, person, expected=expected)
        got.append(answer.line(person.secrets))
        ok = ok and answer.status // 100 in (2, 4) and answer.status not in _TURNED_AWAY
    return _Outcome(f"GET {settings.sessions_path}", expected, joined(got), ok)


def _monitoring(visitor: Visitor) -> _Outcome:
    """Before a change duplicates may be counted, as the change is there to remove them."""
    path, before = visitor.settings.monitoring_path, visitor.settings.before_change
    expected = say("200 with a number in data.total") if before else say("200 with data.total 0")
    person = visitor.person(admin=True)
    answer = visitor.ask("GET", path, person, expected=expected)
    body = answer.json()
    data = body.get("data", body) if isinstance(body, dict) else None
    total = data.get("total") if isinstance(data, dict) else None
    got, statuses = answer.line(person.secrets), (answer.status,) if 500 <= answer.status <= 599 else ()
    if before and answer.status == 404:  # a new release may add the endpoint: nothing is known of it
        return _Outcome(f"GET {path}", expected, got, ok=None)
    ok = answer.status == 200 and (isinstance(total, int) if before else total == 0)
    return _Outcome(f"GET {path}", expected, got, ok, statuses)


def _log(visitor: Visitor) -> _Outcome:
    settings = visitor.settings
    request = say(
        "lines that the release has written to {files}", files=", ".join(settings.log_files) or say("no file")
    )
    expected = say("none that matches {pattern} and was not there before", pattern=settings.log_error_pattern)
    scans: list[log_errors.Scan] = []
    for path, mark in settings.log_files.items():
        try:
            scans.append(log_errors.scan(mark, settings.log_error_pattern))
        except OSError as failure:
            unread = say("{path} cannot be read: {reason}", path=path, reason=failure.strerror)
            raise Failed(request, expected, unread) from failure
    shown = [line for scan in scans for line in scan.shown]
    got = joined([log_errors.told(scans), *shown], "\n  ")
    return _Outcome(request, expected, got, not any(scan.errors for scan in scans))


def session_id(body: Any) -> str | None:
    """The id of the session in the answer to a creation: {session: {id}}, {data: ...}, {id} or {sessionId}."""
    if not isinstance(body, dict):
        return None
    for key in ("session", "data"):
        if isinstance(body.get(key), dict):
            return session_id(body[key])
    found = body.get("id", body.get("sessionId"))
    return str(found) if isinstance(found, (str, int)) and not isinstance(found, bool) else None


def _creation(settings: Settings) -> str:
    return f"{settings.row.create.method} {settings.row.create.path}"


def _row_person(visitor: Visitor) -> Identity:
    return visitor.person(admin=visitor.settings.row.by == "admin")


def _create(visitor: Visitor, person: Identity, expected: str = "") -> Answer:
    create = visitor.settings.row.create
    return visitor.ask(create.method, create.path, person, visitor.settings.row_body, expected)


def _opened(visitor: Visitor, answer: Answer) -> str | None:
    row = visitor.settings.row
    if answer.status not in row.accepts:
        return None
    body = answer.json()
    if row.id is None:
        return session_id(body)
    *keys, last = row.id.split(".")
    for key in keys:
        body = body.get(key) if isinstance(body, dict) else None
    return session_id({"id": body.get(last)}) if isinstance(body, dict) else None


def _session(visitor: Visitor) -> _Outcome:
    row, person = visitor.settings.row, _row_person(visitor)
    accepted, refused = _either(row.accepts), _either(row.refuses)
    expected = say(
        "{accepted}, then the same session or {refused}; or {refused} at once; and the session cancelled",
        accepted=accepted,
        refused=refused,
    )
    request, ours, got, ok = _creation(visitor.settings), dict[str, None](), list[str](), False
    try:
        first = _create(visitor, person, expected)
        identifier = _opened(visitor, first)
        got.append(_brief(visitor, first, person))
        if identifier:
            ours[identifier] = None
            second = _create(visitor, person, expected)
            again = _opened(visitor, second)
            got.append(say("again: {answer}", answer=_brief(visitor, second, person)))
            if again:
                ours[again] = None
            ok = second.status in row.refuses or again == identifier
            if again and again != identifier:
                got.append(say("a second open session: the rule is not enforced"))
        elif first.status in row.refuses:
            got.append(say("already open, by someone else"))
            ok = True
    except Failed as failed:
        got.append(failed.got)
        got += _sweep(visitor, person, ours)
    finally:
        left = _cancel(visitor, person, ours)
    return _Outcome(request, expected, joined([*got, *left]), ok and not left)


def _race(visitor: Visitor) -> _Outcome:
    """Rounds until one breaks the rule: a race shows a fault by chance, so one good round proves little.

    A round whose losers got 5xx may turn out to be a known fault, so the rule is still looked for in the next ones.
    Before a change a round counts only if somebody was refused in it, as the new release is compared with that.
    """
    rounds, settings = list[_Outcome](), visitor.settings
    for _ in range(settings.race_rounds * (_ATTEMPTS if settings.before_change else 1)):
        rounds.append(_race_once(visitor))
        telling = sum(one.refused > 0 for one in rounds)
        broken = not (rounds[-1].ok or rounds[-1].statuses)
        if broken or (settings.before_change and telling >= settings.race_rounds):
            break
    statuses = tuple(sorted({status for one in rounds for status in one.statuses}))
    last, got = rounds[-1], joined((one.got for one in rounds), " | ")
    ok = None if settings.before_change and not (telling or broken) else all(one.ok for one in rounds)
    return _Outcome(last.request, last.expected, got, ok, () if broken else statuses)


def _race_once(visitor: Visitor) -> _Outcome:
    settings, person = visitor.settings, _row_person(visitor)
    row, size = settings.row, settings.race_size
    request = say("{size} x {creation} at once", size=size, creation=_creation(settings))
    resumed = [status for status in row.accepts if status != _CREATED]
    others = _either(row.refuses)
    if resumed:
        others = either([others, say("{status} with that session", status=_either(resumed))])
    expected = say(
        "one session: one {accepted}, others {others}, no 5xx; and it cancelled",
        accepted=_either(row.accepts),
        others=others,
    )
    # Our own session from a run that was killed is resumed by this, and cancelled: then the canary is free.
    before = _create(visitor, person, expected)
    stale = _opened(visitor, before)
    left = _cancel(visitor, person, {stale: None} if stale else {})
    if not stale or left:
        hint = say("the canary is not free: complete or cancel its open session, or name another canary")
        reason = hint if before.status in row.refuses else say("no session to begin with")
        first = say("before the race {answer}", answer=_brief(visitor, before, person))
        raise Failed(request, expected, joined([first, reason, *left]))
    answers, unanswered = _at_once(visitor, person)
    ours = {identifier: None for answer in answers if (identifier := _opened(visitor, answer))}
    unknown = _sweep(visitor, person, ours) if unanswered else []
    left = [*unknown, *_cancel(visitor, person, ours)]
    tally: list[str] = [
        f"{count} x {status}" for status, count in sorted(Counter(one.status for one in answers).items())
    ]
    tally += [
        say("{count} x no answer ({kind})", count=count, kind=kind)
        for kind, count in sorted(Counter(unanswered).items())
    ]
    got: list[str] = [joined(tally, ", ")]
    odd = [one for one in answers if one.status not in (*row.accepts, *row.refuses)]
    got += [_brief(visitor, one, person) for one in odd[:1]]
    nameless = sum(one.status in row.accepts and not _opened(visitor, one) for one in answers)
    if nameless:
        got.append(say("{count} successes without a session id", count=nameless))
    if len(ours) > 1:
        got.append(say("{count} sessions: the rule is not enforced", count=len(ours)))
    created = sum(answer.status == _CREATED for answer in answers)
    kept = not (unanswered or nameless or left) and len(ours) == 1 and created <= 1  # the rule, whatever losers got
    refused_badly = tuple(sorted({one.status for one in odd}))
    statuses = refused_badly if kept and all(500 <= status <= 599 for status in refused_badly) else ()
    refused = sum(one.status not in row.accepts for one in answers)
    return _Outcome(request, expected, joined([*got, *left]), kept and not odd, statuses, refused)


def _at_once(visitor: Visitor, person: Identity) -> tuple[list[Answer], list[str]]:
    """``race_size`` creations, each on a connection that is open before the start: the answers, and kinds of none."""
    settings = visitor.settings
    create = settings.row.create
    url, content = visitor.url(create.path), message(person, settings.row_body)
    answers, unanswered = list[Answer](), list[str]()
    line = threading.Barrier(settings.race_size)

    def runner() -> None:
        client = Client(url, timeout_s=settings.timeout_s)
        try:
            try:
                client.connect()
            finally:
                line.wait(settings.timeout_s + 5)
            answers.append(client.request(create.method, place(url).target, content["headers"], content["body"]))
        except NoAnswer as failure:
            unanswered.append(failure.kind)
        except threading.BrokenBarrierError:
            unanswered.append("not_sent")
        finally:
            client.close()

    runners = [threading.Thread(target=runner) for _ in range(settings.race_size)]
    for thread in runners:
        thread.start()
    for thread in runners:
        thread.join()
    return answers, unanswered


def _sweep(visitor: Visitor, person: Identity, ours: dict[str, None]) -> list[str]:
    """A creation that brought no answer may still have opened a session: resume it, so that it can be cancelled.

    A service that refuses instead of resuming does not tell its id: then a person has to look for it.
    """
    try:
        answer = _create(visitor, person)
    except Failed:
        return []
    found = _opened(visitor, answer)
    if found:
        ours[found] = None
    if ours or answer.status not in visitor.settings.row.refuses:
        return []
    return [
        say(
            "a creation without an answer may have left a session open: {creation} now got {answer}",
            creation=_creation(visitor.settings),
            answer=_brief(visitor, answer, person),
        )
    ]


def _cancel(visitor: Visitor, person: Identity, ours: Mapping[str, None]) -> list[str]:
    """Cancel every session; what could not be cancelled, for a person."""
    left, undo = list[str](), visitor.settings.row.undo
    for identifier in ours:
        path = undo.path.replace("{id}", quote(identifier, safe=""))
        try:
            answer = visitor.ask(undo.method, path, person, _filled(undo.body, identifier))
            got = "" if 200 <= answer.status < 300 else _brief(visitor, answer, person)
        except Failed as failed:
            got = failed.got
        if got:
            left.append(
                say(
                    "session {identifier} is still open: {request} got {answer}",
                    identifier=identifier,
                    request=f"{undo.method} {path}",
                    answer=got,
                )
            )
    return left


def _filled(body: Any, identifier: str) -> Any:
    """The body with the id of the row in the place of {id}, at any depth."""
    if isinstance(body, str):
        return body.replace("{id}", identifier)
    if isinstance(body, Mapping):
        return {key: _filled(value, identifier) for key, value in body.items()}
    return [_filled(value, identifier) for value in body] if isinstance(body, list) else body


def _brief(visitor: Visitor, answer: Answer, person: Identity) -> str:
    """A success is told by its session's id alone: its body is a row of the service."""
    opened = _opened(visitor, answer)
    if opened:
        return say("{status} session {identifier}", status=answer.status, identifier=opened)
    return answer.line(person.secrets)


def _either(values: Sequence[object]) -> str:
    return either(map(str, values))


CHECKS: dict[str, tuple[Callable[[Visitor], _Outcome], bool]] = {
    "root": (_root, False),
    "health": (_health, False),
    "login": (_login, False),
    "monitoring": (_monitoring, False),
    "session": (_session, True),
    "log": (_log, False),
    "race": (_race, True),
}
