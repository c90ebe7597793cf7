"""GGUF: a model folder as one file that llama.cpp runs."""
