"""The feature extractor as an ONNX graph that takes raw pixels: no preprocessing to forget."""

import json
import warnings
from pathlib import Path

import torch
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from transfer.formats import passports
from transfer.formats.proof import (
    Proof,
    assemble,
    compare,
    features,
    level_names,
    normalised,
    raw_image,
)

_OPSET = 17


class _Extractor(nn.Module):
    """uint8 RGB (N, 3, H, W) to the levels."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        spec = backbone.spec
        indices = tuple(level_names(backbone).values())
        self.network = FeatureGetterNet(assemble(backbone), out_indices=indices)
        self.register_buffer("mean", 255 * torch.tensor(spec.mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(spec.std).reshape(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> list[Tensor]:
        return self.network((pixels.float() - self.mean) / self.std)


def write_onnx(backbone: Backbone, path: Path) -> None:
    """Input `pixels`, outputs `res2` and so on; any number and size of images.

    Raises:
        UsageError: onnx is missing, or the network cannot be traced.
    """
    try:
        import onnx
    except ImportError as error:
        raise UsageError("--to onnx needs the packages onnx and onnxruntime: pip install them "
                        "(pip install -e '.[export]').") from error  # fmt: skip
    names = list(level_names(backbone))
    image = raw_image(*_size(backbone))[None]
    free = {0: "images", 2: "height", 3: "width"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's own deprecation and constant folding
        try:
            torch.onnx.export(
                _Extractor(backbone).eval(),
                (image,),
                str(path),
                input_names=["pixels"],
                output_names=names,
                dynamic_axes={name: free for name in ("pixels", *names)},
                opset_version=_OPSET,
                dynamo=False,
            )
        except Exception as error:  # a tracer meets whatever a network's code raises
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise UsageError(f"{backbone.spec.arch} cannot be written as ONNX: {first}") from error
    passport = onnx.ModelProto()
    entry = passport.metadata_props.add()
    entry.key, entry.value = passports.KEY, json.dumps(passports.issue(backbone, None))
    with open(path, "ab") as handle:  # messages of protobuf that follow each other are one
        handle.write(passport.SerializeToString())


def prove_onnx(backbone: Backbone, path: Path) -> Proof | None:
    """Onnxruntime on raw pixels of another size than the traced; None where it is missing."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    height, width = _size(backbone)
    image = raw_image(height, width + 32)
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        found = session.run(None, {"pixels": image[None].numpy()})
    except Exception as error:  # its exceptions have no common base
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"onnxruntime refuses the graph of {backbone.spec.arch}, on an image of another width "
            f"than it was traced with: {first}"
        ) from error
    theirs = dict(zip((output.name for output in session.get_outputs()), found, strict=True))
    ours = features(backbone, normalised(backbone, image))
    return compare(f"onnxruntime {onnxruntime.__version__}", ours, theirs)


def _size(backbone: Backbone) -> tuple[int, int]:
    _, height, width = backbone.spec.input_size
    return height, width
