"""The feature extractor as an ONNX graph that takes raw pixels: no preprocessing to forget."""

import json
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from pretrain.backbone import Backbone
from pretrain.errors import UsageError, first_line
from transfer import parity
from transfer.formats import sidecar


class _Extractor(nn.Module):
    """uint8 RGB (N, 3, H, W) to the levels."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        spec = backbone.spec
        self.network = parity.feature_network(backbone)
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
    names = list(parity.level_names(backbone))
    extractor = _Extractor(backbone).eval().requires_grad_(False)
    image = parity.raw_image(*backbone.spec.input_size[1:])[None]
    axes = {0: "images", 2: "height", 3: "width"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's own deprecation and constant folding
        try:
            torch.onnx.export(
                extractor,
                (image,),
                str(path),
                input_names=["pixels"],
                output_names=names,
                dynamic_axes=dict.fromkeys(("pixels", *names), axes),
                opset_version=17,
                dynamo=False,
                export_params=False,  # they are appended, one at a time
                do_constant_folding=False,
                training=torch.onnx.TrainingMode.PRESERVE,  # folds no norm into a copy of weights
            )
        except OSError:
            raise
        except Exception as error:  # a tracer meets whatever a network's code raises
            raise UsageError(
                f"{backbone.spec.arch} cannot be written as ONNX: {first_line(error)}"
            ) from error
    model = onnx.load(path)
    entry = model.metadata_props.add()
    entry.key, entry.value = sidecar.KEY, json.dumps(sidecar.describe(backbone, None))
    weights = {value.name for value in model.graph.input[1:]}
    del model.graph.input[1:]
    with open(path, "wb") as handle:  # messages of protobuf that follow each other are one
        handle.write(model.SerializeToString())
        for name, tensor in extractor.state_dict().items():
            if name in weights:
                part = onnx.ModelProto()
                part.graph.initializer.append(onnx.numpy_helper.from_array(tensor.numpy(), name))
                handle.write(part.SerializeToString())


def verify_onnx(backbone: Backbone, path: Path) -> list[parity.ParityReport]:
    """Onnxruntime on raw pixels of another size than the traced; empty where it is missing."""
    try:
        import onnxruntime
    except ImportError:
        return []
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # the graph as it is written: onnxruntime's own changes of it hold the weights twice more
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.disable_prepacking", "1")
    _, height, width = backbone.spec.input_size
    image = parity.raw_image(height, width + 32)
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        outputs = session.run(None, {"pixels": image[None].numpy()})
    except Exception as error:  # its exceptions have no common base
        raise UsageError(
            f"onnxruntime refuses the graph of {backbone.spec.arch}, on an image of another width "
            f"than it was traced with: {first_line(error)}"
        ) from error
    theirs = dict(zip((output.name for output in session.get_outputs()), outputs, strict=True))
    ours = parity.features(backbone, parity.normalize(backbone, image))
    return [parity.compare(f"onnxruntime {onnxruntime.__version__}", ours, theirs)]
