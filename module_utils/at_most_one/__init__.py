"""The core of at-most-one: plain Python and psycopg2, usable and tested without Ansible.

One room per noun. ``errors``, ``plan`` and ``database`` are the ground; ``duplicates`` may use ``archive``;
otherwise the rooms on one floor do not know each other.
"""
