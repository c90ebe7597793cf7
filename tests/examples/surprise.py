"""Surprise: the share of scored tokens that cost more than five nats."""

from pruning_kit.walk.measures.measure import Measure

SURPRISE = Measure("surprise", "share of tokens", lambda ending: (ending.nll > 5.0).float())
