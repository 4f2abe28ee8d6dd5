"""The core of at-most-one: plain Python and psycopg2, usable and tested without Ansible.

A package for each subject; each imports only from the layers below its own (pyproject.toml, docs/architecture.md).
"""
