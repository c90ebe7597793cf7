"""Cut models: taking blocks out, saving the folder, verifying it."""
