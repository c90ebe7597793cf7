"""Intervals from windows and from timing rounds."""
