"""Connections, the catalog, locks and bulk copies: what every part that uses the database stands on."""
