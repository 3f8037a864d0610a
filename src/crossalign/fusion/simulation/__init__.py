"""Seeded MRI-PET pairs of heads, exactly aligned."""
