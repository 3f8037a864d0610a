"""What the training engine trains: registration stages, extractors by contrast, and the error-estimation head."""
