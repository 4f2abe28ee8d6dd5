"""Indexes by definition: compared, built beside writers, their use and the pause that a build costs."""
