"""Latency: what is timed, how, and what the times say."""
