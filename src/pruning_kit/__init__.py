"""Remove transformer blocks from a language model and measure what each choice costs and wins."""
