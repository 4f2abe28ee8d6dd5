"""The evidence of a rehearsal: a file that travels, sealed with its own digest, and what a deployment asks of it.

The seal finds out an edited or a cut file. It is no signature: who can run the tool can also make evidence, and the
journal of the environment that was rehearsed in keeps the same document.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from ..errors import OperatorError
from ..findings import joined, observed, say
from ..plan import for_other_tenant, is_tenant, parse
from ..system import files
from ..verdicts import difference, word

FORMAT = 1
_CLOCKS_APART = timedelta(minutes=5)  # how far ahead another machine's clock may be
_KEYS = {"plan", "commit", "environment", "who", "outcome", "ended_at", "turns", "recovery_seconds"}
_LARGEST = 1 << 22  # bytes; the evidence of a real rehearsal has some thousands


@dataclass(frozen=True)
class Wanted:
    """What a deployment needs to have been rehearsed."""

    plan_id: str
    plan_sha256: str
    commit: str
    environment: str  # where it is deployed: rehearsed is somewhere else
    max_age_hours: float
    how: str  # the command that rehearses
    plan: Mapping[str, Any] = field(default_factory=dict)  # its content, where it is that of a tenant

    def digest_of(self, plan_id: str) -> str:
        """The digest of the plan that was to be rehearsed by this name; empty where it is another plan.

        The plans of tenants differ in the tenant alone. So the deployed one says what that of another tenant has to be,
        and a rehearsal with any of them is one of the plan.
        """
        (ours, own), (theirs, tenant) = (name.partition("@")[::2] for name in (self.plan_id, plan_id))
        if plan_id == self.plan_id:
            return self.plan_sha256
        if not own or ours != theirs or not is_tenant(tenant) or not self.plan:
            return ""
        return parse(for_other_tenant(self.plan, tenant)).sha256


def digest(document: Mapping[str, Any]) -> str:
    """The SHA-256 over everything in the document except its own seal, however the file is laid out."""
    content = {key: value for key, value in document.items() if key != "sha256"}
    text = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def seal(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with its format and its seal."""
    named = {"format": FORMAT, **{key: value for key, value in document.items() if key != "sha256"}}
    return {**named, "sha256": digest(named)}


def write(path: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """Seal the document and write it, whole or not at all, readable by owner and group. Returns what was written."""
    sealed = seal(document)
    files.write(path, json.dumps(sealed, ensure_ascii=False, indent=2) + "\n", 0o640)
    return sealed


def read(path: str, how: str) -> dict[str, Any]:
    """The document in the file. Raises OperatorError unless it is there, whole, and as it was written."""
    try:
        with open(path, encoding="utf-8") as file:
            document = json.loads(file.read(_LARGEST))
    except FileNotFoundError:
        raise _refused(
            observed("AMO-2414", "There is no evidence of a rehearsal: {path} does not exist.", path=path), how
        ) from None
    except (OSError, ValueError) as failure:
        raise _refused(
            observed("AMO-2415", "{path} is no evidence of a rehearsal: {reason}.", path=path, reason=_reason(failure)),
            how,
        ) from failure
    if not isinstance(document, dict) or document.get("format") != FORMAT or "sha256" not in document:
        raise _refused(
            observed(
                "AMO-2416", "{path} is no evidence of a rehearsal, or that of another version of this tool.", path=path
            ),
            how,
        )
    if digest(document) != document["sha256"]:
        raise _refused(
            observed(
                "AMO-2417",
                "{path} was changed after the rehearsal wrote it: its digest is not that of its content.",
                path=path,
            ),
            how,
        )
    if missing := sorted(_KEYS - document.keys()):
        raise _refused(
            observed(
                "AMO-2418",
                "{path} is no evidence of a rehearsal: it lacks {missing}.",
                path=path,
                missing=", ".join(missing),
            ),
            how,
        )
    return document


def of_any_tenant(path: str, wanted: Wanted) -> str:
    """``path``, unless it is to be a tenant's own evidence and is not there: then that of the tenant rehearsed last."""
    plan_id, tenant = wanted.plan_id.partition("@")[::2]
    directory, name = os.path.split(path)
    if not tenant or name != f"{wanted.plan_id}.json" or os.path.exists(path) or not os.path.isdir(directory):
        return path
    found = []
    for other in os.listdir(directory):
        if other.startswith(f"{plan_id}@") and other.endswith(".json"):
            with contextlib.suppress(OperatorError):  # another file than evidence
                found.append((str(read(os.path.join(directory, other), wanted.how)["ended_at"]), other))
    return os.path.join(directory, max(found)[1]) if found else path


def judge(document: Mapping[str, Any], wanted: Wanted, now: datetime) -> None:
    """Raise OperatorError unless the rehearsal ended well, elsewhere, not long ago, with the same plan and commit."""
    plan, commit = document["plan"], document["commit"]["after"]
    if document["outcome"] != "passed":
        raise _refused(_ended_badly(document), wanted.how)
    if document["environment"] == wanted.environment:
        raise _refused(
            observed("AMO-2419", "The rehearsal was in {environment} itself.", environment=wanted.environment),
            wanted.how,
        )
    wanted_sha256 = wanted.digest_of(plan["id"])
    if not wanted_sha256:
        raise _refused(
            observed(
                "AMO-2420",
                "The rehearsal was of plan {rehearsed}, and {deployed} is deployed.",
                rehearsed=plan["id"],
                deployed=wanted.plan_id,
            ),
            wanted.how,
        )
    if plan["sha256"] != wanted_sha256:
        raise _refused(
            observed(
                "AMO-2426",
                "The plan {plan_id} was changed since the rehearsal: then {then}, now {now}.",
                plan_id=plan["id"],
                then=plan["sha256"][:12],
                now=wanted_sha256[:12],
            ),
            wanted.how,
        )
    if commit != wanted.commit:
        raise _refused(
            observed(
                "AMO-2421",
                "The rehearsal was of commit {rehearsed}, and {deployed} is deployed.",
                rehearsed=commit[:12],
                deployed=wanted.commit[:12],
            ),
            wanted.how,
        )
    age = now - parse_time(document["ended_at"])
    if age < -_CLOCKS_APART:
        raise _refused(
            observed(
                "AMO-2422", "The rehearsal ended at {ended_at}, which is in the future.", ended_at=document["ended_at"]
            ),
            wanted.how,
        )
    if age > timedelta(hours=wanted.max_age_hours):
        seen = observed(
            "AMO-2423",
            "The rehearsal ended at {ended_at}, {hours} hours ago.",
            ended_at=document["ended_at"],
            hours=f"{age.total_seconds() / 3600:.1f}",
        )
        raise OperatorError(
            seen,
            expected=say(
                "at most {max_age_hours} hours, so that the data was much as it is now.",
                max_age_hours=f"{wanted.max_age_hours:g}",
            ),
            next_step=say("rehearse again: {how}; or say why not: -e prepare_rehearsal_reason='...'", how=wanted.how),
        )


def summary(document: Mapping[str, Any]) -> dict[str, Any]:
    """What the journal of the deployment keeps of it, and what a person is shown before it begins."""
    turns = document["turns"]
    forward = turns[0]
    return {
        "sha256": document["sha256"],
        "plan": document["plan"]["id"],
        "environment": document["environment"],
        "ended_at": document["ended_at"],
        "who": document["who"],
        "runs": [turn["run_id"] for turn in turns],
        "seconds": forward["seconds"],
        "recovery_seconds": document["recovery_seconds"],
        "phases": [{"name": phase["name"], "seconds": phase["seconds"]} for phase in forward["phases"]],
        "cloned_from": document.get("clone", {}).get("source", ""),
    }


def parse_time(text: str) -> datetime:
    """An ISO 8601 time with its zone. Raises ValueError for anything else."""
    time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    if time.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return time.astimezone(timezone.utc)


def _ended_badly(document: Mapping[str, Any]) -> str:
    turns = joined((word(turn["name"]) for turn in document["turns"]), ", ")
    reason = joined(map(difference, document.get("differences", [])[:3]))
    how = (
        say("is not finished")
        if document["outcome"] == "unfinished"
        else say("ended as {outcome}", outcome=word(document["outcome"]))
    )
    values = {"environment": document["environment"], "how": how, "turns": turns or say("none")}
    if reason:
        return observed(
            "AMO-2424",
            "The rehearsal in {environment} {how} (turns that ended well: {turns}): {reason}.",
            **values,
            reason=reason,
        )
    return observed("AMO-2425", "The rehearsal in {environment} {how} (turns that ended well: {turns}).", **values)


def _refused(seen: str, how: str) -> OperatorError:
    return OperatorError(
        seen,
        expected=say("the evidence of a rehearsal of this plan and this commit that ended well."),
        next_step=say(
            "{how}, and -e prepare_rehearsal_evidence=<file> if it was written elsewhere; or say why "
            "there is none: -e prepare_rehearsal_reason='...'",
            how=how,
        ),
    )


def _reason(failure: OSError | ValueError) -> str:
    return failure.strerror or say("it cannot be read") if isinstance(failure, OSError) else say("it is not JSON")
