"""Pictures and the self-contained HTML pages."""
