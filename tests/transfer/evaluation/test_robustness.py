"""The robustness suite against one image at a time, computed in another way."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pretrain.errors import UsageError
from pretrain.spec import BackboneSpec
from pretrain.training import generator, make_fabric
from transfer.evaluation.attacks import uniform_start
from transfer.evaluation.config import RobustnessConfig
from transfer.evaluation.corruption_scores import ALEXNET_ERRORS, corruption_scores
from transfer.evaluation.corruptions import NAMES, corrupt
from transfer.evaluation.holes import centre_holes
from transfer.evaluation.images import Labels
from transfer.evaluation.robustness import evaluate, open_data
from transfer.evaluation.robustness_pictures import draw_attacks, draw_curves
from transfer.evaluation.session import Session

SIZE, CLASSES, COUNT = 28, 3, 11
SPEC = BackboneSpec(arch="resnet10t", input_size=(3, SIZE, SIZE), crop_pct=1.0, num_classes=CLASSES)
MEAN, STD = (np.array(values, np.float32)[:, None, None] for values in (SPEC.mean, SPEC.std))
NAMED = ("clean", "fgsm_pixels", "fgsm_normalised", "fgsm_normalised_clamped", "pgd")
OPTIONS = RobustnessConfig(eps=0.009, pgd_steps=3, pgd_step_size=0.002)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 5, stride=3), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 8 * 8, CLASSES)
    return nn.Sequential(*layers)


@pytest.fixture(scope="module")
def images(network, tmp_path_factory):
    """A folder of random images, most of them of the class that the network answers."""
    root, draw = tmp_path_factory.mktemp("images"), np.random.default_rng(3)
    for number in range(COUNT):
        pixels = draw.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        answer = int(ask(network, normalised(pixels.transpose(2, 0, 1)))[0])
        folder = root / "val" / str((answer + (number % 4 == 0)) % CLASSES)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


def normalised(pixels):
    return ((pixels.astype(np.float32) / 255 - MEAN) / STD)[None].astype(np.float32)


@torch.no_grad()
def ask(network, images):
    return network(torch.from_numpy(images)).argmax(1).numpy()


@pytest.fixture(autouse=True)
def pictures(monkeypatch):
    """The curves that were to be drawn, which takes its time."""
    drawn = []
    name = "transfer.evaluation.robustness.draw_curves"
    monkeypatch.setattr(name, lambda metrics, path: drawn.append(metrics))
    return drawn


@pytest.fixture
def measure(network, images, tmp_path):
    """Run the suite: (options, batch size) -> (metrics, data)."""
    backbone = SimpleNamespace(spec=SPEC, output_names=("0", "1", "2"), build=lambda: network,
                               provenance=SimpleNamespace(classes=("0", "1", "2")))  # fmt: skip

    def run(options, batch_size=4, root=images):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        session = Session(fabric=make_fabric("cpu"), folder=folder, suite="robustness",
                          batch_size=batch_size, workers=0)  # fmt: skip
        data = open_data(backbone, root, options, Labels())
        return evaluate(backbone, data, options, session), data, session

    return run


def read(data):
    """(uint8 (N, 3, H, W), labels)."""
    pixels = [data.images.read(number).numpy() for number in range(COUNT)]
    return np.stack(pixels), data.images.labels


def percent(hits):
    return pytest.approx(100 * np.mean(hits))


def test_attacks(measure, network, monkeypatch):
    monkeypatch.setattr("transfer.evaluation.robustness.EXAMPLES", 1)  # drawing takes its time
    examples = []
    monkeypatch.setattr(
        "transfer.evaluation.robustness.draw_attacks",
        lambda shown, *given: (examples.extend(shown), draw_attacks(shown, *given)),
    )
    metrics, data, session = measure(replace(OPTIONS, parts=["attacks"]))
    pixels, labels = read(data)
    std, mean = torch.from_numpy(STD), torch.from_numpy(MEAN)
    hits: dict[str, list[bool]] = {}

    def step(image, label, size):
        """Torch's own way: a leaf, a mean loss, backward, in normalised values."""
        leaf = ((image - mean) / std)[None].requires_grad_()
        nn.CrossEntropyLoss()(network(leaf), torch.tensor([label])).backward()
        return size * leaf.grad[0].sign()

    for number, label in enumerate(labels.tolist()):
        image = torch.from_numpy(pixels[number]).float() / 255
        eps = OPTIONS.eps
        unclamped = image + step(image, label, eps * std)
        attacked = image + uniform_start(OPTIONS.seed, [number], image[None], eps)[0]
        attacked = attacked.clamp(0, 1)
        for _ in range(OPTIONS.pgd_steps):
            attacked = attacked + step(attacked, label, OPTIONS.pgd_step_size)
            attacked = torch.minimum(torch.maximum(attacked, image - eps), image + eps).clamp(0, 1)
        versions = {"clean": image, "fgsm_pixels": (image + step(image, label, eps)).clamp(0, 1),
                    "fgsm_normalised": unclamped, "pgd": attacked,
                    "fgsm_normalised_clamped": unclamped.clamp(0, 1)}  # fmt: skip
        if number == 0:
            (example,) = examples
            for ours, name in zip(example.versions, NAMED, strict=True):
                torch.testing.assert_close(ours, versions[name], rtol=0, atol=1e-6)
            assert not torch.equal(unclamped, unclamped.clamp(0, 1))
        for name, version in versions.items():
            answer = network(((version - mean) / std)[None]).argmax(1)
            hits.setdefault(name, []).append(bool(answer == label))
    network.zero_grad()
    for name, values in hits.items():
        assert metrics[f"{name}_top1"] == percent(values), name
        if name != "clean":
            lost = np.array(hits["clean"]) & ~np.array(values)
            assert metrics[f"{name}_success"] == pytest.approx(
                100 * lost.sum() / sum(hits["clean"])
            )
    found = [metrics[f"{name}_top1"] for name in ("fgsm_pixels", "fgsm_normalised", "clean")]
    assert 0 < found[0] < found[1] < found[2] < 100
    assert session.picture("attacks.png").is_file()


@pytest.mark.parametrize("fill", ["mean", "black"])
def test_occlusion(measure, network, fill):
    metrics, data, _ = measure(replace(OPTIONS, parts=["occlusion"], fill=fill, sizes=7))
    pixels, labels = read(data)
    assert metrics["occlusion_sides"] == [0, 4, 8, 12, 16, 20, 24, 28]
    row, column = np.mgrid[:SIZE, :SIZE]
    nothing = np.zeros((3, 1, 1), np.float32) if fill == "mean" else -MEAN / STD
    for place, side in enumerate(metrics["occlusion_sides"]):
        low = (SIZE - side) / 2
        inside = (row >= low) & (row < low + side) & (column >= low) & (column < low + side)
        for name, zeros in (("centre", inside), ("boundary", ~inside)):
            answers = [
                int(ask(network, np.where(zeros, nothing, normalised(one)))[0]) for one in pixels
            ]
            found = metrics[f"occlusion_{name}_top1"][place]
            assert found == percent(answers == labels), (name, side)
    assert metrics["occlusion_centre"] == pytest.approx(np.mean(metrics["occlusion_centre_top1"]))


def test_between(measure, network):
    options = replace(OPTIONS, parts=["between"], sizes=4, seed=8)
    metrics, data, _ = measure(options)
    for batch_size in (1, 3, 64):  # that of 3 leaves two, that of 1 has a batch without a pair
        assert measure(options, batch_size)[0] == metrics
    pixels, labels = read(data)
    order = torch.randperm(COUNT, generator=generator(8, "order")).tolist()
    pairs = [(a, b) for a, b in zip(order, order[1:] + order[:1], strict=True)
             if labels[a] != labels[b]]  # fmt: skip
    assert 1 < metrics["between_pairs"] == len(pairs) < COUNT

    def neither(mix):
        answers = [(int(ask(network, mix(*map(normalised, pixels[[a, b]])))[0]), a, b)
                   for a, b in pairs]  # fmt: skip
        return percent([answer not in (labels[a], labels[b]) for answer, a, b in answers])

    for weight, found in zip(
        metrics["between_mixup_weights"], metrics["between_mixup_neither"], strict=True
    ):
        weight = np.float32(weight)
        assert found == neither(lambda a, b, w=weight: w * a + (1 - w) * b), weight
    assert metrics["between_cutmix_sides"] == [0, 7, 14, 21, 28]
    for side, found in zip((0, 7, 14, 21, 28), metrics["between_cutmix_neither"], strict=True):
        mask = np.zeros((SIZE, SIZE), bool)
        low = (SIZE - side) // 2
        mask[low : low + side, low : low + side] = True
        assert found == neither(lambda a, b, mask=mask: np.where(mask, b, a)), side


def test_corruptions(measure, network, monkeypatch):
    names = ("gaussian_noise", "contrast")
    for module in ("robustness", "corruption_scores"):
        monkeypatch.setattr(f"transfer.evaluation.{module}.NAMES", names)
    metrics, data, _ = measure(replace(OPTIONS, parts=["corruptions"], seed=4))
    pixels, labels = read(data)
    for name in names:
        for severity, found in enumerate(metrics["corruptions"][name], 1):
            made = corrupt(name, severity, torch.from_numpy(pixels), 4, range(COUNT)).numpy()
            assert found == percent([ask(network, normalised(one))[0] for one in made] == labels)
    everything = [*metrics["corruptions"].values()]
    assert metrics["corruptions_top1"] == pytest.approx(np.mean(everything))
    assert "corruptions_mce" not in metrics  # these are not ImageNet's classes


def test_mce_is_relative_to_alexnet():
    half = {name: [100 - error / 2] * 5 for name, error in zip(NAMES, ALEXNET_ERRORS, strict=True)}
    assert corruption_scores(half, is_imagenet=True)["corruptions_mce"] == pytest.approx(50)
    assert "corruptions_mce" not in corruption_scores(half, is_imagenet=False)


def test_without_photographs_of_frost_it_is_left_out(measure, monkeypatch):
    for module in ("robustness", "corruption_scores"):
        monkeypatch.setattr(f"transfer.evaluation.{module}.NAMES", ("frost", "contrast"))
    monkeypatch.setattr("transfer.evaluation.robustness.find_frost", lambda folder: [])
    metrics, data, _ = measure(replace(OPTIONS, parts=["corruptions"]))
    assert list(metrics["corruptions"]) == ["contrast"]
    assert "corruptions_without_frost_top1" in metrics
    assert "corruptions_top1" not in metrics  # it would be the mean of others than elsewhere
    assert "frost is left out" in data.summary["notes"][-1]


def test_picture_of_what_was_measured(tmp_path):
    curves = {
        "occlusion_sides": [0, 4],
        "occlusion_centre_top1": [80, 0],
        "occlusion_boundary_top1": [0, 80],
        "corruptions": {"contrast": [5, 4, 3, 2, 1]},
    }
    draw_curves(curves, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 1.5 * picture.height  # two charts
    draw_curves({"clean_top1": 80.0}, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_holes_of_an_oblong_image():
    holes = centre_holes(30, 9, 3)
    assert [(rows.start, rows.stop) for rows, _ in holes] == [(15, 15), (10, 20), (5, 25), (0, 30)]
    assert [(c.start, c.stop) for _, c in holes] == [(4, 4), (3, 6), (1, 7), (0, 9)]


def test_frost_that_is_not_there(measure):
    with pytest.raises(UsageError, match=r"--robustness\.frost: there is no"):
        measure(replace(OPTIONS, frost="no-such-folder"))


@pytest.mark.parametrize("part", ["occlusion", "between"])
def test_outputs_that_are_no_numbers(measure, network, part):
    """As half precision may have them: an answer would be counted, and mean nothing."""
    handle = network.register_forward_hook(lambda _, __, output: output / output.clamp(max=0))
    with pytest.raises(UsageError, match="are nan or infinite in this precision"):
        measure(replace(OPTIONS, parts=[part]))
    handle.remove()


def test_one_output_is_always_right(tmp_path):
    one = SimpleNamespace(spec=replace(SPEC, num_classes=1))
    with pytest.raises(UsageError, match="the classifier has one output"):
        open_data(one, tmp_path, OPTIONS, Labels())


def test_one_class_has_nothing_between(measure, images, tmp_path):
    for path in sorted((images / "val" / "0").iterdir()):
        target = tmp_path / "one" / "val" / "0" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    with pytest.raises(UsageError, match=r"images of one class.*attacks, occlusion, corruptions"):
        measure(OPTIONS, root=tmp_path / "one")
    metrics, *_ = measure(replace(OPTIONS, parts=["occlusion"]), root=tmp_path / "one")
    assert "between_mixup" not in metrics


def test_mean_without_frost():
    top1 = {name: [100.0 * (name == "frost")] * 5 for name in NAMES}
    scores = corruption_scores(top1, is_imagenet=False)
    assert scores["corruptions_without_frost_top1"] == 0
    assert scores["corruptions_top1"] == pytest.approx(100 / 15)
