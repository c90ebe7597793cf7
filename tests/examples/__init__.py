"""The worked examples of CONTRIBUTING: a measure, a search, a recovery."""
