"""The commands of fusion."""
