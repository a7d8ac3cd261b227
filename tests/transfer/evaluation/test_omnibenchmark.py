"""OmniBenchmark's protocol on tiny realms, its objective against SciPy."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.nn import functional

from pretrain.errors import UsageError
from pretrain.training import make_fabric
from transfer.classification.frozen import encode
from transfer.evaluation import omnibenchmark
from transfer.evaluation.config import OmniConfig
from transfer.evaluation.images import Labels
from transfer.evaluation.omnibenchmark import evaluate, open_data
from transfer.evaluation.session import Session

LABELS = Labels()


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Options whose cache all tests share: the images are encoded once."""
    cache = str(tmp_path_factory.mktemp("features"))
    return OmniConfig(penalties=(1e-3, 1e-1, 1.0), image_size=32, cache=cache)


@pytest.fixture
def realms(worlds, tmp_path):
    """Two realms of the same images: one with its three splits, one without test."""
    source, root = worlds["classification"], tmp_path / "omni"
    shutil.copytree(source / "train", root / "shapes" / "train")
    for split in ("val", "test"):
        shutil.copytree(source / "val", root / "shapes" / split)
    shutil.copytree(source, root / "again")
    return root


def session_in(folder):
    fabric = make_fabric("cpu", "32-true")
    return Session(fabric=fabric, folder=folder, suite="omnibenchmark", workers=0)


def test_every_realm_is_probed_and_averaged(backbone, realms, features, tmp_path):
    bare = replace(backbone, spec=replace(backbone.spec, num_classes=0))
    data = open_data(backbone, realms, features, LABELS)
    metrics = evaluate(backbone, data, features, session_in(tmp_path / "run"))
    shapes, again = metrics["realms"]["shapes"], metrics["realms"]["again"]
    assert metrics["mean_top1"] == (shapes["top1"] + again["top1"]) / 2
    assert metrics["mean_per_class"] == (shapes["per_class"] + again["per_class"]) / 2
    assert (shapes["chosen_on"], shapes["scored"]) == ("val", "test")
    assert (again["chosen_on"], again["scored"]) == ("held out of train", "val")
    assert [*shapes["top1_of_lam"]] == ["0.001", "0.1", "1"]
    assert shapes["top1"] == pytest.approx(shapes["top1_of_lam"][f"{shapes['lam']:g}"], abs=0.01)
    (note,) = data.notes
    assert note.startswith("again has no test images")
    spec = data.setups["shapes"].backbone.spec
    assert (spec.input_size, spec.crop_pct, spec.interpolation) == ((3, 32, 32), 1.0, "bicubic")
    assert open_data(bare, realms, features, LABELS).summary["images"] == data.summary["images"]


def test_what_is_minimised_is_what_the_authors_minimise(backbone, realms, features, monkeypatch):
    """Ten mean cross entropies and lam times the norm, at every lam: SciPy finds no less."""
    solved = []
    solve = omnibenchmark.linear_probe.__globals__["SoftmaxRegression"].solve

    def keep(problem, penalty, *rest, **named):
        solved.append(solve(problem, penalty, *rest, **named))
        return solved[-1]

    monkeypatch.setattr("transfer.classification.frozen.SoftmaxRegression.solve", keep)
    data = open_data(backbone, realms / "shapes", features, LABELS)
    session = session_in(realms.parent / "run")
    evaluate(backbone, data, features, session)
    setup = data.setups["shapes"]
    config = omnibenchmark._config(features, realms / "shapes")
    rows, labels = encode(setup, config, session.fabric).select(setup.data.train)
    rows, count = rows.double(), len(setup.data.classes)
    size = count * rows.shape[1]
    assert [probe.penalty for probe in solved] == [0.1, 0.01, 0.0001]
    for probe, lam in zip(solved, (1.0, 1e-1, 1e-3), strict=True):

        def value(flat, lam=lam):
            point = torch.tensor(flat, requires_grad=True)
            weight = point[:size].view(count, -1)
            loss = functional.cross_entropy(rows @ weight.T + point[size:], labels)
            total = 10 * loss + lam * weight.norm()
            total.backward()
            return total.item(), point.grad.numpy()

        ours = np.append(probe.weight.flatten(), probe.bias)
        assert probe.converged
        assert value(ours)[0] == pytest.approx(10 * probe.objective, rel=1e-9)
        better = minimize(value, ours, jac=True, method="L-BFGS-B", options={"maxiter": 200})
        assert better.fun > value(ours)[0] - 1e-6


def test_a_realm_that_is_kept_is_not_probed_again(
    backbone, realms, features, tmp_path, monkeypatch
):
    features = replace(features, penalties=(1.0,))
    data = open_data(backbone, realms, features, LABELS)
    first = evaluate(backbone, data, features, session_in(tmp_path / "run"))
    (tmp_path / "run" / "parts" / "omnibenchmark" / "shapes.json").unlink()
    probed = []
    probe = omnibenchmark.linear_probe
    monkeypatch.setattr(
        omnibenchmark, "linear_probe", lambda *given: probed.append(0) or probe(*given)
    )
    assert evaluate(backbone, data, features, session_in(tmp_path / "run")) == first
    assert len(probed) == 1


def test_the_authors_lists_give_what_folders_give(backbone, realms, features, tmp_path):
    features = replace(features, penalties=(1.0,))
    realm = tmp_path / "lists" / "shapes"
    folder = realm / "annotations" / "v2"
    folder.mkdir(parents=True)
    classes = sorted(path.name for path in (realms / "shapes" / "train").iterdir())
    for split in ("train", "val", "test"):
        shutil.copytree(realms / "shapes" / split, realm / split / "images")
        lines = [
            f"{path.relative_to(realm)} {10 * classes.index(path.parent.name)}"
            for path in sorted((realm / split).rglob("*.*"))
        ]
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")
    by_lists = open_data(backbone, realm.parent, features, LABELS)
    by_folders = open_data(backbone, realms / "shapes", features, LABELS)
    ours, theirs = by_lists.setups["shapes"].data, by_folders.setups["shapes"].data
    assert ours.labels.tolist() == theirs.labels.tolist()
    assert ours.classes == tuple(str(10 * n) for n in range(len(classes)))
    found = [
        evaluate(backbone, data, features, session_in(tmp_path / f"run{n}"))
        for n, data in enumerate((by_lists, by_folders))
    ]
    assert found[0] == found[1]
    test = folder / "test.txt"
    test.write_text("".join(f"{line.split()[0]} 0\n" for line in test.read_text().splitlines()))
    hidden = open_data(backbone, realm.parent, features, LABELS)  # as the authors publish it
    assert hidden.setups["shapes"].data.scored_name == "val"
    assert f"{test} is left out: it has one class for all" in " ".join(hidden.notes)


def test_links_to_folders_of_one_name(backbone, realms, tmp_path, features):
    (tmp_path / "linked").mkdir()
    for name in ("shapes", "again"):
        (tmp_path / name).mkdir()
        (realms / name).rename(tmp_path / name / "images")
        (tmp_path / "linked" / name).symlink_to(tmp_path / name / "images")
    data = open_data(backbone, tmp_path / "linked", features, LABELS)
    assert [*data.setups] == ["again", "shapes"]


def test_mistakes(backbone, tmp_path, features):
    def message():
        with pytest.raises(UsageError) as error:
            open_data(backbone, tmp_path, features, LABELS)
        return str(error.value)

    assert f"Expected {tmp_path}/REALM/train/CLASS/*.jpg" in message()
    (tmp_path / "bird").mkdir()
    lines = tmp_path / "bird" / "train.txt"
    lines.write_text("a.jpg 0\nb.jpg\n")
    assert f"{lines}, line 2: 'b.jpg' is no path and number" in message()
    lines.write_text("a.jpg 0\nb.jpg " + "9" * 5000)
    assert f"{lines}, line 2: 'b.jpg 999" in message()
    lines.write_bytes(b"a.jpg 0\nb\xff.jpg 1\n")
    assert f"{lines}: holds bytes that are no text" in message()
    lines.write_text("a.jpg 0\nb.jpg 0\n")
    assert "(train) name 1 of the two classes at least" in message()
