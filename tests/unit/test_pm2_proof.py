"""What a process of PM2's list is found to be, by the kernel's own account of this very process."""

from __future__ import annotations

import os
import time
from dataclasses import replace

from at_most_one.http.proof import Demand
from at_most_one.pm2 import reload
from at_most_one.pm2.client import Instance
from at_most_one.pm2.proof import already_proven

ONE = Instance(0, os.getpid(), "online", 7, "cluster_mode", "/", "s", "out", "err", 0, None, None)


def test_an_instance_that_was_restarted_meanwhile_has_died_and_one_whose_restarts_were_reset_has_not() -> None:
    done = [(replace(ONE, pid=1, restarts=6), ONE)]
    assert reload._died_meanwhile(done, [ONE]) is None
    assert reload._died_meanwhile(done, [replace(ONE, restarts=0)]) is None, "pm2 reset"
    for now in ([replace(ONE, restarts=8)], [replace(ONE, restarts=0, pid=1)], []):
        found = reload._died_meanwhile(done, now)
        assert found is not None
        assert found[1].cause == "crashed"


def test_how_long_a_process_is_up_does_not_depend_on_the_clock() -> None:
    demand = Demand("app", None, None, stable_s=0.1)
    set_back = replace(ONE, started_ms=int(1000 * (time.time() + 3600)))
    assert already_proven(demand, set_back, 1)
    set_forward = replace(ONE, started_ms=0)
    assert not already_proven(replace(demand, stable_s=1e9), set_forward, 1)
