"""Iterative rigid registration: mutual information and MIND, and whether their answers are to be trusted."""
