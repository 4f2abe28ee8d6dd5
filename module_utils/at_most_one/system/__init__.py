"""The machine that this runs on: processes, files, logs, and what must not be shown."""
