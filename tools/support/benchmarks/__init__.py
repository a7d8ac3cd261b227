"""Measurements side by side with other programs, each in one run: tools/bench.py."""
