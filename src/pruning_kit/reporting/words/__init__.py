"""What findings mean, in sentences."""
