"""Whether and how a migration is applied."""
