"""Self-contained HTML pages about results, their viewer, and static pictures."""
