"""Scores of the embedded worlds follow the signal: clearly above chance on large clean objects,
and chance where all of each object is hidden. Two shapes, so that little training will do.
"""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from pretrain import synthetic
from pretrain.backbone import Backbone, BackboneSpec, Provenance
from pretrain.config import LoaderConfig
from pretrain.run import Run
from pretrain.training import make_fabric
from transfer.captioning import config as captioning
from transfer.captioning import engine as captioner
from transfer.captioning.scores import score
from transfer.classification import engine as classifier
from transfer.classification.config import ClassificationConfig
from transfer.classification.config import DatasetConfig as ImageConfig
from transfer.detection import config as detection
from transfer.detection import engine as detector
from transfer.detection.average_precision import evaluate
from transfer.detection.data import open_data
from transfer.detection.inference import detect, load_detector, scoring_loader
from transfer.segmentation import config as segmentation
from transfer.segmentation import engine as segmenter

pytestmark = pytest.mark.usefixtures("no_pictures")
CPU, HERE = make_fabric("cpu"), LoaderConfig(workers=0)
EASY = {"size": 32, "smallest": 0.38, "largest": 0.43, "noise": 0}


@pytest.fixture(autouse=True)
def _two_shapes(monkeypatch):
    monkeypatch.setattr(synthetic.trees, "_NAMES", ["ring", "square"])


@pytest.fixture(scope="module")
def untrained() -> Backbone:
    spec = BackboneSpec(arch="test_resnet", input_size=(3, 32, 32), num_classes=10, crop_pct=1.0)
    return Backbone.of(spec.create(10, seed=0), spec, Provenance())


def test_a_classifier_of_hidden_objects_guesses(untrained, tmp_path):
    """One of two classes; a standard deviation of guessing is 4.6 points."""
    top1 = {}
    for hidden in (0, 1):
        tree = synthetic.classification(tmp_path, train=200, val=120, occlusion=hidden, **EASY)
        config = ClassificationConfig(
            name="test",
            data=str(tree),
            mode="full",
            epochs=5,
            batch_size=20,
            dataset=ImageConfig(min_scale=0.9),
            loader=HERE,
        )
        config = replace(config, optimizer=replace(config.optimizer, lr=0.05, head_lr=0.05))
        result = classifier.finetune(untrained, config, Run(tmp_path / f"{hidden}"), CPU)
        top1[hidden] = result.metrics["full_top1"]
    assert top1[0] > 70
    assert abs(top1[1] - 50) < 14


def test_a_detector_finds_nothing_where_objects_are_hidden(untrained, tmp_path):
    """The same detector, on other images than it was trained on, intact and hidden."""
    made = {"smallest": 0.2, "largest": 0.3, "noise": 0, "size": 48, "train": 40, "val": 20}
    config = detection.DetectionConfig(
        name="test",
        engine="torchvision",
        data=str(synthetic.detection(tmp_path, **made)),
        dataset=detection.DatasetConfig(short_side=48, long_side=48),
        detector=detection.DetectorConfig(
            fpn_channels=32,
            head_channels=64,
            freeze=0,
            batch_norm="trained",
            anchor_sizes=(12, 24, 48, 96, 192),
            proposals_before_nms=100,
            proposals=50,
            test_proposals=30,
            rois=32,
        ),
        epochs=8,
        batch_size=5,
        loader=HERE,
        optimizer=replace(
            detection.DetectionConfig().optimizer,
            name="adamw",
            lr=2e-3,
            schedule="cosine",
            clip_norm=10,
        ),
    )
    result = detector.finetune(untrained, config, Run(tmp_path / "run"), CPU)
    hidden = synthetic.detection(tmp_path, **made, occlusion=1)
    truth = open_data(hidden, config.dataset).test
    held = load_detector(tmp_path / "run")
    images = scoring_loader(truth.images, held.dataset, CPU)
    rows = detect(held.model, images, truth.images, held.classes, CPU)
    assert result.metrics["AP50"] > 15
    assert evaluate(truth, rows).mean["voc07"]["AP50"] < 3


def test_a_segmenter_of_hidden_objects_guesses_where_they_are(untrained, tmp_path):
    """The same masks, of images that show the objects and of those that do not."""
    made = {"smallest": 0.3, "largest": 0.4, "noise": 0, "size": 32, "train": 60, "val": 20}
    trees = [synthetic.segmentation(tmp_path, **made, occlusion=hidden) for hidden in (0, 1)]
    shutil.copytree(trees[0] / "masks", trees[1] / "masks", dirs_exist_ok=True)
    dice = []
    for tree in trees:
        config = segmentation.SegmentationConfig(
            name="test",
            data=str(tree),
            dataset=segmentation.DatasetConfig(crop_size=32, scales=(0.9, 1.1)),
            epochs=5,
            batch_size=10,
            loader=HERE,
            optimizer=segmentation.SegmentationOptimizerConfig(
                name="adamw", lr=5e-3, schedule="cosine", clip_norm=10
            ),
        )
        result = segmenter.finetune(untrained, config, Run(tmp_path / f"run {tree.name}"), CPU)
        dice.append(result.metrics["Dice"])
    assert dice[0] > dice[1] + 6


def test_captions_of_hidden_objects_fit_no_better_than_those_of_others(backbone, tmp_path):
    """CIDEr beside that of the same captions dealt to the images in other orders."""
    gain = {}
    for hidden in (0, 1):
        run = Run(tmp_path / f"{hidden}")
        config = captioning.CaptioningConfig(
            name="test",
            data=str(synthetic.captions(tmp_path, train=120, val=60, occlusion=hidden, **EASY)),
            epochs=4,
            batch_size=25,
            loader=HERE,
            meteor="off",
            cache=str(tmp_path / "cache"),
            dataset=captioning.DatasetConfig(min_count=1, image_size=32),
            model=captioning.ModelConfig(embed_size=48, hidden_size=96),
            decoding=captioning.DecodingConfig(beam=1),
        )
        config = replace(config, optimizer=replace(config.optimizer, lr=5e-3, schedule="cosine"))
        captioner.finetune(backbone, config, run, CPU)
        rows = json.loads((run.folder / "captions.json").read_text())
        references = {row["image_id"]: row["references"] for row in rows}
        said = [row["caption"] for row in rows]
        dealt = [dict(zip(references, np.roll(said, by).tolist(), strict=True)) for by in range(30)]
        own, *others = (score(references, captions).corpus["CIDEr"] for captions in dealt)
        gain[hidden] = own - np.mean(others)
    assert gain[0] > 0.4
    assert gain[1] < 0.3  # three times what it varies by from one order to another
