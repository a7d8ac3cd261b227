"""From what a user types after --backbone to a Backbone. Today: paths."""

from pathlib import Path

from pretrain.backbone import Backbone
from pretrain.errors import UserError
from transfer import formats


def resolve(name: str) -> Backbone:
    """The backbone in a file, or in the folder of a finished pretraining run.

    Raises:
        UserError: nothing there, or not a backbone.
    """
    path = Path(name)
    if path.is_dir():
        if not (path / "backbone.pth").exists():
            raise UserError(
                f"the folder {name} has no backbone.pth: it is no finished pretraining "
                "run. Give a backbone file."
            )
        path = path / "backbone.pth"
    return formats.read(path)
