"""The shape world: our embedded data, drawn by the project, in the field's own layouts.

Ten shapes in eight colours and four textures, at many sizes and places on cluttered backgrounds.
Every image is a function of (seed, split, number), so a tree is the same wherever it is drawn.
"""

from pretrain.synthetic.scene import SHAPES, Scene, Thing, draw, make_scene
from pretrain.synthetic.sentences import sentences
from pretrain.synthetic.trees import captions, classification, detection

__all__ = [
    "SHAPES",
    "Scene",
    "Thing",
    "captions",
    "classification",
    "detection",
    "draw",
    "make_scene",
    "sentences",
]
