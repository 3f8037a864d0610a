"""`crossalign batch`: every pair of a cohort, in one process, several, or on several machines."""
