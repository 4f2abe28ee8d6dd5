"""PM2: its processes, proven one by one through a reload."""
