"""Data for the tests: what is committed, what is drawn here, and what may lie outside."""

import os
import sys
import tarfile
from contextlib import contextmanager
from pathlib import Path

import pytest

# nets this small gain nothing from a second thread, and lose much where the cores are busy
os.environ["OMP_NUM_THREADS"] = "1"

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # `tools` is no installed package

FIXTURES = ROOT / "tests" / "fixtures"
# half a minute and more, each
LONGEST = {"test_engine.py", "test_trainers.py", "test_chance.py", "test_processes.py",
           "test_tools.py", "test_pretraining_tools.py", "test_detection_tools.py",
           "test_transfer_tool.py", "test_export.py", "test_proofs.py", "test_meteor.py",
           "test_site.py"}  # fmt: skip


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="Generated inputs: all, not a sample.")


def pytest_collection_modifyitems(items):
    """The longest files first, so that two processes end at about the same time."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@contextmanager
def limited(most: int):
    """No file of this process, or of one that it starts, can be longer; -1: as it was."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="session")
def full(request) -> bool:
    """Whether generated sets of inputs run whole."""
    return request.config.getoption("--full")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data: $CUTMIX_SHARED, or ../shared."""
    folder = Path(os.environ.get("CUTMIX_SHARED", ROOT.parent / "shared"))
    if not (folder / "golden").is_dir():
        pytest.skip(f"no reference data in {folder} (set CUTMIX_SHARED)")
    return folder


@pytest.fixture(scope="session")
def unpacked(shared, tmp_path_factory):
    """A function from an archive's name in the reference data to the folder it unpacks to."""

    def unpack(name: str) -> Path:
        target = tmp_path_factory.mktemp("unpacked")
        with tarfile.open(shared / name) as archive:
            archive.extractall(target, filter="data")
        return target

    return unpack


@pytest.fixture(scope="session")
def worlds(tmp_path_factory) -> dict[str, Path]:
    """Tiny data sets of synthetic shapes, drawn once."""
    from pretrain import synthetic

    root = tmp_path_factory.mktemp("worlds")
    return {
        "classification": synthetic.classification(root, train=60, val=20, size=32),
        "detection": synthetic.detection(root, train=10, val=6, size=64),
        "captions": synthetic.captions(root, train=12, val=6, size=48),
        "segmentation": synthetic.segmentation(root, train=12, val=6, size=64),
    }


@pytest.fixture(scope="session")
def backbone():
    """A small untrained backbone whose normalisation layers are not trivial."""
    import torch
    from torch import nn

    from pretrain.backbone import Backbone, BackboneSpec, Provenance

    spec = BackboneSpec(arch="resnet10t", input_size=(3, 64, 64), num_classes=10)
    model = spec.create(10, seed=3)
    draw = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.3, 0.7, generator=draw)
            module.running_mean.uniform_(-0.2, 0.2, generator=draw)
            module.running_var.uniform_(0.5, 1.5, generator=draw)
    return Backbone.of(model, spec, Provenance(seed=3))


@pytest.fixture(scope="session")
def tiny_backbone():
    """The smallest, for tests that build or read back many networks."""
    from pretrain.backbone import Backbone, BackboneSpec, Provenance

    spec = BackboneSpec(arch="test_byobnet", input_size=(3, 64, 64), num_classes=10)
    return Backbone.of(spec.create(10, seed=3), spec, Provenance(seed=3))


@pytest.fixture(scope="session")
def backbone_file(backbone, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("backbone") / "backbone.pth"
    backbone.save(path)
    return path


@pytest.fixture
def no_pictures(monkeypatch):
    """Runs without their pictures, which take longer than such a training."""
    for name in ("pretrain.engine.draw_curves", "pretrain.engine.draw_mixed_batch",
                 "transfer.detection.engine.draw_all", "transfer.segmentation.engine.draw_all",
                 "transfer.classification.engine.draw_confusion"):  # fmt: skip
        monkeypatch.setattr(name, lambda *_: None)
