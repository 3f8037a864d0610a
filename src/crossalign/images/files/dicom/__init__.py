"""DICOM: which files make up a series, where its slices lie, their values, and structures drawn on them."""
