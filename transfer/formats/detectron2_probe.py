"""What detectron2 makes of exported weights. A program of its own: nothing of ours is imported.

    python -I detectron2_probe.py IMAGE.npy WEIGHTS CONFIG.yaml ...

It may be run by the interpreter of another environment, the one where detectron2 is installed.
The image is uint8 RGB (3, H, W). The levels come as CONFIG.npz beside each configuration, with the
text `version`. Weights come in through detectron2's own checkpointer, the image through its model's
own normalisation. Exit code 3: detectron2 cannot be imported.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np


def probe(config: str, weights: str, image: np.ndarray) -> dict[str, np.ndarray]:
    """Every level of the network that a YAML describes, `res2` to `res5`, with a file's weights.

    Args:
        config: the YAML.
        weights: the file; what the YAML names is not looked at.
        image: uint8 RGB (3, H, W), both sides multiples of 32.

    Raises:
        ValueError: tensors of the backbone that the file did not fill.
    """
    import torch
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    cfg = get_cfg()
    cfg.merge_from_file(config)
    cfg.MODEL.WEIGHTS = weights
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 8  # behind the backbone: a hundred million random numbers less
    model: Any = build_model(cfg).eval()
    resnet = getattr(model.backbone, "bottom_up", model.backbone)
    stages = dict(zip(resnet.stage_names, resnet.stages, strict=True))
    if hasattr(model.roi_heads, "res5"):
        stages["res5"] = model.roi_heads.res5
    body = torch.nn.ModuleList([resnet.stem, *stages.values()])
    with torch.no_grad():
        for tensor in body.state_dict().values():
            tensor.fill_(float("nan"))
    DetectionCheckpointer(model).load(weights)
    # detectron2 itself fills in a running variance that is missing: the levels must tell that
    empty = [name for name, tensor in body.state_dict().items() if bool(tensor.isnan().any())]
    if empty:
        raise ValueError(f"detectron2 did not fill {len(empty)} tensors, first {empty[0]}")
    pixels = image if cfg.INPUT.FORMAT == "RGB" else image[::-1].copy()
    levels = {}
    with torch.no_grad():
        value = model.preprocess_image([{"image": torch.as_tensor(pixels)}]).tensor
        value = resnet.stem(value)
        for name, stage in stages.items():
            value = stage(value)
            levels[name] = value.numpy()
    return levels


def main(image: str, weights: str, *configs: str) -> None:
    """Write the levels of every configuration."""
    try:
        import detectron2
        import torch
    except ImportError as error:
        print(error, file=sys.stderr)
        sys.exit(3)
    version: Any = f"detectron2 {detectron2.__version__}, torch {torch.__version__}"
    for config in configs:
        levels = probe(config, weights, np.load(image))
        np.savez(Path(config).with_suffix(".npz"), version=version, **levels)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
