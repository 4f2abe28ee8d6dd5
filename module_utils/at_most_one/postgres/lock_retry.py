"""How long to wait for a lock, and how long until it is asked for again."""

from __future__ import annotations

import random

# For a transaction that holds locks and asks for more. The server looks for a deadlock once a session has waited for
# deadlock_timeout, only once in a wait, and ends the session whose turn it is. Where somebody begins to wait for us
# before we have looked, we are that session. Where he begins later, he looks twice deadlock_timeout after we began to
# wait, or later still: by then we have let go, after one and a half. Only a superuser could set deadlock_timeout for
# our own sessions, which would not help: we would look once, and earlier.
# Returns how long the connection's lock_timeout lets it ask, in milliseconds; 0: for ever.
# https://www.postgresql.org/docs/current/runtime-config-locks.html#GUC-DEADLOCK-TIMEOUT
WHILE_HOLDING = """
SELECT asked, pg_catalog.set_config(
    'lock_timeout', CASE WHEN asked BETWEEN 1 AND at_once THEN asked ELSE at_once END || 'ms', true)
FROM (
    SELECT (1000 * EXTRACT(epoch FROM pg_catalog.current_setting('lock_timeout')::interval))::integer,
        (1500 * EXTRACT(epoch FROM pg_catalog.current_setting('deadlock_timeout')::interval))::integer
) AS waits (asked, at_once)"""


def pause_s(attempt: int, *, first_s: float, longest_s: float) -> float:
    """Seconds after ``attempt`` failures: doubling from ``first_s`` up to ``longest_s``, each time half of it to half
    more. Two deployments, or one and a nightly job, must not meet again and again."""
    return random.uniform(0.5, 1.5) * min(first_s * float(2**attempt), longest_s)  # noqa: S311  (jitter, not a secret)
