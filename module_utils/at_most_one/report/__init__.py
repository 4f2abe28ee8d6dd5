"""What a run reports: report.json, and what the page, the ticket and the last line say beyond it."""
