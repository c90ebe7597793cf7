"""Kullback-Leibler divergence of a variant's predictions from those of the whole model."""

from pruning_kit.walk.measures.measure import Measure

KL = Measure("kl", "nats", lambda ending: ending.beside_whole.kl, compares=True)
