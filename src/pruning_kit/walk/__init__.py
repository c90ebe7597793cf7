"""The shared-prefix walk: NLL sums of many plans at the price of their distinct prefixes."""
