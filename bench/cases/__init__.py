"""One file per subject; each has ``measure(bench)``, and ``draw(panel, results)`` if it is in the picture."""
