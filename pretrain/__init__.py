"""Trains and describes backbones. Knows nothing of the tasks that start from them."""
