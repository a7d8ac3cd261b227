"""Data without a recipe: what is chosen, said and asked."""

import importlib
import os
import pickle
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image

from pretrain.config import LoaderConfig, ModelConfig, PretrainConfig
from pretrain.projection import Projection, Rehearsal, project
from pretrain.run import plain
from pretrain.training import make_fabric
from tests.conftest import ROOT
from tests.tools.test_tools import inside
from tools.support.command import Parser, build_config, load_config
from tools.support.recipe_choice import DataSummary, Machine, choose, choose_demo
from transfer import task as tasks
from transfer.captioning.config import ModelConfig as CaptionerModel

CPU, GPU, GPUS = Machine(), Machine(device="cuda", cores=16, gpu_gib=24), Machine(
    device="cuda", cores=4, gpu_gib=16, processes=3)  # fmt: skip
SYNSETS = tuple(f"n{number:08}" for number in range(1000))
VOC = ("VOC2007/trainval+VOC2012/trainval", "VOC2007/test")


def folders(images: int, side: int, classes: tuple[str, ...] = ("cat", "dog")) -> DataSummary:
    return DataSummary(layout="image folders", num_images=images, short_side=side, classes=classes)


def cifar(classes: int) -> DataSummary:
    names = tuple(map(str, range(classes)))
    return DataSummary(layout=f"CIFAR-{classes}", num_images=50_000, short_side=32, classes=names)


def objects(images: int, splits=(None, None)) -> DataSummary:
    return DataSummary(layout="Pascal VOC's layout", num_images=images, splits=splits)


def masks(images: int, layout: str = "masks", side: int = 64) -> DataSummary:
    return DataSummary(layout=layout, num_images=images, short_side=side)


def captions(splits=(None, None)) -> DataSummary:
    return DataSummary(layout="captions", num_images=80, splits=splits)


IMAGENET, TINY, CIFAR = (
    f"pretrain/{name}_cutmix"
    for name in ("imagenet_resnet50", "tinyimagenet_resnet18", "cifar10_resnet18")
)
FPN = "detection/voc0712_detectron2_fpn"
# task, data, machine, given -> recipe, some of the resolved values
CASES = [
    ("pretrain", folders(1_281_167, 375, SYNSETS), GPU, {}, IMAGENET,
     {"name": "imagenet_resnet50_cutmix", "epochs": 300, "batch_size": 256, "loader.workers": 8}),
    ("pretrain", folders(1_281_167, 375, SYNSETS), CPU, {}, IMAGENET,
     {"name": "imagenet_resnet50_cutmix", "model.arch": "resnet50", "loader.workers": 1}),
    ("pretrain", cifar(10), GPU, {}, "pretrain/cifar_pyramidnet200_cutmix",
     {"epochs": 300, "batch_size": 64, "optimizer.lr": 0.25, "model.arch": "pyramidnet200_a240"}),
    ("pretrain", cifar(100), CPU, {}, CIFAR, {"name": "cifar10_resnet18_cutmix", "epochs": 200}),
    ("pretrain", folders(100_000, 64, SYNSETS[:200]), GPU, {}, TINY,
     {"name": "tinyimagenet_resnet18_cutmix", "epochs": 400, "dataset.image_size": 64}),
    # ImageNet made small is no paper's row
    ("pretrain", folders(1_281_167, 64, SYNSETS), GPU, {}, TINY,
     {"name": "resnet18_cifar_fitted", "epochs": 300, "batch_size": 100}),
    ("pretrain", folders(9_469, 112, SYNSETS[:10]), CPU, {}, IMAGENET,
     {"name": "resnet18_fitted", "model.arch": "resnet18", "dataset.image_size": 96,
      "dataset.crop_pct": 0.875, "epochs": 300, "batch_size": 256, "mixing.probability": 0.5,
      "optimizer.schedule": "cosine"}),
    ("pretrain", folders(400, 160), CPU, {}, IMAGENET,
     {"dataset.image_size": 160, "dataset.crop_pct": 1.0, "epochs": 1000, "batch_size": 16,
      "optimizer.lr": 0.1, "optimizer.lr_batch": 256}),
    ("pretrain", folders(5_000_000, 500), GPUS, {}, IMAGENET,
     {"model.arch": "resnet50", "dataset.image_size": 224, "epochs": 77, "batch_size": 255,
      "mixing.probability": 1.0}),
    ("pretrain", folders(60_000, 28), CPU, {}, CIFAR,
     {"dataset.image_size": 32, "dataset.cache": True, "epochs": 200, "batch_size": 128}),
    ("pretrain", folders(2_000_000, 48), GPU, {}, CIFAR,
     {"dataset.image_size": 48, "dataset.cache": False, "epochs": 192}),
    ("pretrain", folders(3, 500), CPU, {}, IMAGENET, {"batch_size": 3, "epochs": 1000}),
    # the backbone's own size; what a user gives stands, and the rest follows
    ("pretrain", folders(9_469, 112), CPU, {"model.arch": "vit_tiny_patch16_224"}, IMAGENET,
     {"name": "vit_tiny_patch16_224_fitted", "dataset.image_size": 224, "dataset.crop_pct": 1.0}),
    ("pretrain", folders(9_469, 500), CPU, {"model.arch": "convnext_tiny", "batch_size": 64,
     "epochs": 5}, IMAGENET, {"dataset.image_size": 224, "epochs": 5, "batch_size": 64,
                              "optimizer.lr_batch": 256}),
    ("classification", folders(10_000, 0), GPU, {}, "classification/finetune",
     {"name": "finetune_fitted", "epochs": 50, "batch_size": 64, "dataset.image_size": None,
      "precision": "bf16-mixed", "optimizer.warmup": "2 epochs", "mode": "linear,knn,full"}),
    ("classification", folders(400, 0), CPU, {}, "classification/finetune",
     {"epochs": 125, "batch_size": 16, "precision": "32-true", "optimizer.lr_batch": 64}),
    ("classification", folders(1_281_167, 0), GPU, {"epochs": 1}, "classification/finetune",
     {"epochs": 1, "optimizer.warmup": "0.04 epochs"}),
    ("detection", objects(16_551, VOC), GPU, {}, FPN,
     {"name": "voc0712_detectron2_fpn", "duration": "18000 steps", "batch_size": 16,
      "dataset.train": VOC[0], "accumulate": 2}),
    ("detection", objects(16_551), GPU, {}, FPN,
     {"name": "detectron2_fpn_fitted", "epochs": 17, "duration": None, "dataset.train": None}),
    ("detection", objects(117_266), Machine(device="cuda", gpu_gib=80, processes=8), {}, FPN,
     {"epochs": 12, "batch_size": 16, "accumulate": 1, "optimizer.lr": 0.02,
      "optimizer.milestones": ("8 epochs", "10.6667 epochs")}),
    ("detection", objects(296), CPU, {}, FPN,
     {"epochs": 36, "batch_size": 16, "accumulate": 8, "optimizer.warmup": "3.6 epochs"}),
    ("detection", objects(16_551, VOC), GPU, {"detector.kind": "ssd"},
     "detection/voc0712_paper_ssd300", {"accumulate": 1}),
    ("detection", objects(296), CPU, {"detector.kind": "ssd"}, "detection/voc0712_paper_ssd300",
     {"epochs": 475, "batch_size": 16, "optimizer.lr": 0.001, "name": "ssd300_fitted",
      "accumulate": 1}),  # its BatchNorms are trained: no micro-batches of two images
    *(("detection", objects(16_551, VOC), GPU, {"detector.kind": kind},
       "detection/coco_detectron2_retinanet",
       {"epochs": 17, "batch_size": 16, "optimizer.lr": 0.01, "name": f"{kind}_fitted",
        "detector.kind": kind, "dataset.train": VOC[0]}) for kind in ("retinanet", "fcos")),
    ("detection", objects(61), CPU, {}, FPN, {"epochs": 47, "batch_size": 2, "accumulate": 1}),
    ("detection", objects(16_551, VOC), CPU, {"batch_size": 4, "duration": "900 steps"}, FPN,
     {"duration": "900 steps", "epochs": None, "batch_size": 4, "optimizer.lr_batch": 16,
      "optimizer.milestones": ("600 steps", "800 steps")}),
    *(("segmentation", masks(1_464, "Pascal VOC 2012", 366), machine, given,
       f"segmentation/voc2012_{kind}_resnet50",
       {"name": f"voc2012_{kind}_resnet50", "segmenter.kind": kind, "dataset.short_side": 520})
      for machine in (CPU, GPU)
      for kind, given in (("fcn", {}), ("deeplabv3", {"segmenter.kind": "deeplabv3"}))),
    ("segmentation", masks(300, side=500), GPU, {}, "segmentation/small",
     {"name": "small_fitted", "segmenter.kind": "unet", "epochs": 20, "batch_size": 8,
      "dataset.short_side": 160, "dataset.crop_size": 128, "dataset.layout": "auto"}),
    ("segmentation", masks(40, side=64), CPU, {"segmenter.kind": "fcn"}, "segmentation/small",
     {"epochs": 150, "batch_size": 8, "dataset.short_side": None, "dataset.crop_size": 64,
      "segmenter.kind": "fcn", "segmenter.aux_weight": 0.0, "optimizer.lr": 1e-3}),
    ("segmentation", masks(20_000, side=300), CPU, {}, "segmentation/small", {"epochs": 3}),
    ("segmentation", masks(20_000, side=300), GPUS, {"segmenter.kind": "deeplabv3"},
     "segmentation/voc2012_deeplabv3_resnet50",
     {"epochs": 16, "batch_size": 6, "optimizer.lr": 0.01, "dataset.short_side": None,
      "dataset.crop_size": 320, "segmenter.aux_weight": 0.5, "dataset.layout": "auto"}),
    ("segmentation", masks(1_902, "ACDC"), GPU, {}, "segmentation/acdc_masks",
     {"name": "acdc_masks", "dataset.labels": "masks"}),
    ("segmentation", masks(1_902, "ACDC"), GPU, {"dataset.labels": "scribbles"},
     "segmentation/acdc_scribbles", {"name": "acdc_scribbles", "dataset.labels": "scribbles"}),
    ("segmentation", masks(1_902, "ACDC"), GPU, {"segmenter.kind": "fcn"},
     "segmentation/acdc_masks", {"segmenter.kind": "fcn", "name": "acdc_masks_fcn"}),
    ("captioning", captions(("train2014", "val2014")), GPU, {}, "captioning/paper_nic",
     {"name": "paper_nic", "dataset.train": "train2014", "epochs": 100, "decoding.beam": 20}),
    ("captioning", captions(), CPU, {"epochs": 2}, "captioning/paper_nic",
     {"name": "nic", "dataset.train": None, "dataset.val": None, "epochs": 2, "batch_size": 20}),
    ("captioning", captions(("train2014", "val2014")), CPU,
     {"model.kind": "transformer", "epochs": 5}, "captioning/transformer_karpathy",
     {"name": "transformer", "dataset.layout": "auto", "model.encoder_layers": 6, "epochs": 5,
      "optimizer.warmup": "0.6 epochs", "precision": "32-true"}),
    # a start decides the model; what a recipe for other data says of it is none of the user's words
    ("captioning", captions(), GPU, {"start_from": "runs/x"}, "captioning/paper_nic",
     {"start_from": "runs/x", "model": CaptionerModel(), "dataset.image_size": None}),
    ("captioning", captions(), GPU, {"start_from": "runs/x", "objective": "self_critical"},
     "captioning/show_and_tell_karpathy_scst",
     {"name": "nic_scst", "start_from": "runs/x", "optimizer.lr": 5e-5, "dataset.layout": "auto"}),
]  # fmt: skip


@cache
def parser_of(name: str) -> tuple[type, Parser]:
    kind, parser = tasks.load(tasks.by_name(name).config), Parser()
    parser.add_configuration(kind, "x")
    return kind, parser


def parse(name: str, words):
    """The configuration of a command line."""
    kind, parser = parser_of(name)
    return build_config(kind, parser, parser.parse(words))


@pytest.mark.parametrize(("name", "data", "machine", "given", "recipe", "values"), CASES)
def test_the_rule(name, data, machine, given, recipe, values):
    choice = choose(name, data, machine, given)
    assert choice == choose(name, data, machine, given)
    assert choice.recipe == recipe
    words = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    config = parse(name, ["--config", str(choice.path), *choice.words, *words])
    for key, value in values.items():
        found = config
        for part in key.split("."):
            found = getattr(found, part)
        assert found == value, key
    if "name" not in choice.changes:  # the published recipe, as it stands
        assert choice.changes.keys() <= {"loader.workers", "accumulate"}
    assert str(choice).startswith(f"recipe configs/{recipe}.yaml")


@pytest.mark.parametrize(
    ("task", "given", "recipe"),
    [
        ("pretrain", {"model.arch": "resnet10t"}, "demo"),
        ("detection", {"epochs": 1}, "demo"),
        *(("detection", {"detector.kind": k}, f"{k}_small") for k in ("retinanet", "fcos", "ssd")),
        *(("segmentation", {"segmenter.kind": kind}, "demo") for kind in ("deeplabv3", "unet")),
        ("captioning", {"model.kind": "attention"}, "demo"),
        ("captioning", {"model.kind": "transformer", "epochs": 2}, "transformer_small"),
    ],
)
def test_the_kind_chooses_the_recipe_of_the_shapes(task, given, recipe):
    choice = choose_demo(task, given)
    assert choice.recipe == f"{task}/{recipe}"
    words = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    parse(task, ["--config", str(choice.path), *choice.words, *words])  # which it fits


def test_on_the_shapes_too_a_start_decides_its_model(tmp_path):
    given = {"start_from": str(tmp_path), "objective": "self_critical"}
    config = parse(
        "captioning",
        ["--config", str(choose_demo("captioning", given).path)]
        + choose_demo("captioning", given).words
        + [f"--{key}={value}" for key, value in given.items()],
    )
    assert config.model == CaptionerModel()
    assert (config.name, config.dataset.image_size) == ("demo_scst", None)
    (tmp_path / "config.yaml").write_text("model: {kind: transformer}")
    choice = choose("captioning", captions(), CPU, given)
    assert choice.recipe == "captioning/transformer_karpathy_scst"


def test_what_is_said_is_what_was_given():
    """Not what would have been chosen, which an option on the command line replaces."""
    given = {"dataset.image_size": 128, "optimizer.lr": 0.5, "mixing.method": "mixup"}
    choice = choose("pretrain", folders(60, 400), CPU, given)
    assert "resnet18, as for less than 100,000 images, at 128 pixels" in str(choice)
    assert "(0.5 for 256)" in str(choice)
    assert "CutMix" not in str(choice)
    assert "mixing.probability" not in choice.changes
    assert "(0.5 for 16)" in str(choose("detection", objects(60), CPU, {"optimizer.lr": 0.5}))
    assert "encoder, 99 pixels" in str(
        choose("captioning", captions(), CPU, {**given, "dataset.image_size": 99})
    )


# ---- the tools


@pytest.fixture
def projected(tmp_path, monkeypatch):
    """A CPU that takes so many hours for a hundred epochs, as a list to be changed; steps made."""
    monkeypatch.chdir(tmp_path)
    hours: list[float] = [0.5]
    monkeypatch.setattr("tools.support.rehearsal.rehearse", lambda *a, **b: None)
    monkeypatch.setattr(
        "pretrain.projection.project",
        lambda *a: Projection(3, 1.0, 1.0, hours[0], 0.0, 100.0, 1.0),
    )
    return hours


def draw_cifar() -> None:
    Path("data/cifar-10-batches-py").mkdir(parents=True)
    images = {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1]}
    content = {f"data_batch_{number}": images for number in range(1, 6)} | {"test_batch": images}
    content["batches.meta"] = {"label_names": list("abcdefghij")}
    for name, value in content.items():
        Path("data/cifar-10-batches-py", name).write_bytes(pickle.dumps(value, 2))


def draw_folders(side: int, classes) -> None:
    """One picture in every class, in training and validation."""
    Path("one").mkdir()
    Image.new("RGB", (side, side), "red").save("one/0.png")
    Path("data/train").mkdir(parents=True)
    Path("data/val").symlink_to("train")
    for name in classes:
        Path("data/train", name).symlink_to(Path("one").resolve())


def copy(world: str, worlds) -> None:
    Path("data").symlink_to(worlds[world])


@pytest.mark.parametrize(
    ("tool", "data", "said", "values"),
    [
        ("pretrain", lambda w: draw_folders(224, SYNSETS), "resnet50_cutmix.yaml: ImageNet",
         {"name": "imagenet_resnet50_cutmix", "epochs": 300}),
        ("pretrain", lambda w: draw_cifar(), "cifar10_resnet18_cutmix.yaml: CIFAR-10, the usual",
         {"name": "cifar10_resnet18_cutmix", "epochs": 200}),
        ("pretrain", lambda w: draw_folders(64, SYNSETS[:200]), "_cutmix.yaml: Tiny ImageNet",
         {"name": "tinyimagenet_resnet18_cutmix", "batch_size": 100}),
        ("pretrain", lambda w: copy("classification", w),
         "cutmix.yaml fitted: 60 images of 32 pixels (median short side); resnet18_cifar, at 32 "
         "pixels; 1,000 epochs, 60,000 images seen, batch 8; learning rate 0.00625 (0.1 for 128)",
         {"name": "resnet18_cifar_fitted", "epochs": 1000, "batch_size": 8}),
        ("finetune_cls", lambda w: copy("classification", w), "finetune.yaml fitted: 60 images",
         {"name": "finetune_fitted", "epochs": 200, "precision": "32-true"}),
        ("finetune_det", lambda w: copy("detection", w),
         "fpn.yaml fitted: Pascal VOC's layout, 10 images, detectron2's", {"batch_size": 1}),
        ("finetune_seg", lambda w: copy("segmentation", w),
         "small.yaml fitted: 12 images of 64 pixels (median short side), U-Net; 400 epochs, 4,800 "
         "images seen, batch 8", {"name": "small_fitted", "epochs": 400}),
        ("finetune_cap", lambda w: copy("captions", w), "paper_nic.yaml fitted: captions of 12",
         {"name": "nic", "epochs": 100}),
    ],
)  # fmt: skip
def test_a_layout_s_recipe(tool, data, said, values, projected, worlds, backbone_file, capsys):
    data(worlds)
    words = ["--data", "data", "--dry-run", "--device", "cpu"]
    words += [] if tool == "pretrain" else ["--backbone", str(backbone_file)]
    importlib.import_module(f"tools.{tool}").main(words)
    out, error = capsys.readouterr()
    first = error.splitlines()[0]
    assert first.startswith("note: recipe configs/")
    assert said in first
    assert first.endswith("; --config FILE takes another")
    shown = yaml.safe_load("\n".join(line for line in out.splitlines() if line[:1] != "#"))
    assert {key: shown[key] for key in values} == values
    assert tool == "pretrain" or "note: projected: 30.0 minutes on this CPU" in error
    assert not Path("runs").exists()


def test_years_of_a_devkit_are_one_data_set(worlds, tmp_path):
    from tools.support.recipe_choice import summarize
    from transfer.detection.config import DatasetConfig

    for year, lists in (("VOC2007", ("trainval", "test")), ("VOC2012", ("trainval",))):
        (tmp_path / year / "ImageSets/Main").mkdir(parents=True)
        for name in ("Annotations", "JPEGImages"):
            (tmp_path / year / name).symlink_to(worlds["detection"] / name)
        for place, name in enumerate(lists):
            held = (
                worlds["detection"] / "ImageSets/Main" / ("train.txt", "val.txt")[place]
            ).read_text()
            (tmp_path / year / f"ImageSets/Main/{name}.txt").write_text(held)
    data = summarize("detection", tmp_path, DatasetConfig())
    assert (data.splits, data.num_images) == (VOC, 20)
    one = summarize(
        "detection", tmp_path, DatasetConfig(train="VOC2007/trainval", test="VOC2007/test")
    )
    assert (one.splits, one.num_images) == (("VOC2007/trainval", "VOC2007/test"), 10)


def test_the_paper_s_captions_are_known_by_their_files(worlds, tmp_path):
    from tools.support.recipe_choice import summarize
    from transfer.captioning.config import DatasetConfig

    (tmp_path / "annotations").mkdir()
    for split in ("train", "val"):
        (tmp_path / f"{split}2014").symlink_to(worlds["captions"] / f"{split}2017")
        held = worlds["captions"] / f"annotations/captions_{split}2017.json"
        for year in (2014, 2017):
            (tmp_path / f"annotations/captions_{split}{year}.json").symlink_to(held)
    data = summarize("captioning", tmp_path, DatasetConfig())
    assert (data.splits, data.num_images) == (("train2014", "val2014"), 12)


def test_more_than_a_day_on_a_cpu_wants_a_yes(projected, worlds, backbone_file, capsys):
    words = ["--backbone", backbone_file, "--data", worlds["classification"], "--mode", "knn",
             "--dataset.image_size", "32", "--loader.workers", "0", "--device", "cpu"]  # fmt: skip
    projected[0] = 100.0
    code, error = inside("finetune_cls", *words, capsys=capsys)
    assert (code, os.listdir()) == (2, [])
    assert error.splitlines()[1] == "note: projected: 4.2 days on this CPU, by 3 measured steps"
    for said in ("the run takes 100 hours on this CPU", "wants --yes", "--epochs 21 takes less",
                 "--config configs/classification/demo.yaml"):  # fmt: skip
        assert said in error.splitlines()[-1]
    main = importlib.import_module("tools.finetune_cls").main
    main([*map(str, words), "--yes"])
    assert Path("runs/classification-finetune_fitted/result.json").exists()


def test_a_recipe_that_is_given_stays_as_it_is(projected, worlds, backbone_file, capsys):
    projected[0] = 100.0
    recipe = ROOT / "configs/classification/demo.yaml"
    words = ["--backbone", str(backbone_file), "--data", str(worlds["classification"])]
    words += ["--device", "cpu", "--dry-run", "--config", str(recipe)]
    importlib.import_module("tools.finetune_cls").main(words)
    out, error = capsys.readouterr()
    assert "recipe" not in error
    assert "projected" not in error
    kind = tasks.load(tasks.by_name("classification").config)
    config = load_config(kind, recipe, backbone=words[1], data=words[3])
    shown = yaml.safe_load("\n".join(line for line in out.splitlines() if line[:1] != "#"))
    assert shown == plain(config)


def test_a_grid_chooses_too_and_its_jobs_are_told_all(worlds, backbone_file, projected, capsys):
    from tools.support.grid_plan import plan

    names = ["classification", "detection", "segmentation", "captioning"]
    data = {name: str(worlds[name if name != "captioning" else "captions"]) for name in names}
    jobs = plan([str(backbone_file)], names, {}, data, [7])
    error = capsys.readouterr().err
    for job in jobs:
        assert f"note: {job.task}: recipe configs/{job.task}/" in error
        assert plain(parse(job.task, job.options)) == job.config
    assert {job.config["name"] for job in jobs} == {
        "finetune_fitted",
        "detectron2_fpn_fitted",
        "small_fitted",
        "nic",
    }


def test_random_weights_in_a_grid_are_asked_for_by_the_recipe_or_beside_the_backbones(
    worlds, backbone_file, tmp_path
):
    from tools.support.grid_plan import plan

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: nic\ndataset: {min_count: 1}\nrandom_init: true\n")
    given = [str(backbone_file)], ["captioning"]
    data = {"captioning": str(worlds["captions"])}
    (job,) = plan(*given, {"captioning": recipe}, data)
    assert (job.config["random_init"], job.name) == (True, "backbone0")
    recipe.write_text("name: nic\ndataset: {min_count: 1}\n")
    jobs = plan(*given, {"captioning": recipe}, data, [7, 8], random_init=True)
    assert [(job.seed, job.config["random_init"]) for job in jobs] == [
        (7, False), (7, True), (8, False), (8, True),
    ]  # fmt: skip
    assert [job.backbone["seed"] for job in jobs] == [3, 7, 3, 8]


# ---- what a run will take


def test_a_projection_counts_samples_and_what_is_done_once(monkeypatch):
    config, fabric = (
        PretrainConfig(batch_size=4, loader=LoaderConfig(workers=0)),
        make_fabric("cpu"),
    )
    batches = SimpleNamespace(ranks=1, rank=0, accumulate=1)

    class Batches(list):
        def epoch(self, number: int):
            return iter(self)

    loader = Batches([fabric.to_device(np.zeros(1))] * 5)
    loader.batches = batches
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("pretrain.projection.time", SimpleNamespace(monotonic=lambda: clock.now))

    def train_step(step, parts):
        clock.now += 0.04

    run = Rehearsal(
        config=config, loader=loader, train_step=train_step,
        trained=4e6, scored=3e6, seconds=7200.0,
    )  # fmt: skip
    cost = project(run, fabric)
    assert cost.steps == 4
    assert cost.hours_once == 2
    assert cost.hours - 2 == pytest.approx((4e6 + 1e6) * 0.01 / 3600)
    assert cost.epochs == 4e6 / 20
    assert cost.epochs_within(cost.hours) == pytest.approx(cost.epochs)
    assert project(run, fabric, most_seconds=0.0).steps == 1


@pytest.mark.parametrize(
    ("name", "trained", "scored"),
    [
        ("classification", 20 * 2 * 30, 20 * 20 + 20),
        ("detection", 6 * 8, 3 * 6),
        ("segmentation", 20 * 8, 5 * 6),
        ("captioning", 10 * 50, 10 * 6 + 3 * 6),
    ],
)
def test_every_trainer_can_be_rehearsed(name, trained, scored, worlds, backbone, tmp_path):
    from tools.support.rehearsal import rehearse

    task, world = tasks.by_name(name), worlds["captions" if name == "captioning" else name]
    config = load_config(
        tasks.load(task.config),
        ROOT / f"configs/{name}/demo.yaml",
        [
            "--loader.workers",
            "0",
            "--data",
            str(world),
            *{
                "detection": ["--dataset.short_side", "64"],
                "segmentation": ["--dataset.crop_size", "32"],
            }.get(name, ["--dataset.image_size", "64"]),
        ],
    )
    if task.resolve:
        config = tasks.load(task.resolve)(config)
    setup, fabric = tasks.load(task.build)(backbone, config), make_fabric("cpu")
    run = rehearse(name, setup, config, fabric, small=True)
    assert (run.trained, run.scored) == (trained, scored)
    assert (run.seconds > 0) == (name not in ("detection", "segmentation"))
    assert project(run, fabric, 0.0).hours > 0
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("score_every", "scorings"), [(1, 4), (2, 2), (3, 2), (0, 1)])
def test_a_pretraining_is_rehearsed_with_the_scorings_that_it_has(score_every, scorings, worlds):
    from pretrain.setup import build
    from tools.support.rehearsal import rehearse

    config = PretrainConfig(
        data=str(worlds["classification"]), model=ModelConfig(arch="resnet10t"), epochs=4,
        batch_size=8, score_every=score_every, loader=LoaderConfig(workers=0),
    )  # fmt: skip
    setup = build(config)
    run = rehearse("pretrain", setup, config, make_fabric("cpu"))
    assert run.scored == scorings * len(setup.data.val)
