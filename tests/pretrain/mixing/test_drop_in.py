"""One object in other people's loops, beside torchvision's and timm's own there."""

import copy
import pickle
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from timm.data.loader import create_loader
from timm.data.mixup import FastCollateMixup, cutmix_bbox_and_lam
from timm.data.mixup import Mixup as TimmMixup
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.transforms import v2

from pretrain.errors import UsageError
from pretrain.mixing import Choice, CutMix, Cutout, Mixup, paste, unmixed
from pretrain.mixing.drop_in import BatchMix

CLASSES = 5
BOX = np.array([2, 3, 9, 11])


class Numbered(Dataset):
    """Sample i is an image of class i; it seeds torch for itself, as some data sets do."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int):
        torch.manual_seed(index)
        np.random.seed(index)
        return torch.full((3, 8, 8), float(index)), index


def batch(count: int = 6):
    return torch.randn(count, 3, 12, 15), torch.arange(count) % CLASSES


def pasted(box: np.ndarray, shift: torch.Tensor):
    """A method with the draws of another package."""

    def mix(images, labels, num_classes, generator):
        return paste(images, labels, num_classes, box[None].repeat(len(images), 0), shift)

    return mix


FORMS = {
    "plain": lambda mix, images, labels: mix(images, labels),
    "collated": lambda mix, images, labels: mix(
        *default_collate(list(zip(images, labels, strict=True)))
    ),
    "choice": lambda mix, images, labels: v2.RandomChoice([mix, mix])(images, labels),
    "compose": lambda mix, images, labels: v2.Compose([mix])(images, labels),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["integers", "one_hot", "double"])
def test_takes_torchvision_s_place(form, kind, monkeypatch):
    """The documented forms, and labels of each kind, with torchvision's box and partners."""
    images, labels = batch()
    if kind != "integers":
        labels = torch.nn.functional.one_hot(labels, CLASSES)
        labels = labels.double() if kind == "double" else labels
    theirs = v2.CutMix(num_classes=CLASSES)
    top, left, bottom, right = BOX.tolist()
    area = (bottom - top) * (right - left)
    drawn = {"box": (left, top, right, bottom), "lam_adjusted": 1 - area / (12 * 15)}
    monkeypatch.setattr(v2.CutMix, "make_params", lambda *_: drawn)
    wanted, weights = FORMS[form](theirs, images, labels)
    ours = BatchMix(pasted(BOX, torch.arange(6).roll(1)), CLASSES)
    found, targets = FORMS[form](ours, images, labels)
    assert torch.equal(found, wanted)
    assert found.dtype == wanted.dtype
    assert targets.dtype == torch.float32
    torch.testing.assert_close(targets, weights.float(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("enabled", [True, False])
def test_takes_the_place_of_timm_s_mixup(smoothing, enabled):
    images, labels = batch()
    theirs = TimmMixup(
        mixup_alpha=0, cutmix_alpha=1.0, label_smoothing=smoothing, num_classes=CLASSES
    )
    np.random.seed(3)
    lam, _ = theirs._params_per_batch()
    (top, bottom, left, right), _ = cutmix_bbox_and_lam(images.shape, lam)
    box = np.array([top, left, bottom, right])
    ours = BatchMix(pasted(box, torch.arange(6).flip(0)), CLASSES, label_smoothing=smoothing)
    theirs.mixup_enabled = ours.mixup_enabled = enabled
    np.random.seed(3)
    wanted, weights = theirs(images.clone(), labels)
    found, targets = ours(images, labels)
    assert torch.equal(found, wanted)
    torch.testing.assert_close(targets, weights.float(), atol=1e-6, rtol=0)
    assert float(targets.min()) == pytest.approx(smoothing / CLASSES)


def test_takes_the_place_of_timm_s_collate_mixup():
    """The same types and shapes from the arrays that timm's loader collates; half is a half."""
    images = [np.full((3, 8, 8), i, dtype=np.uint8) for i in range(6)]
    samples = [(image, i % CLASSES) for i, image in enumerate(images)]
    for mode in ("batch", "half"):
        theirs = FastCollateMixup(cutmix_alpha=1.0, mode=mode, num_classes=CLASSES)
        ours = BatchMix(CutMix(granularity=mode), CLASSES, label_smoothing=0.1)
        for left, right in zip(theirs(samples), ours.collate(samples), strict=True):
            assert left.shape == right.shape
        images, targets = ours.collate(samples)
        assert images.dtype == torch.uint8  # timm's loader normalises after it
        assert targets.dtype == torch.float32


def lams(loader: DataLoader) -> list[float]:
    """How much is left of the first image of each batch, as its target says."""
    return [round(float(targets[0].max()), 6) for _, targets in loader]


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_and_epochs_draw_anew_and_a_run_repeats(persistent):
    def epochs() -> list[list[float]]:
        loader = DataLoader(
            Numbered(),
            batch_size=4,
            num_workers=2,
            persistent_workers=persistent,
            generator=torch.Generator().manual_seed(1),
            collate_fn=BatchMix(Mixup(partner="other"), len(Numbered())).collate,
        )
        return [lams(loader), lams(loader)]

    first = epochs()
    assert len({lam for epoch in first for lam in epoch}) == 8
    assert epochs() == first


def test_workers_that_outlive_an_epoch_hear_the_switch():
    """timm's mixup_off_epoch."""
    mix = BatchMix(Mixup(partner="other"), len(Numbered()))
    loader = DataLoader(
        Numbered(), batch_size=8, num_workers=1, persistent_workers=True, collate_fn=mix.collate
    )
    assert all(lam < 1 for lam in lams(loader))
    mix.mixup_enabled = False
    assert lams(loader) == [1.0, 1.0]
    mix.mixup_enabled = True
    assert all(lam < 1 for lam in lams(loader))


def test_a_spawned_worker_s_copy_hears_it_too():
    """As multiprocessing sends an object to a process that it starts anew."""
    mix = BatchMix(CutMix(), CLASSES)
    sent = pickle.loads(ForkingPickler.dumps(mix))
    mix.mixup_enabled = False
    assert not sent.mixup_enabled


def test_timm_s_loader_takes_it():
    transformed = create_loader(
        Arrays(),
        input_size=(3, 8, 8),
        batch_size=4,
        is_training=True,
        no_aug=True,
        num_workers=0,
        device=torch.device("cpu"),
        collate_fn=BatchMix(CutMix(), CLASSES, label_smoothing=0.1).collate,
        use_prefetcher=True,
        persistent_workers=False,
    )
    for images, targets in transformed:
        assert images.shape == (4, 3, 8, 8)
        assert images.dtype == torch.float32  # timm normalises after it
        assert targets.shape == (4, CLASSES)


class Arrays(Dataset):
    transform = None

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int):
        return np.full((3, 8, 8), index, dtype=np.uint8), index % CLASSES


def test_in_the_loop_draws_follow_the_seed():
    images, labels = batch()
    one, two, other = (BatchMix(CutMix(), CLASSES, seed=seed) for seed in (0, 0, 1))
    first, second = one(images, labels)[0], one(images, labels)[0]
    assert not torch.equal(first, second)
    assert torch.equal(two(images, labels)[0], first)
    assert not torch.equal(other(images, labels)[0], first)
    kept = copy.deepcopy(one), pickle.loads(pickle.dumps(one))
    third = one(images, labels)[0]
    for again in kept:  # goes on from where it was
        assert torch.equal(again(images, labels)[0], third)


@dataclass(frozen=True)
class Inside:
    """A method at work inside the network, or with a network to look through."""

    network: torch.nn.Module | None = None
    levels: object = None
    inside: object = None

    def __call__(self, images, labels, num_classes, generator):
        mixed = unmixed(images, labels, num_classes)
        return type(mixed)(**{**vars(mixed), "inside": self.inside})


def test_what_needs_the_network_is_refused_where_it_cannot_work():
    images, labels = batch()
    samples = list(zip(images, labels, strict=True))
    with pytest.raises(UsageError, match=r"Inside mixes inside .*forward\(model, mixed\)"):
        BatchMix(Inside(inside=object()), CLASSES)(images, labels)
    with pytest.raises(UsageError, match="Inside mixes inside"):  # before it is met in a batch
        BatchMix(Inside(levels=object()), CLASSES)
    through = BatchMix(Inside(network=torch.nn.Identity()), CLASSES)
    through(images, labels)  # it is the loop's own network
    with pytest.raises(UsageError, match=r"Inside needs the network.* Mix in the loop"):
        through.collate(samples)
    choice = Choice(mixes=(CutMix(), Inside(network=torch.nn.Identity())), weights=(1.0, 0.0))
    with pytest.raises(UsageError, match="Choice needs the network"):
        BatchMix(choice, CLASSES).collate(samples)
    BatchMix(Choice(mixes=(CutMix(), Cutout()), weights=(1.0, 1.0)), CLASSES).collate(samples)


def test_batches_that_are_none_are_refused():
    images, labels = batch()
    for wrong, words in (
        ((images[0], labels), r"shape \(3, 12, 15\).*must be \(N, C, H, W\)"),
        ((images, labels[:4]), r"labels \(4,\)"),
        ((images, torch.zeros(6, CLASSES + 1)), "labels have 6 columns; num_classes is 5"),
        ((images, torch.arange(6)), r"labels are 0 to 5; .* must be 0 to 4"),
        ((images, labels - 9), r"labels are -"),
        ((images, labels.float()), r"torch\.float32; they must be integers"),
    ):
        with pytest.raises(UsageError, match=words):
            BatchMix(CutMix(), CLASSES)(*wrong)
    with pytest.raises(UsageError, match="num_classes is not given"):
        BatchMix(CutMix())(images, labels)
    BatchMix(CutMix())(images, torch.zeros(6, CLASSES))
    with pytest.raises(UsageError, match=r"3 parts; it must be \(image, label\)"):
        BatchMix(CutMix(), CLASSES).collate([(image, 0, "a.jpg") for image in images])
    for options, words in (({"seed": -1}, "seed"), ({"label_smoothing": 1.0}, "label_smoothing")):
        with pytest.raises(UsageError, match=words):
            BatchMix(CutMix(), CLASSES, **options)
