"""What each command returns, as dataclasses: with `--json` they are printed, and reference pages are made of them."""
