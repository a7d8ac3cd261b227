"""What the tools share; no tool itself."""
