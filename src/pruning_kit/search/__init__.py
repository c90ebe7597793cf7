"""Which variants a run measures."""
