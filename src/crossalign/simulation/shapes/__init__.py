"""Two unrelated modalities of random smooth shapes."""
