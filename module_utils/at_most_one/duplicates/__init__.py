"""Surplus rows: found, archived, removed and restored."""
