"""The clean-up phase: the fence up, the surplus rows out, and an account of each of them."""
