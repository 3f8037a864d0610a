"""Formats of image files: NIfTI, NRRD and MetaImage."""
