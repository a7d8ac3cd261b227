"""The run that ties folders, features and modes together, and what it leaves."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pretrain.backbone import Backbone, BackboneSpec, Provenance
from pretrain.config import LoaderConfig
from pretrain.data_digest import read_digest
from pretrain.errors import Stopped, UsageError
from pretrain.run import Result, Run
from pretrain.training import derive, epochs_above_chance, make_fabric
from transfer.classification import engine
from transfer.classification.config import (
    ClassificationConfig,
    DatasetConfig,
    FinetuneOptimizerConfig,
    KnnConfig,
    LinearConfig,
)
from transfer.classification.folders import open_image_folders
from transfer.classification.setup import build, setup_training

pytestmark = pytest.mark.usefixtures("no_pictures")
CPU = make_fabric("cpu")


@pytest.fixture(scope="module")
def small(backbone) -> Backbone:
    """The backbone for 32 pixels: what the classification world has."""
    spec = replace(backbone.spec, input_size=(3, 32, 32), crop_pct=1.0)
    return Backbone(spec=spec, provenance=backbone.provenance, weights=backbone.weights)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def three(worlds, tmp_path_factory) -> Path:
    """train, val and test with three classes."""
    root = tmp_path_factory.mktemp("three")
    for split, into in (("train", "train"), ("val", "val"), ("val", "test")):
        for shape in ("arrow", "ring", "star"):
            shutil.copytree(worlds["classification"] / split / shape, root / into / shape)
    for number, path in enumerate(sorted((root / "test").rglob("*.jpg"))):
        path.write_bytes(path.read_bytes() + bytes([number]))  # not the files of val
    return root


def optimizer(**changes) -> FinetuneOptimizerConfig:
    return replace(ClassificationConfig().optimizer, **changes)


def config(tree: Path, cache: str, **changes) -> ClassificationConfig:
    tiny = ClassificationConfig(
        name="test",
        data=str(tree),
        epochs=2,
        batch_size=6,
        loader=LoaderConfig(workers=0),
        cache=cache,
        linear=LinearConfig(penalties=(1e-3, 1e-1)),
        knn=KnnConfig(ks=(1, 3, 999)),
        dataset=DatasetConfig(min_scale=0.5),
        optimizer=optimizer(lr=0.01, head_lr=0.05),
    )
    return replace(tiny, **changes)


@pytest.fixture(scope="module")
def first(three, small, cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("first") / "run"
    return engine.finetune(small, config(three, cache), Run(folder), CPU), folder


def tensors(path: Path) -> dict:
    """Every tensor of a file."""
    found, stack = {}, [("", torch.load(path, weights_only=True))]
    while stack:
        at, value = stack.pop()
        if isinstance(value, dict):
            stack += [(f"{at}.{key}", inner) for key, inner in value.items()]
        elif isinstance(value, torch.Tensor):
            found[at] = value
    return found


def same(one: Path, two: Path) -> bool:
    for name in ("checkpoints/last.pth", "classifier.pth"):
        left, right = tensors(one / name), tensors(two / name)
        if left.keys() != right.keys():
            return False
        if not all(torch.equal(tensor, right[at]) for at, tensor in left.items()):
            return False
    return all((one / n).read_bytes() == (two / n).read_bytes() for n in ("predictions.json",))


def measured(result: Result) -> dict:
    return {k: v for k, v in result.metrics.items() if "second" not in k}


def test_a_loss_above_that_of_chance_is_said_and_kept(three, small, cache, tmp_path, capsys):
    def train(head_lr: float) -> Result:
        options = config(three, cache, mode="full", optimizer=optimizer(lr=1e-6, head_lr=head_lr))
        return engine.finetune(small, options, Run(tmp_path / str(head_lr)), CPU)

    assert train(0.01).metrics["epochs_above_chance"] == 0
    assert "chance" not in capsys.readouterr().err
    wild = train(100.0)
    assert wild.metrics["loss"] > 2 * math.log(3)
    assert wild.metrics["epochs_above_chance"] == 2
    assert epochs_above_chance([18.6, 3.3, 3.2, 1.6], math.log(5)) == 2
    assert "far above 1.1 of chance: the steps are too large" in capsys.readouterr().err


def test_a_run_leaves_what_it_promises(first, three):
    result, folder = first
    metrics = result.metrics
    assert Result.read(folder / "result.json") == result
    assert (result.task, result.metric) == ("classification", "linear_top1")
    assert (metrics["scored"], metrics["chosen_on"]) == ("test", "val")
    assert metrics["knn_skipped"] == [999]
    assert set(metrics["linear_path"]) == {"0.001", "0.1"}
    said = json.loads((folder / "predictions.json").read_text())
    assert list(said) == sorted(p.relative_to(three).as_posix() for p in three.glob("test/*/*"))
    for mode in ("linear", "knn", "full"):
        right = [row[mode] == row["true"] for row in said.values()]
        assert metrics[f"{mode}_top1"] == pytest.approx(100 * np.mean(right))
    assert all(row["true"] == name.split("/")[1] for name, row in said.items())
    wrong = sum(row["linear"] != row["true"] for row in said.values())
    assert sum(pair["count"] for pair in metrics["confused"]) == wrong
    assert (folder / "pictures/confusion.png").stat().st_size > 5000
    facts = {"name": three.name, "train": 18, "scored": 6, "classes": 3, "notes": []}
    assert result.data == {**facts, "digest": read_digest(folder / "data.json")["digest"]}


def test_the_probe_is_chosen_on_val_and_ties_go_to_the_stronger(first, three, small, cache):
    """By a penalty path of which every member is solved apart, on features that are made anew."""
    result, _ = first
    data = open_image_folders(three, DatasetConfig())
    from pretrain.images import decode
    from transfer.classification.probe import SoftmaxRegression

    network, see = small.build(0).eval(), small.preprocess()
    with torch.no_grad():
        features = torch.cat([network(see(decode(path))[None]) for path in data.paths])
    labels = torch.from_numpy(data.labels)
    train, val, test = (torch.from_numpy(n) for n in (data.train, data.choose, data.scored))
    problem = SoftmaxRegression(features[train], labels[train], 3, "squared", torch.device("cpu"))
    scores = {}
    for penalty in (1e-1, 1e-3):
        probe = problem.solve(penalty, 1e-6, 1000)
        right = [(probe.predict(features[n]) == labels[n]).double().mean() for n in (val, test)]
        scores[penalty] = [100 * float(value) for value in right]
    path = result.metrics["linear_path"]
    assert {float(key): value for key, value in path.items()} == {
        penalty: pytest.approx(values[0], abs=0.01) for penalty, values in scores.items()
    }
    best = max(scores, key=lambda penalty: (scores[penalty][0], penalty))
    assert result.metrics["linear_penalty"] == best
    assert result.metrics["linear_top1"] == pytest.approx(scores[best][1])


def test_the_classifier_alone_says_the_same(first, three):
    """From pixels through the saved file."""
    from pretrain.images import decode

    _, folder = first
    held = Backbone.load(folder / "classifier.pth")
    assert held.provenance.classes == ["arrow", "ring", "star"]
    network, see = held.build().eval(), held.preprocess()
    for name, row in json.loads((folder / "predictions.json").read_text()).items():
        with torch.no_grad():
            said = int(network(see(decode(three / name))[None]).argmax())
        assert held.provenance.classes[said] == row["full"]


def test_without_a_test_split_the_probe_is_fitted_again_on_all_of_train(
    worlds, small, cache, tmp_path
):
    options = config(worlds["classification"], cache, mode="knn,linear")
    result = engine.finetune(small, options, Run(tmp_path), CPU)
    assert result.metrics["modes"] == ["linear", "knn"]
    assert (result.metrics["scored"], result.metrics["chosen_on"]) == ("val", "held out of train")
    assert not (tmp_path / "classifier.pth").exists()
    # the same figures from a tree whose val is called test: fitted on train, scored once
    assert not {"full_top1", "epochs"} & result.metrics.keys()
    from transfer.classification.frozen import encode
    from transfer.classification.probe import SoftmaxRegression

    frozen = encode(build(small, options), options, CPU)
    data = frozen.data
    problem = SoftmaxRegression(*frozen.select(data.train), 10, "squared", torch.device("cpu"))
    again = problem.solve(result.metrics["linear_penalty"], 1e-6, 1000)
    assert result.metrics["linear_objective"] == pytest.approx(again.objective, abs=1e-7)


def test_stopped_and_resumed_equals_uninterrupted(first, three, small, cache, tmp_path):
    options = config(three, cache)
    for step in (2, 3, 4):
        with pytest.raises(Stopped, match=f"step {step} of 6"):
            engine.finetune(small, options, Run(tmp_path), CPU, stop_after=step)
    result = engine.finetune(small, options, Run(tmp_path), CPU)
    assert same(first[1], tmp_path)
    assert measured(result) == measured(first[0])


def test_finished_modes_are_not_computed_again(first, three, small, cache, tmp_path, monkeypatch):
    """Interrupted in k-NN, then after the last epoch: each time only what is missing is done."""
    options = config(three, cache)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine, "knn", interrupted)
        with pytest.raises(Stopped, match="1 of 3 modes"):
            engine.finetune(small, options, Run(tmp_path), CPU)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "linear_probe", interrupted)
        patch.setattr(engine, "_finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.finetune(small, options, Run(tmp_path), CPU)
    monkeypatch.setattr(engine, "train_classifier", interrupted)
    monkeypatch.setattr(engine, "encode", interrupted)  # nor is any image looked at
    file = tmp_path / "modes" / "linear.json"
    whole = file.read_text()
    for torn in ("{", '{"x": 1}', '{"metrics": {}, "predicted": [], "left_out": []}'):
        file.write_text(torn)
        with pytest.raises(UsageError, match=rf"^{file}: .*\. Remove it: the mode is measured"):
            engine.finetune(small, options, Run(tmp_path), CPU)
    file.write_text(whole)
    result = engine.finetune(small, options, Run(tmp_path), CPU)
    assert measured(result) == measured(first[0])
    assert same(first[1], tmp_path)


def test_a_run_goes_on_with_its_own_images_only(three, small, cache, tmp_path):
    shutil.copytree(three, tmp_path / "tree")
    options = config(tmp_path / "tree", cache, mode="full")
    with pytest.raises(Stopped):
        engine.finetune(small, options, Run(tmp_path / "run"), CPU, stop_after=1)
    next((tmp_path / "tree/train/ring").iterdir()).unlink()
    with pytest.raises(UsageError, match="the data has changed since"):
        engine.finetune(small, options, Run(tmp_path / "run"), CPU)


def test_best_and_last_epoch_are_both_scored(three, small, cache, tmp_path, monkeypatch):
    """Val falls after the first epoch: the best is the first epoch's network, on test."""

    real, predict, seen, scored = engine.top1, engine.predict, [], []

    def falling(matrix):
        seen.append(matrix)
        return -float(len(seen)) if len(seen) <= 3 else real(matrix)  # val after each epoch

    def spied(network, *rest):
        scored.append({name: value.clone() for name, value in network.state_dict().items()})
        return predict(network, *rest)

    monkeypatch.setattr(engine, "top1", falling)
    monkeypatch.setattr(engine, "predict", spied)
    options = config(three, cache, mode="full", epochs=3)
    result = engine.finetune(small, options, Run(tmp_path), CPU)
    assert (result.metrics["best_epoch"], result.metric) == (1, "full_top1")
    best = Backbone.load(tmp_path / "checkpoints/best.pth")
    assert best.provenance.epochs == 1
    for number in (0, -1):  # after the first epoch, and at the end
        assert all(torch.equal(value, best.weights[n]) for n, value in scored[number].items())
    last = Backbone.load(tmp_path / "classifier.pth")
    assert not torch.equal(last.weights["fc.weight"], best.weights["fc.weight"])
    from pretrain.images import decode

    network, see = best.build().eval(), best.preprocess()
    data = open_image_folders(three, DatasetConfig())
    with torch.no_grad():
        said = [int(network(see(decode(data.paths[n]))[None]).argmax()) for n in data.scored]
    right = 100 * float(np.mean(np.array(said) == data.labels[data.scored]))
    assert result.metrics["full_top1_best"] == pytest.approx(right)


def test_fine_tuning_can_learn(three, small, cache, tmp_path):
    """Eighteen pictures by heart. (The norms' running statistics lag behind for longer.)"""
    options = config(
        three,
        cache,
        mode="full",
        epochs=6,
        batch_size=18,
        dataset=DatasetConfig(min_scale=0.9),
        optimizer=optimizer(name="adamw", lr=1e-3, head_lr=1e-3),
    )
    engine.finetune(small, options, Run(tmp_path), CPU)
    log = Run(tmp_path).read_log()
    assert log[0]["loss"] > 0.9
    assert log[-1]["loss"] < 0.2
    assert log[-1]["train_top1"] > 90


def test_rates_and_decay_go_to_the_right_weights(small, three, cache):
    rates = optimizer(lr=0.1, head_lr=0.7, weight_decay=0.3)
    options = config(three, cache, optimizer=rates)
    state, _ = setup_training(build(small, options), options, CPU)
    names = {id(parameter): name for name, parameter in state.network.named_parameters()}
    found = {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in state.optimizer.param_groups
        for parameter in group["params"]
    }
    assert found.keys() == set(names.values())
    assert found["fc.weight"] == (0.7, 0.3)
    assert found["fc.bias"] == (0.7, 0.0)
    assert found["layer1.0.conv1.weight"] == (0.1, 0.3)
    assert found["layer1.0.bn1.weight"] == (0.1, 0.0)


def test_broken_pictures_stop_the_run_or_are_named(three, small, cache, tmp_path, capsys):
    shutil.copytree(three, tmp_path / "tree")
    for name in ("train/ring", "test/star"):
        path = sorted((tmp_path / "tree" / name).iterdir())[0]
        path.write_bytes(b"no picture")
    run = tmp_path / "run"
    options = config(tmp_path / "tree", cache)
    with pytest.raises(UsageError, match=r"2 of 30 images cannot be read.*max_corrupt 2"):
        engine.finetune(small, options, Run(run), CPU)
    assert not run.exists()
    options = replace(options, dataset=DatasetConfig(max_corrupt=2))
    result = engine.finetune(small, options, Run(run), CPU)
    assert result.metrics["images_left_out"] == 2
    assert len(result.metrics["left_out"]) == 2
    said = json.loads((run / "predictions.json").read_text())
    (row,) = [row for row in said.values() if row["linear"] is None]
    assert row == {"true": "star", "linear": None, "knn": None, "full": None}
    assert "left out (2 of at most 2)" in capsys.readouterr().err
    for path in (tmp_path / "tree/test/star").iterdir():
        path.write_bytes(b"no picture")
    options = replace(options, dataset=DatasetConfig(max_corrupt=9))
    with pytest.raises(UsageError, match="no test image of class star can be read"):
        engine.finetune(small, options, Run(tmp_path / "other"), CPU)


def test_equal_files_on_both_sides_are_told(three, small, cache, tmp_path, capsys):
    shutil.copytree(three, tmp_path / "tree")
    shutil.copy(next((three / "test/star").iterdir()), tmp_path / "tree/train/star/again.jpg")
    options = config(tmp_path / "tree", cache, mode="knn")
    engine.finetune(small, options, Run(tmp_path / "run"), CPU)
    assert "1 images are both trained on and scored" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": None}, "give --data DIR"),
        ({"batch_size": 99}, "batch_size is 99, but there are only 18 training images"),
        ({"knn": KnnConfig(ks=(50,))}, "only 18 images"),
        ({"accumulate": 4}, "must be a multiple of 4"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_computed(
    changes, said, three, small, tmp_path
):
    options = config(three, str(tmp_path / "cache"), **changes)
    with pytest.raises(UsageError, match=said):
        engine.finetune(small, options, Run(tmp_path / "run"), CPU)
    assert list(tmp_path.iterdir()) == []


def test_one_image_a_class_leaves_nothing_to_choose_on(three, small, cache, tmp_path):
    for split, count in (("train", 1), ("val", 2)):
        for folder in (three / split).iterdir():
            (tmp_path / split / folder.name).mkdir(parents=True)
            for path in sorted(folder.iterdir())[:count]:
                shutil.copy(path, tmp_path / split / folder.name)
    options = config(tmp_path, cache, batch_size=2, knn=KnnConfig(ks=(1,)))
    with pytest.raises(UsageError, match=r"no class of .* has two training images"):
        build(small, options)
    assert len(build(small, replace(options, mode="full")).data.train) == 3


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ClassificationConfig(mode="linear,svm"), "'svm' is none of linear, knn, full"),
        (lambda: ClassificationConfig(mode=""), "none of linear, knn, full"),
        (lambda: ClassificationConfig(optimizer=optimizer(warmup=99)), "longer than the"),
        (lambda: LinearConfig(penalties=(0.0, 1.0)), "all above 0"),
        (lambda: LinearConfig(penalties=()), "give one or more"),
        (lambda: KnnConfig(ks=(0,)), "all at least 1"),
        (lambda: KnnConfig(temperature=0), "temperature is 0"),
        (lambda: DatasetConfig(val_fraction=1.0), "val_fraction is 1.0"),
        (lambda: DatasetConfig(crop_pct=2.0), "crop_pct is 2.0"),
        (lambda: FinetuneOptimizerConfig(head_lr=0), "head_lr is 0"),
        (lambda: DatasetConfig(min_scale=0), "min_scale is 0"),
    ],
)
def test_mistakes_in_a_configuration(make, said):
    with pytest.raises(UsageError, match=said):
        make()


def test_the_recipe_s_preprocessing_is_what_the_network_sees(three, small, cache):
    options = DatasetConfig(image_size=48, crop_pct=0.5, interpolation="bicubic")
    seen = build(small, config(three, cache, dataset=options)).backbone
    assert seen.spec.input_size == (3, 48, 48)
    assert (seen.spec.crop_pct, seen.spec.interpolation) == (0.5, "bicubic")
    assert build(small, config(three, cache)).backbone is small
    assert small.preprocess(train=True, min_scale=0.3).transforms[0].scale == (0.3, 1.0)


def test_random_weights_are_those_of_the_architecture(three, small, cache, tmp_path):
    """As timm makes them under the seed, in each mode; the preprocessing is the backbone's."""
    options = config(three, cache, random_init=True, seed=5, mode="linear,full", epochs=1)
    options = replace(options, dataset=DatasetConfig(image_size=24))
    setup = build(small, options)
    timms = small.spec.create(small.spec.num_classes, derive(5, "weights")).state_dict()
    for name, tensor in setup.backbone.weights.items():
        assert torch.equal(tensor, timms[name]), name
    assert setup.backbone.spec == replace(small.spec, input_size=(3, 24, 24))
    result = engine.finetune(small, options, Run(tmp_path / "run"), CPU)
    assert result.backbone == setup.given.describe()
    assert (result.backbone["method"], result.backbone["seed"]) == ("from scratch", 5)
    alone = build(Backbone.load(tmp_path / "run/classifier.pth"), config(three, cache))
    assert alone.backbone.provenance.stated["from"]["method"] == "from scratch"
    again = replace(options, random_init=False, mode="linear")
    again = engine.finetune(setup.given, again, Run(tmp_path / "again"), CPU)
    assert again.metrics["linear_path"] == result.metrics["linear_path"]


def test_a_network_without_a_pooled_feature_is_refused(three, cache, monkeypatch):
    from transfer.feature_cache import Encoder

    monkeypatch.setattr(Encoder, "feature_shape", lambda *_: (8, 2, 2))
    spec = BackboneSpec(arch="resnet10t", input_size=(3, 32, 32), num_classes=2)
    backbone = Backbone.of(spec.create(2, 0), spec, Provenance())
    with pytest.raises(UsageError, match="no single feature to classify by"):
        build(backbone, config(three, cache))
