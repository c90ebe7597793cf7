"""Negative log-likelihood of the token that follows; its mean's exponential is the perplexity."""

from pruning_kit.walk.measures.measure import Measure

NLL = Measure("nll", "nats", lambda ending: ending.nll)
