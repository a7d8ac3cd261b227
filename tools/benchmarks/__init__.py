"""Measurements side by side with the field's own programs, each in one run: tools/bench.py."""
