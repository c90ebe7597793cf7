"""Run folders: writing them, reading them, sharing them between processes."""
