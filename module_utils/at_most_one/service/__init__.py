"""The service as its users meet it: checks, traffic, watching."""
