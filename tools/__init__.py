"""Command line tools, imported by nobody; a package, lest detectron2's `tools` be found instead."""
