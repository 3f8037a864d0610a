"""Scores of a fused volume: structure, information and fidelity."""
