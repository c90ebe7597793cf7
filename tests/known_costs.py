"""Costs that are known beforehand: what proposers are sent when nothing is measured."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pruning_kit.plans.variant import Variant
from pruning_kit.search.costs import Costs


def known_costs(prices: Mapping[Variant, float]) -> Costs:
    """Variants that are rows, each of so many nats per token, on a text of one token."""
    costs = Costs([1], [(0, 1)])
    costs.add_rows(list(prices), [np.array([price]) for price in prices.values()])
    return costs
