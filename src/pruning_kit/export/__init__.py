"""Pruned models as folders: written, described, verified."""
