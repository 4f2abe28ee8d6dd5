"""The units of an application under systemd: restarted one by one, and proven one by one."""
