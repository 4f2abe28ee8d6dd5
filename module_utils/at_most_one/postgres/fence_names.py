"""The names of the write fence's index: who reads the catalog knows by them what is the tool's own and temporary.

An index lives in its table's schema, so the name has to say it.
"""

from __future__ import annotations

import hashlib

PATTERN = "^at_most_one_fence_[0-9a-f]{12}(_[0-9]+)?$"  # of every plan; a POSIX regular expression


def name_of(plan_id: str, number: int = 1) -> str:
    """The fence's index of a plan, from a hash: plan ids may be longer than names may be.

    A later ``number`` is for an index that takes the place of one that cannot be dropped yet.
    """
    short = f"at_most_one_fence_{hashlib.sha256(plan_id.encode()).hexdigest()[:12]}"
    return short if number == 1 else f"{short}_{number}"
