"""The run: its steps beside a plain loop, its scores beside its label maps, stopped and resumed."""

import multiprocessing
import os
import socket
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from pretrain.backbone import Backbone
from pretrain.config import CheckpointsConfig, LoaderConfig
from pretrain.errors import Stopped, UsageError
from pretrain.run import Result, Run
from pretrain.training import make_fabric
from tools.finetune_seg import describe
from transfer.segmentation import engine, setup
from transfer.segmentation.boundaries import BoundaryF
from transfer.segmentation.config import (
    VOID,
    DatasetConfig,
    MixingConfig,
    SegmentationConfig,
    SegmenterConfig,
)
from transfer.segmentation.inference import SegmenterFile, load_segmenter, predict
from transfer.segmentation.records import SegmentationData
from transfer.segmentation.scores import confusion_matrix, evaluate

pytestmark = pytest.mark.usefixtures("no_pictures")
SMALL = SegmenterConfig(output_stride=32, batch_norm="trained", aux_weight=0.5)
CLASSES = ("background", "one", "two")
STATISTICS = ("running", "num_batches")
COLOURS = torch.tensor([[30, 200, 90], [220, 40, 60], [20, 90, 250]], dtype=torch.uint8)


@pytest.fixture(scope="module")
def backbone(tiny_backbone) -> Backbone:
    return tiny_backbone


@dataclass(frozen=True)
class Painted:
    """A record in memory: three colours, or greys, each the sign of a class."""

    image_id: str
    case: str = ""
    grey: bool = False
    void: bool = False
    broken: bool = False
    spacing: tuple[float, float] | None = None

    def read_image(self) -> Tensor:
        if self.broken:
            raise UsageError(f"{self.image_id} is broken")
        labels = self._labels()
        if self.grey:
            return (labels - 1.0)[None].float()
        return COLOURS[labels].permute(2, 0, 1)

    def read_mask(self) -> Tensor:
        labels = self._labels()
        labels[:2] = VOID
        return torch.full_like(labels, VOID).byte() if self.void else labels.byte()

    def _labels(self) -> Tensor:
        draws = np.random.default_rng(sum(map(ord, self.image_id)))
        return torch.from_numpy(np.kron(draws.integers(3, size=(2, 3)), np.ones((16, 16), int)))


@pytest.fixture(autouse=True)
def unverified(monkeypatch):
    """That levels are the backbone's is tested elsewhere, and takes longer than a run here."""
    monkeypatch.setattr("transfer.body.verify_body", lambda *_: None)


def images(count: int, **changes) -> list[Painted]:
    return [Painted(f"image {number}", **changes) for number in range(count)]


@pytest.fixture
def on(monkeypatch, tmp_path):
    """A function from records to a configuration of a run on them."""

    def use(train: list, val: list, volumes: bool = False, **changes) -> SegmentationConfig:
        data = SegmentationData(
            "painted", CLASSES, train, val, ("train", "val"), volumes, (), (), ()
        )
        monkeypatch.setattr(setup, "open_data", lambda *_: data)
        tiny = SegmentationConfig(
            name="test",
            data=str(tmp_path),
            dataset=DatasetConfig(crop_size=32),
            segmenter=SMALL,
            epochs=2,
            batch_size=4,
            loader=LoaderConfig(workers=0),
        )
        return replace(tiny, **changes)

    return use


def finetune(backbone, config: SegmentationConfig, folder: Path, **options) -> Result:
    return engine.finetune(backbone, config, Run(folder), make_fabric("cpu"), **options)


def weights(folder: Path) -> dict[str, Tensor]:
    return torch.load(folder / "segmenter.pth", weights_only=True)["state_dict"]


def same_bits(one: Path, other: Path) -> bool:
    left, right = weights(one), weights(other)
    return all(torch.equal(tensor, right[name]) for name, tensor in left.items())


# ------------------------------------------------------------------------------------------ steps


def test_the_loss_is_the_mean_over_what_has_a_class():
    logits = torch.randn(3, 4, 5, 6, requires_grad=True)
    targets = torch.randint(4, (3, 5, 6))
    targets[0] = targets[1, :2] = VOID
    ours = engine.partial_cross_entropy(logits, targets)
    theirs = functional.cross_entropy(logits, targets, ignore_index=VOID)
    torch.testing.assert_close(ours, theirs)
    (gradient,) = torch.autograd.grad(ours, logits)
    torch.testing.assert_close(gradient, torch.autograd.grad(theirs, logits)[0])
    nothing = engine.partial_cross_entropy(logits, torch.full_like(targets, VOID))
    assert nothing == 0
    assert not torch.autograd.grad(nothing, logits)[0].any()


def test_the_loss_is_one_that_cuda_computes_deterministically():
    """torch refuses the mean and the sum of NLLLoss there (`use_deterministic_algorithms`)."""
    reductions = []

    class Watched(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if "nll_loss2d_forward" in str(function):
                reductions.append(args[3])
            return function(*args, **(kwargs or {}))

    with Watched():
        engine.partial_cross_entropy(torch.randn(2, 3, 4, 4), torch.zeros(2, 4, 4).long())
    assert reductions == [0]


@pytest.mark.parametrize(
    ("norm", "processes", "mixing", "said"),
    [
        ("trained", 1, {}, "BatchNorm needs more than one value"),
        ("sync", 1, {}, "BatchNorm needs more than one value"),
        ("trained", 2, {}, "BatchNorm needs more than one value"),
        ("sync", 2, {}, None),
        ("sync", 2, {"cutmix": 0.1}, "mixing takes pixels from other images of a micro-batch"),
        ("sync", 2, {"mosaic": 0.1}, "mixing takes pixels from other images of a micro-batch"),
    ],
)
def test_a_micro_batch_of_one_image(backbone, on, monkeypatch, norm, processes, mixing, said):
    """Over several processes a norm sees more than one value; there is nothing to paste."""
    pyramid = SegmenterConfig(kind="deeplabv3", output_stride=32, batch_norm=norm)
    config = on(images(4), images(1), segmenter=pyramid, mixing=MixingConfig(**mixing))
    config = replace(config, accumulate=4 // processes)
    monkeypatch.setattr(setup, "make_train_state", lambda *_, **__: None)
    fabric = SimpleNamespace(world_size=processes, global_rank=0, device=torch.device("cpu"))
    held = setup.build(backbone, config)
    if said is None:
        setup.setup_training(held, config, fabric)
        return
    with pytest.raises(UsageError, match=said):
        setup.setup_training(held, config, fabric)


def test_steps_are_those_of_the_reference_training(backbone, on, tmp_path):
    """references/segmentation/train.py of torchvision: its loss, its SGD, its schedule."""
    # of dropout the bits depend on how the values of a pixel lie in memory
    config = on(images(8), images(2), segmenter=replace(SMALL, dropout=0.0))
    config = replace(config, optimizer=replace(config.optimizer, lr=0.05))
    held = setup.build(backbone, config)
    _, loader = setup.setup_training(held, config, make_fabric("cpu"))
    model = setup.build(backbone, config).model.train()
    groups = [
        {"params": [*model.backbone.parameters(), *model.classifier.parameters()], "lr": 0.05},
        {"params": model.aux_classifier.parameters(), "lr": 0.5},
    ]
    sgd = torch.optim.SGD(groups, momentum=0.9, weight_decay=1e-4)
    poly = torch.optim.lr_scheduler.PolynomialLR(sgd, total_iters=4, power=0.9)
    losses = []
    for epoch in range(2):
        for pixels, masks in loader.epoch(epoch):
            outputs, targets = model(pixels), masks.long()
            loss, aux = (
                functional.cross_entropy(outputs[name], targets, ignore_index=VOID)
                for name in ("out", "aux")
            )
            losses.append(loss + 0.5 * aux)
            sgd.zero_grad()
            losses[-1].backward()
            sgd.step()
            poly.step()
    finetune(backbone, config, tmp_path / "run")
    logged = [record["loss"] for record in Run(tmp_path / "run").read_log()]
    means = torch.stack(losses).view(2, 2).mean(1).tolist()
    np.testing.assert_allclose(logged, means, rtol=1e-4)
    assert logged[1] < 0.9 * logged[0]
    theirs = model.state_dict()
    for name, tensor in weights(tmp_path / "run").items():
        # by length: processors round single weights of four large steps apart
        norm = torch.linalg.vector_norm
        close = 5e-3 * norm(theirs[name].float()) + 1e-4 * tensor.numel() ** 0.5
        assert norm(tensor.float() - theirs[name]) <= close, name


def test_random_weights_are_of_the_seed_and_all_are_trained(backbone, on, tmp_path):
    frozen = replace(SMALL, freeze=2, batch_norm="frozen")
    config = on(images(4), images(1), segmenter=frozen, random_init=True)
    before = torch.get_rng_state()
    one, same = setup.build(backbone, config), setup.build(backbone, config)
    assert torch.equal(torch.get_rng_state(), before)
    other = setup.build(backbone, replace(config, seed=1))
    given = setup.build(backbone, replace(config, random_init=False))
    assert not all(parameter.requires_grad for parameter in given.model.parameters())
    assert "random weights: all are trained" in describe(one, config)
    SegmenterFile(one.model, one.backbone, config, CLASSES, False).save(tmp_path / "a.pth")
    for model in (one.model, load_segmenter(tmp_path / "a.pth").model):
        assert all(parameter.requires_grad for parameter in model.parameters())
        assert all(module.training for module in model.train().modules())
    states = [held.model.state_dict() for held in (one, same, other, given)]
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name])
        if name.startswith("backbone") and name.endswith("conv.weight"):
            assert not any(torch.equal(tensor, state[name]) for state in states[2:])


@pytest.mark.parametrize(("given", "rate"), [(None, 0.1), (0.03, 0.03)])
def test_the_second_head_has_a_rate_of_its_own(backbone, on, given, rate):
    config = on(images(4), images(1))
    config = replace(config, optimizer=replace(config.optimizer, aux_lr=given))
    held = setup.build(backbone, config)
    state, _ = setup.setup_training(held, config, make_fabric("cpu"))
    rates = {id(one): group["lr"] for group in state.optimizer.param_groups
             for one in group["params"]}  # fmt: skip
    for name, parameter in state.network.named_parameters():
        assert rates[id(parameter)] == (rate if name.startswith("aux") else 0.01)


def test_batches_without_a_class_change_nothing(backbone, on, tmp_path):
    config = on(images(4, void=True), images(2, void=True), epochs=1)
    config = replace(config, optimizer=replace(config.optimizer, weight_decay=0.0))
    config = replace(config, segmenter=replace(SMALL, batch_norm="frozen"))
    result = finetune(backbone, config, tmp_path / "run")
    (record,) = Run(tmp_path / "run").read_log()
    assert (record["loss"], record["train_accuracy"]) == (0, 0)
    assert not {"mIoU", "Dice"} & {*record, *result.metrics}
    assert result.metrics["per_class_IoU"] == dict.fromkeys(CLASSES)
    trained, start = weights(tmp_path / "run"), setup.build(backbone, config).model.state_dict()
    for name, tensor in trained.items():
        if not any(word in name for word in STATISTICS):
            assert torch.equal(tensor, start[name]), name


def test_mixing_ends_at_its_epoch():
    config = MixingConfig(cutmix=1.0, off_epoch=2)
    assert [engine.mixing_at(config, epoch).cutmix for epoch in range(4)] == [1, 1, 0, 0]
    assert engine.mixing_at(replace(config, off_epoch=None), 9) == replace(config, off_epoch=None)


# -------------------------------------------------------------------------------------------- run


def by_hand(folder: Path, records: list) -> dict[str, Tensor]:
    """Confusion matrices by case of what the segmenter file makes of records."""
    held, found = load_segmenter(folder), {}
    for record in records:
        label_map = predict(held.model, record, held.dataset, make_fabric("cpu"))
        matrix = confusion_matrix(torch.from_numpy(label_map), record.read_mask(), len(CLASSES))
        found[record.case] = found.get(record.case, 0) + matrix
    return found


def boundary_f(folder: Path, records: list) -> float | None:
    """Of what the segmenter file makes of records."""
    held, boundaries = load_segmenter(folder), BoundaryF()
    for record in records:
        found = predict(held.model, record, held.dataset, make_fabric("cpu"))
        boundaries.see(found, record.read_mask().numpy())
    return boundaries.mean


def test_it_learns_and_leaves_what_it_promises(backbone, on, tmp_path, monkeypatch):
    config = on(
        images(8),
        images(10)[4:],
        segmenter=replace(SMALL, output_stride=8),
        epochs=8,
        score_every=4,
        mixing=MixingConfig(cutmix=0.5, mosaic=0.2, off_epoch=5),
        checkpoints=CheckpointsConfig(best=True),
    )
    calls, segment = Counter(), engine.segment

    def counted(*arguments):
        calls["segment"] += 1
        segment(*arguments)

    monkeypatch.setattr(engine, "segment", counted)
    folder = tmp_path / "run"
    result = finetune(backbone, config, folder)
    assert calls["segment"] == 2  # the last evaluation is the result's
    assert (result.task, result.metric) == ("segmentation", "mIoU")
    assert result.metrics["mIoU"] > 55
    log = Run(folder).read_log()
    assert {"epoch", "step", "lr", "loss", "train_accuracy", "images_per_second"} == {*log[0]}
    assert [record["epoch"] for record in log if "mIoU" in record] == [4, 8]
    assert {key: log[-1][key] for key in ("mIoU", "Dice")} == {
        key: result.metrics[key] for key in ("mIoU", "Dice")
    }
    assert log[-1]["loss"] < 0.5 * log[0]["loss"]
    assert result.metrics["mIoU_best"] == max(record.get("mIoU", 0) for record in log)
    assert result.metrics["scored_epochs"] == 2
    assert result.metrics["images_left_out"] == 0
    assert Result.read(folder / "result.json") == result
    assert (folder / "checkpoints" / "best.pth").exists()
    scores = evaluate(torch.stack([*by_hand(folder, images(10)[4:]).values()]), CLASSES)
    assert scores.mean_iou == pytest.approx(result.metrics["mIoU"], abs=0.1)
    by_file = boundary_f(folder, images(10)[4:])
    assert result.metrics["boundary_F"] == pytest.approx(by_file, abs=1)


def test_volumes_are_scored_whole(backbone, on, tmp_path, monkeypatch):
    """Dice of each volume in three dimensions, then the mean; grey slices, best by Dice."""
    slices = [Painted(f"slice {k}", case=f"patient {k // 3}", grey=True) for k in range(9)]
    slices[4] = replace(slices[4], broken=True)
    config = on(
        images(4, grey=True),
        slices,
        volumes=True,
        dataset=DatasetConfig(crop_size=32, max_corrupt=1),
        score_every=1,
    )
    asked = []
    monkeypatch.setattr(Run, "is_best", lambda run, *score: asked.append(score))
    result = finetune(backbone, config, tmp_path / "run")
    assert result.metric == "Dice_3D"
    seen = by_hand(tmp_path / "run", [one for one in slices if not one.broken])
    scores = evaluate(torch.stack([*seen.values()]), CLASSES)
    assert scores.mean_dice == pytest.approx(result.metrics["Dice_3D"], abs=0.2)
    pooled = evaluate(sum(seen.values())[None], CLASSES)
    assert pooled.mean_dice != pytest.approx(scores.mean_dice, abs=1e-6)
    log = Run(tmp_path / "run").read_log()
    assert asked == [("Dice_3D", record["Dice_3D"]) for record in log]
    assert result.metrics["Dice_3D_best"] == max(record["Dice_3D"] for record in log)
    assert set(result.metrics["per_class_Dice_3D"]) == set(CLASSES)
    assert result.metrics["images_left_out"] == 1


def test_what_cannot_be_read_is_left_out_and_counted(backbone, on, tmp_path, capsys):
    train, val = images(8), images(5)
    train[3], val[1] = replace(train[3], broken=True), replace(val[1], broken=True)
    config = on(train, val, epochs=1, dataset=DatasetConfig(crop_size=32, max_corrupt=1))
    result = finetune(backbone, config, tmp_path / "run")
    assert result.metrics["images_left_out"] == 2
    said = capsys.readouterr().err
    assert said.count("left out (1 of at most 1): image 3 is broken") == 1
    assert said.count("left out (1 of at most 1): image 1 is broken") == 1
    readable = [one for one in val if not one.broken]
    other = on(train, readable, epochs=1, dataset=config.dataset)
    other = finetune(backbone, other, tmp_path / "other")
    assert other.metrics["per_class_IoU"] == result.metrics["per_class_IoU"]
    strict = on(train, val, epochs=1)
    with pytest.raises(UsageError, match=r"image 3 is broken\. --dataset\.max_corrupt N leaves"):
        finetune(backbone, strict, tmp_path / "strict")


def test_averaged_weights_are_scored_and_kept(backbone, on, tmp_path, monkeypatch):
    scored, mixed, segment = [], [], engine.segment

    def seen(model, *rest):
        scored.append(model)
        with model.register_forward_hook(lambda *_: mixed.append(torch.is_autocast_enabled("cpu"))):
            segment(model, *rest)

    monkeypatch.setattr(engine, "segment", seen)
    config = on(images(12), images(2), precision="bf16-mixed")
    config = replace(config, optimizer=replace(config.optimizer, ema=0.9))
    fabric = make_fabric("cpu", "bf16-mixed")
    result = engine.finetune(backbone, config, Run(tmp_path / "run"), fabric)
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.pth", weights_only=True)
    kept = weights(tmp_path / "run")
    assert set(mixed) == {True}
    assert all(torch.equal(kept[name], tensor) for name, tensor in state["ema"].items())
    for name, tensor in scored[0].state_dict().items():
        assert torch.equal(kept[name], tensor), name
    assert any(not torch.equal(kept[name], tensor) for name, tensor in state["model"].items())
    assert np.isfinite([record["loss"] for record in Run(tmp_path / "run").read_log()]).all()
    scores = evaluate(torch.stack([*by_hand(tmp_path / "run", images(2)).values()]), CLASSES)
    assert scores.pixel_accuracy == pytest.approx(result.metrics["pixel_accuracy"], abs=5)


# ------------------------------------------------------------------------------ stopped, resumed


def test_every_step_can_be_the_last_and_the_bits_stay(backbone, on, tmp_path, monkeypatch):
    """Stopped after each step; killed in one, so that the epoch begins anew."""
    changes = {"accumulate": 2, "score_every": 1, "mixing": MixingConfig(cutmix=0.5, mosaic=0.3)}
    whole, parts, killed = (tmp_path / name for name in ("whole", "parts", "killed"))
    config, seeds, mix = on(images(9), images(3), seed=5, **changes), list[int](), engine.mix

    def seen(*arguments):
        seeds.append(arguments[3].initial_seed())
        return mix(*arguments)

    monkeypatch.setattr(engine, "mix", seen)
    finetune(backbone, config, whole)
    places = [(step, number) for step in range(4) for number in range(2)]
    assert seeds == [setup.derive(5, "mixing", *place) for place in places]
    for step in (1, 2, 3):  # of 2 an epoch
        with pytest.raises(Stopped, match=f"step {step} of 4"):
            finetune(backbone, config, parts, stop_after=step)
        assert not (parts / "result.json").exists()
    finetune(backbone, config, parts)
    steps, train_step = list[int](), engine.train_step

    def dying(*arguments):
        steps.append(arguments[4])
        if len(steps) == 4:
            raise KeyboardInterrupt
        return train_step(*arguments)

    monkeypatch.setattr(engine, "train_step", dying)
    with pytest.raises(KeyboardInterrupt):
        finetune(backbone, config, killed)
    finetune(backbone, replace(config, loader=LoaderConfig(workers=2)), killed)
    assert steps == [0, 1, 2, 3, 2, 3]
    logs = []
    for folder in (whole, parts, killed):
        assert same_bits(whole, folder)
        records = Run(folder).read_log()
        logs.append([{**record, "images_per_second": 0} for record in records])
    assert logs[0] == logs[1] == logs[2]


def test_a_run_that_dies_behind_its_last_step_is_scored_again(backbone, on, tmp_path, monkeypatch):
    config, folder = on(images(4), images(2), epochs=1), tmp_path / "run"

    def dying(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "draw_all", dying)
    with pytest.raises(KeyboardInterrupt):
        finetune(backbone, config, folder)
    (record,) = Run(folder).read_log()
    monkeypatch.setattr(engine, "draw_all", lambda *_: None)
    result = finetune(backbone, config, folder)
    assert Run(folder).read_log() == [record]
    assert record["mIoU"] == result.metrics["mIoU"] == result.metrics["mIoU_best"]
    assert result.metrics["boundary_F"] is not None


class Counting(BoundaryF):
    mean = property(lambda self: float(self._sums[1].max()))  # images with a boundary


def test_two_processes_take_the_steps_of_one_that_accumulates(backbone, on, tmp_path):
    """Each record is trained on and scored once; what one of them cannot read counts for both."""
    slices = [Painted(f"slice {k}", case=f"patient {k // 3}", grey=True) for k in range(7)]
    slices[3] = replace(slices[3], broken=True)
    config = on(
        images(9, grey=True),
        slices,
        volumes=True,
        dataset=DatasetConfig(crop_size=32, max_corrupt=1),
        segmenter=replace(SMALL, batch_norm="frozen", dropout=0.0),
        mixing=MixingConfig(cutmix=0.7),
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def take_part(rank: int) -> None:
        sizes = dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), "2")
        places = dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GROUP_RANK": "0"}
        os.environ.update({**sizes, **places, **address, "TORCHELASTIC_RUN_ID": "none"})
        segment = engine.segment

        def seen(model, *rest):
            torch.save(model.state_dict(), tmp_path / f"scored by {rank}.pth")
            segment(model, *rest)

        engine.segment, engine.BoundaryF = seen, Counting
        finetune(backbone, config, tmp_path / "both")

    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=take_part, args=(rank,)) for rank in (0, 1)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(timeout=120)
    assert [rank.exitcode for rank in ranks] == [0, 0]
    one, other = (torch.load(tmp_path / f"scored by {rank}.pth") for rank in (0, 1))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    finetune(backbone, replace(config, accumulate=2), tmp_path / "alone")
    left, right = weights(tmp_path / "alone"), weights(tmp_path / "both")
    for name, tensor in left.items():
        if not any(word in name for word in STATISTICS):  # of the heads: each process has its own
            torch.testing.assert_close(tensor, right[name], atol=1e-5, rtol=1e-4, msg=name)
    result = Result.read(tmp_path / "both" / "result.json")
    assert result.environment["processes"] == 2
    assert result.metrics["images_left_out"] == 1
    whole = [one for one in slices if not one.broken]
    seen = by_hand(tmp_path / "both", whole)
    scores = evaluate(torch.stack([*seen.values()]), CLASSES)
    assert result.metrics["boundary_F"] == len(whole)
    assert scores.mean_dice == pytest.approx(result.metrics["Dice_3D"], abs=0.2)
    assert scores.pixel_accuracy == pytest.approx(result.metrics["pixel_accuracy"], abs=0.2)
