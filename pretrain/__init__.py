"""Lower room: trains and describes backbones. Knows nothing of the tasks above it."""
