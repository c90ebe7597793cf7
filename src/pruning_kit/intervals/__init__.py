"""Intervals from windows and from timing rounds."""

MIN_ROUNDS = 8
"""Rounds of timing below which there is no interval: too many resamples have no spread."""
