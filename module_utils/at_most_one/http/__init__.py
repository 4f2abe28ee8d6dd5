"""Requests to the service, and which build answers them."""
