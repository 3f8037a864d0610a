"""Training of fusion networks from a manifest or from simulated heads."""
