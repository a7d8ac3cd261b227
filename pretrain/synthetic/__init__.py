"""Synthetic shapes: the embedded data, drawn by this project, in the layouts of the real data sets.

Ten shapes in eight colours and four textures, at many sizes and positions on cluttered backgrounds.
Every image is a function of (seed, split, number), so a tree is the same wherever it is drawn. How
hard they are is `Difficulty`: size, noise, and how much of each object is hidden or outside.
"""

from pretrain.synthetic.heart import heart
from pretrain.synthetic.scene import SHAPES
from pretrain.synthetic.trees import Difficulty, captions, classification, detection, segmentation

__all__ = [
    "SHAPES",
    "Difficulty",
    "captions",
    "classification",
    "detection",
    "heart",
    "segmentation",
]
