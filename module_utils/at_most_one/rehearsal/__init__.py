"""A rehearsal on a clone, and the evidence that it leaves."""
