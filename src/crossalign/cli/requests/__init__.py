"""What each command takes, as dataclasses: quick to import, so that `--help` does not wait for torch."""
