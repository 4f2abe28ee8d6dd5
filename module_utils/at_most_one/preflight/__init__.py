"""What is asked before anything changes."""
