"""Adapting a model to the pairs of one site: references, split, training, and the proof that it became better."""
