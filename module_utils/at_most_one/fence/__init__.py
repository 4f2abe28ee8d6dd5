"""The write fence: an index that refuses new duplicates while the surplus rows leave."""
