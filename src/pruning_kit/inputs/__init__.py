"""What goes in: models and their families, texts, windows."""
