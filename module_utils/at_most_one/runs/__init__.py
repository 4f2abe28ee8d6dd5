"""The journal of runs: who holds a plan, what a run has done, what can be taken back."""
