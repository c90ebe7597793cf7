"""This machine: its devices, memory, disk and what it reads of itself."""
