"""MR and transrectal ultrasound of simulated male pelves."""
