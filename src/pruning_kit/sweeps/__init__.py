"""A sweep: variants proposed, measured, stored, timed."""
