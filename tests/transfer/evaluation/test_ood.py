"""Detection of foreign images: metrics against packages, sets and noise, the suite as it runs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pretrain.errors import UsageError
from pretrain.images import list_images
from pretrain.training import make_fabric
from tests.conftest import FIXTURES
from transfer.evaluation.config import OodConfig
from transfer.evaluation.foreign_images import NoiseImages
from transfer.evaluation.images import Labels
from transfer.evaluation.logits import logits
from transfer.evaluation.ood import SCORES, _score, evaluate, open_data
from transfer.evaluation.ood_metrics import METRICS, detection_metrics
from transfer.evaluation.session import Session, normalise, to_unit

PEERS = json.loads((FIXTURES / "evaluation" / "ood_and_calibration.json").read_text())
LABELS = Labels(class_order="alphabetical")


def session_in(folder, suite="ood", **fields):
    fields = {"batch_size": 8, "workers": 0} | fields
    return Session(fabric=make_fabric("cpu", "32-true"), folder=folder, suite=suite, **fields)


# ---- the metrics


@pytest.mark.parametrize("case", PEERS["detection"])
def test_equal_to_scikit_learn_and_pytorch_ood(case):
    ours = detection_metrics(np.array(case["known"]), np.array(case["foreign"]))
    assert list(ours) == list(METRICS)
    assert len(case["peers"]["scikit-learn"]) == len(METRICS)
    for theirs in case["peers"].values():
        assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_by_the_definitions(seed):
    draw = np.random.default_rng(seed)
    known, foreign = draw.integers(0, 12, 1 + 9 * seed), draw.integers(0, 9, 40 - 7 * seed)
    ours = detection_metrics(known.astype(float), foreign.astype(float))
    pairs = known[:, None] - foreign
    assert ours["auroc"] == pytest.approx(100 * ((pairs > 0) + (pairs == 0) / 2).mean())
    thresholds = [*range(14)]
    reach = [t for t in thresholds if (known >= t).sum() * 20 >= len(known) * 19]
    assert ours["tnr"] == pytest.approx(100 * (foreign < max(reach)).mean())
    found = [t for t in thresholds if (foreign < t).sum() * 20 >= len(foreign) * 19]
    assert ours["fpr95_foreign"] == pytest.approx(100 * (known < min(found)).mean())
    best = max((known >= t).mean() + (foreign < t).mean() for t in thresholds)
    assert ours["detection_accuracy"] == pytest.approx(50 * best)


def test_the_ends():
    apart = detection_metrics(np.array([2.0, 3]), np.array([0.0, 1, 1]))
    assert apart == dict(zip(METRICS, [100] * 5 + [0], strict=True))
    equal = detection_metrics(np.ones(3), np.ones(5))
    assert [equal[name] for name in METRICS[:3]] == [0, 50, 50]
    turned = detection_metrics(np.zeros(1), np.ones(1))
    assert [turned[name] for name in METRICS[:3]] == [0, 0, 50]


def test_twenty_known_images_leave_one_below():
    known = np.arange(20.0)
    assert detection_metrics(known, np.full(4, 0.5))["tnr"] == 100
    assert detection_metrics(known[:19], np.full(4, 0.5))["tnr"] == 0  # 18 of 19 are not 95 %


# ---- noise


def test_noise_is_a_function_of_seed_and_number():
    noise = NoiseImages("gaussian", 5, 6, 4, seed=3)
    assert noise.read(2).shape == (3, 6, 4)
    assert torch.equal(noise.read(2), replace(noise, count=9).read(2))
    others = [noise.read(1), replace(noise, seed=4).read(2), replace(noise, kind="uniform").read(2)]
    assert not any(torch.equal(noise.read(2), other) for other in others)


def test_noise_is_odins():
    """Uniform in [0, 1]; Gaussian of mean 0.5 and deviation 1, clipped: 30.9 % at either end."""
    uniform, gaussian = (
        NoiseImages(kind, 1, 200, 200, 0).read(0).double() / 255 for kind in ("uniform", "gaussian")
    )
    assert uniform.mean() == pytest.approx(0.5, abs=0.004)
    assert uniform.std() == pytest.approx(12**-0.5, abs=0.004)
    assert gaussian.mean() == pytest.approx(0.5, abs=0.005)
    for end in (0, 1):
        assert (gaussian == end).double().mean() == pytest.approx(0.3093, abs=0.006)


# ---- the suite


@pytest.fixture
def known(worlds):
    return worlds["classification"]


@pytest.fixture
def foreign(worlds):
    """A folder with images in folders of folders."""
    return worlds["detection"]


def test_what_the_classifier_is_surest_of_keeps_its_order():
    outputs = torch.tensor([[0, 25, 0], [30, 0, 0]], dtype=torch.float64)
    kept = _score(iter([(outputs[:1], torch.tensor([7])), (outputs[1:], torch.tensor([2]))]))
    less, more = kept["max_softmax"].tolist()  # both are 1 in float32
    assert 1 - less == pytest.approx(2 * np.exp(-25), rel=1e-4)
    assert less < more < 1
    assert (kept["predicted"].tolist(), kept["number"].tolist()) == ([1, 0], [7, 2])


def test_values_of_a_run(backbone, known, foreign, tmp_path):
    data = open_data(backbone, known, OodConfig([str(foreign)], noise=10), LABELS)
    count = len(data.foreign[foreign.name])
    assert data.summary["foreign"] == {foreign.name: count, "uniform": 10, "gaussian": 10}
    session = session_in(tmp_path)
    metrics = evaluate(backbone, data, OodConfig(), session)
    json.dumps(metrics, allow_nan=False)
    assert (tmp_path / "pictures" / "ood.png").stat().st_size > 5000

    network, spec = session.network(backbone), backbone.spec

    def scores_of(images, transform=None):
        logits = torch.cat([
            network(normalise(to_unit(batch), spec)).double()
            for batch, _ in session.batches(images, spec, "", transform=transform)
        ])  # fmt: skip
        softmax = logits.softmax(1).amax(1)
        return {"max_softmax": softmax, "max_logit": logits.amax(1), "energy": logits.logsumexp(1)}

    inside, outside = scores_of(data.known.images), scores_of(data.foreign[foreign.name])
    noise = scores_of(data.noise["uniform"], transform=lambda image: image)
    for score in SCORES:
        for name, scores in ((foreign.name, outside), ("uniform", noise)):
            pair = inside[score].numpy(), scores[score].numpy()
            assert metrics["sets"][name][score] == pytest.approx(detection_metrics(*pair), abs=1e-6)
        prefix = "" if score == "max_softmax" else f"{score}_"
        means = [metrics["sets"][name][score]["auroc"] for name in metrics["sets"]]
        assert metrics[f"{prefix}auroc"] == pytest.approx(sum(means) / 3)
        assert metrics[f"{prefix}auroc_without_noise"] == means[0]
    assert metrics["known_images"] == 20
    assert metrics["sets"]["gaussian"]["images"] == 10


@pytest.fixture
def no_picture(monkeypatch):
    monkeypatch.setattr("transfer.evaluation.ood.draw_scores", lambda *_: None)


def test_kept_sets_are_not_read_again(backbone, known, foreign, tmp_path, monkeypatch, no_picture):
    data = open_data(backbone, known, OodConfig([f"a={foreign}"], noise=3), LABELS)
    first = evaluate(backbone, data, OodConfig(), session_in(tmp_path))
    parts = sorted(path.name for path in (tmp_path / "parts" / "ood").iterdir())
    assert parts == ["foreign-1.pth", "gaussian.pth", "known.pth", "uniform.pth"]
    (tmp_path / "parts" / "ood" / "gaussian.pth").unlink()
    read = []

    def watched(*args, **fields):
        for batch in logits(*args, **fields):
            read.append(args[4])
            yield batch

    monkeypatch.setattr("transfer.evaluation.ood.logits", watched)
    assert evaluate(backbone, data, OodConfig(), session_in(tmp_path)) == first
    assert read == ["gaussian images"]


def test_unreadable_images_count_over_all_sets(backbone, known, foreign, tmp_path, no_picture):
    for source, name in ((known / "val", "known"), (foreign, "foreign")):
        shutil.copytree(source, tmp_path / name)
        Path(list_images(tmp_path / name)[0][0]).write_bytes(b"no image")
    options = OodConfig([str(tmp_path / "foreign")], noise=2)
    data = open_data(backbone, tmp_path / "known", options, LABELS)
    with pytest.raises(UsageError, match="--max-corrupt N leaves out"):
        evaluate(backbone, data, options, session_in(tmp_path / "one", max_corrupt=1))
    metrics = evaluate(backbone, data, options, session_in(tmp_path / "two", max_corrupt=2))
    assert metrics["known_images"] == 19
    assert metrics["sets"]["foreign"]["images"] == len(data.foreign["foreign"]) - 1


def test_outputs_that_are_no_numbers(backbone, known, foreign, tmp_path):
    broken = replace(backbone, weights={**backbone.weights})
    name = next(name for name in broken.weights if name.endswith("fc.bias"))
    broken.weights[name] = torch.full_like(broken.weights[name], torch.nan)
    data = open_data(broken, known, OodConfig(noise=2), LABELS)
    with pytest.raises(UsageError, match="known images: the outputs for 20 of 20 images are inf"):
        evaluate(broken, data, OodConfig(), session_in(tmp_path))


def test_mistakes(backbone, known, foreign, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("")
    (tmp_path / "uniform").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "uniform" / "a.png")
    shutil.copytree(known / "val", tmp_path / "copy")
    for sets, said in (
        ([tmp_path / "nowhere"], "nowhere is not there"),
        ([tmp_path / "text"], "text is a file"),
        ([tmp_path / "empty"], "there are no images"),
        ([foreign, foreign], "as another set is. Give it a name of its own"),
        ([f"a={foreign}", f"a={foreign}"], "is called 'a', as another set is"),
        ([tmp_path / "uniform"], "is called 'uniform'"),
        ([known / "val"], "file for file"),
        ([tmp_path / "copy"], "file for file"),
    ):
        with pytest.raises(UsageError) as error:
            open_data(backbone, known, OodConfig([str(text) for text in sets]), LABELS)
        assert said in str(error.value)
    for options, said in (
        (OodConfig(noise=0), "there are no foreign images"),
        (OodConfig([""]), "--ood.foreign is ''"),
        (OodConfig(["name="]), "--ood.foreign is 'name='"),
    ):
        with pytest.raises(UsageError, match=said):
            open_data(backbone, known, options, LABELS)
    one = replace(backbone, spec=replace(backbone.spec, num_classes=1))
    with pytest.raises(UsageError, match="has one output"):
        open_data(one, known, OodConfig(noise=1), Labels())


def test_what_is_noted(backbone, known, foreign, tmp_path):
    some = shutil.copytree(foreign, tmp_path / "some")
    shutil.copy(list_images(known / "val")[0][0], some)
    data = open_data(backbone, known, OodConfig([str(some)]), LABELS)
    assert any("1 of the" in note and "known ones too" in note for note in data.notes)
    assert [len(noise) for noise in data.noise.values()] == [20, 20]  # as many as known ones
    alone = open_data(backbone, known, OodConfig(), LABELS)
    assert any("nothing but noise" in note for note in alone.notes)
