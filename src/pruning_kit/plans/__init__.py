"""Plans: sets of units to remove, and the paths that walk what is left."""
