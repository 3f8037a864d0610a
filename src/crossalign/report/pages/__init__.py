"""The pages: of a registration, a fusion and an explanation."""
