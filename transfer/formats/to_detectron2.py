"""Weights and configurations that stock detectron2 trains from, without this package.

R.pkl holds the backbone under detectron2's names; R-fpn.yaml, R-c4.yaml and R-dc5.yaml name it and
carry mean, std, channel order, strides, groups, widths, depth and normalisation. What detectron2
has no tensor for (the classifier, BatchNorm's counters) is kept beside the model in the pickle.
"""

import errno
import json
import pickle
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from transfer.detectron2_resnet import Head, dilated_res5, heads_of, model_config, split_tensors
from transfer.formats import sidecar
from transfer.parity import ParityReport, compare, features, normalize, raw_image

# features of res2 to res5 equal for every head, by tests/transfer/formats/test_detectron2.py
VERIFIED_COMMIT = "02b5c4e295e990042a714712c21dc79b731e8833"
VERIFIED = frozenset({
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d",
    "resnext101_32x4d", "resnext101_32x8d", "wide_resnet50_2", "wide_resnet101_2",
    "resnet50_caffe", "resnet101_caffe",
})  # fmt: skip
_PROBE = Path(__file__).with_name("detectron2_probe.py")
_IMAGE = (160, 224)  # multiples of 32: detectron2 pads nothing


def config(backbone: Backbone, head: Head, weights: str) -> dict[str, Any]:
    """The YAML's content: the model, and detectron2's own schedule for Pascal VOC 2007+2012."""
    model = {**model_config(backbone, head), "WEIGHTS": weights}
    model["ROI_HEADS"] = {**model["ROI_HEADS"], "NUM_CLASSES": 20}
    return {
        "MODEL": model,
        "INPUT": {
            "FORMAT": "RGB",
            "MIN_SIZE_TRAIN": [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800],
            "MIN_SIZE_TEST": 800,
        },
        "DATASETS": {
            "TRAIN": ["voc_2007_trainval", "voc_2012_trainval"],
            "TEST": ["voc_2007_test"],
        },
        "SOLVER": {
            "IMS_PER_BATCH": 16,
            "BASE_LR": 0.02,
            "STEPS": [12000, 16000],
            "MAX_ITER": 18000,
            "WARMUP_ITERS": 100,
        },
        "VERSION": 2,
    }


def config_paths(backbone: Backbone, path: Path, heads: Sequence[Head] | None) -> dict[Head, Path]:
    """The YAML of each head, beside the weights `path`."""
    return {head: path.with_name(f"{path.stem}-{head}.yaml") for head in heads_of(backbone, heads)}


def export(
    backbone: Backbone,
    draft: Path,
    path: Path,
    heads: Sequence[Head] | None,
    python: str | None,
    unverified: bool,
) -> tuple[list[ParityReport], str]:
    """Write weights and configurations and compare them in detectron2.

    Args:
        backbone: what is exported.
        draft: the .pkl to be written; the configurations go beside it.
        path: where the .pkl will lie in the end, which the configurations name.
        heads: a YAML for each; None writes all that are possible.
        python: the interpreter of the environment with detectron2; None is this one.
        unverified: write though nothing has compared this architecture with detectron2's.

    Returns:
        the reports (of which one may have failed), or none and a note that says why.

    Raises:
        UsageError: detectron2 refuses the files; or it is missing, and nothing else verifies them.
    """
    configs = config_paths(backbone, draft, heads)

    def write_files(parity: list[ParityReport] | str, note: str) -> None:
        write_weights(backbone, draft, sidecar.describe(backbone, parity))
        for head, file in configs.items():
            write_config(backbone, head, file, path.absolute(), note)

    write_files("none yet", "")
    if reports := verify(backbone, draft, configs, python):
        write_files(reports, f"Verified against {reports[0].target.rpartition(',')[0]}.")
        return reports, ""
    if backbone.spec.arch in VERIFIED:
        note = "this file was not compared: detectron2 is missing (--python names an interpreter "
        note += f"that has it); mapping verified against detectron2 {VERIFIED_COMMIT}"
    elif unverified:
        note = "UNVERIFIED: detectron2 is missing, and no test has compared this architecture"
    else:
        raise UsageError(
            "detectron2 cannot be imported, and no test of this project has compared "
            f"{backbone.spec.arch} with it. Give --python, the interpreter of an environment that "
            "has it, or --unverified."
        )
    write_files(note, note[0].upper() + note[1:] + ".")
    return [], note


def write_weights(backbone: Backbone, path: Path, metadata: Mapping[str, Any]) -> None:
    """The .pkl, with the sidecar's content in it; equal content gives equal bytes."""
    model, rest = split_tensors(backbone)
    content = {
        "model": {name: tensor.numpy() for name, tensor in model.items()},
        "__author__": "cutmix-transfer",
        "matching_heuristics": True,  # detectron2 then fits `res2` under `backbone.bottom_up.`
        "rest": {name: tensor.numpy() for name, tensor in rest.items()},
        sidecar.KEY: json.dumps(metadata),
    }
    with open(path, "wb") as handle:
        _Pickler(handle, protocol=4).dump(content)


_PythonPickler: Any = pickle._Pickler  # type: ignore[attr-defined]  # the one written in Python


class _Pickler(_PythonPickler):
    """Names NumPy's functions as NumPy 1 did, which detectron2's environments often still have."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module = getattr(obj, "__module__", "") or ""
        if not module.startswith("numpy._core"):
            super().save_global(obj, name)
            return
        self.save(module.replace("numpy._core", "numpy.core"))
        self.save(name or obj.__qualname__)
        self.write(pickle.STACK_GLOBAL)
        self.memoize(obj)


def write_config(backbone: Backbone, head: Head, path: Path, weights: Path, note: str) -> None:
    """The YAML, its first comment saying what it is."""
    comment = (
        f"# {backbone.name} ({backbone.fingerprint()}), Faster R-CNN {head.upper()}, for stock "
        f"detectron2.\n# Images must be RGB, which FORMAT sees to. {note}\n"
        "# The schedule is detectron2's own for Pascal VOC 2007+2012: 16 images a step.\n"
        f"#   python tools/train_net.py --config-file {path.name}\n"
    )
    content = config(backbone, head, str(weights))
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=100)
    path.write_text(comment + text, encoding="utf-8")


def verify(
    backbone: Backbone, weights: Path, configs: Mapping[Head, Path], python: str | None
) -> list[ParityReport] | None:
    """One report for each head; None where detectron2 cannot be imported.

    Args:
        backbone: what is exported.
        weights: the .pkl, in a folder where the probe may leave files.
        configs: the YAML of each head.
        python: the interpreter of the environment with detectron2; None is this one.

    Raises:
        UsageError: the interpreter cannot be run, or detectron2 refuses what was written.
    """
    image = raw_image(*_IMAGE)
    raw = weights.with_suffix(".npy")
    np.save(raw, image.numpy())
    interpreter = [python or sys.executable, "-I", "-W", "ignore"]
    command: list[str | Path] = [*interpreter, _PROBE, raw, weights, *configs.values()]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise UsageError(f"--python {python} cannot be run: {error}") from error
    if done.returncode == 3:
        return None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        if full := re.match(rf"OSError: \[Errno ({errno.ENOSPC}|{errno.EDQUOT})\] (.+)", last):
            raise OSError(int(full[1]), full[2])
        raise UsageError(f"detectron2 refused the exported files: {last}")
    levels = features(backbone, normalize(backbone, image))
    reports = []
    for head, config in configs.items():
        ours = {name: levels[name] for name in ("res2", "res3", "res4", "res5")}
        if head == "dc5":
            ours["res5"] = dilated_res5(backbone, ours["res4"])
        with np.load(config.with_suffix(".npz")) as archive:
            theirs = dict(archive)
        version = theirs.pop("version")
        reports.append(compare(f"{version}, {head.upper()}", ours, theirs))
    return reports
