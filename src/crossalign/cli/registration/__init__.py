"""`crossalign register`: two files and an initialisation in; a transform, an image and a report out."""
