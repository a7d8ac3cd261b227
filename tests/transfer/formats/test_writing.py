"""Out through the border and back: the same fingerprint, the same function, or nothing at all."""

import dataclasses
import json
import os

import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from tests.transfer.formats.making import tame
from transfer import parity
from transfer.formats import Overrides, read, to_timm, write, writing

ODD = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "interpolation": "bicubic",
       "crop_pct": 0.9, "input_size": (3, 64, 64)}  # fmt: skip


THIN = {"channels": [16, 16, 32, 32]}  # so that the files are small


@pytest.fixture(scope="module")
def net() -> Backbone:
    return tame("resnet18", model_args=THIN, **ODD)


@pytest.fixture(scope="module")
def whole() -> Backbone:
    """torchvision has it with its own widths alone."""
    return tame("resnet18", **ODD)


def left(folder) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.parametrize(
    ("to", "name", "files"),
    [
        ("torchvision", "r.pth", ["r.json", "r.pth"]),
        ("timm", "r", ["r"]),
        ("safetensors", "r.safetensors", ["r.safetensors"]),
        ("backbone", "r.pth", ["r.pth"]),
    ],
)
def test_out_and_back_is_the_same_backbone(to, name, files, net, whole, tmp_path):
    net = whole if to == "torchvision" else net
    written = write(net, to, tmp_path / name)
    assert left(tmp_path) == files
    assert written.files[0].name == name
    assert all(report.passed for report in written.reports)
    assert to == "backbone" or written.reports
    again = read(tmp_path / name)
    assert again.fingerprint() == net.fingerprint()
    assert again.provenance.seed == net.provenance.seed
    with pytest.raises(UsageError, match="exists"):
        write(net, to, tmp_path / name)


@pytest.mark.parametrize("arch", ["convnext_atto", "resnet10t", "efficientnet_b0"])
def test_timm_preprocesses_and_computes_the_same(arch, tmp_path):
    net = tame(arch, **ODD)
    write(net, "timm", tmp_path / "folder")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True).eval()
    transform = create_transform(**resolve_data_config({}, model=theirs))
    image = Image.fromarray(parity.raw_image(90, 120).permute(1, 2, 0).numpy())
    with torch.inference_mode():
        torch.testing.assert_close(
            theirs(transform(image)[None]), net.build().eval()(net.preprocess()(image)[None])
        )
    assert read(tmp_path / "folder").fingerprint() == net.fingerprint()


def test_classes_travel_with_timm_s_layout(net, tmp_path):
    names = [f"class {number}" for number in range(10)]
    named = dataclasses.replace(net, provenance=dataclasses.replace(net.provenance, classes=names))
    write(named, "timm", tmp_path / "f")
    content = json.loads((tmp_path / "f" / "config.json").read_text())
    assert content["label_names"] == names
    assert read(tmp_path / "f").provenance.classes == names


def test_a_backbone_without_a_classifier_travels(net, whole, tmp_path):
    for to, name in (("timm", "t"), ("torchvision", "t.pth"), ("safetensors", "t.safetensors")):
        true = whole if to == "torchvision" else net
        weights = {name: t for name, t in true.weights.items() if not name.startswith("fc.")}
        spec = dataclasses.replace(true.spec, num_classes=0)
        trunk = Backbone(spec=spec, provenance=true.provenance, weights=weights)
        write(trunk, to, tmp_path / name)
        assert read(tmp_path / name).fingerprint() == trunk.fingerprint()


def test_our_own_architectures_travel_where_they_can(tmp_path):
    tiny = {"depth": 8, "alpha": 6, "bottleneck": False}
    net = tame("pyramidnet", model_args=tiny, input_size=(3, 32, 32))
    write(net, "safetensors", tmp_path / "p.safetensors")
    assert read(tmp_path / "p.safetensors").fingerprint() == net.fingerprint()
    for to, name in (("timm", "p"), ("torchvision", "p.pth"), ("detectron2", "p.pkl")):
        with pytest.raises(UsageError, match="pyramidnet"):
            write(net, to, tmp_path / name)
    assert left(tmp_path) == ["p.safetensors"]


def test_onnx_takes_raw_pixels_of_any_size(net, tmp_path):
    pytest.importorskip("onnx", reason="onnx is not installed (extra: export)")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    written = write(net, "onnx", tmp_path / "r.onnx")
    assert written.reports[0].passed
    assert [level.name for level in written.reports[0].levels] == [
        "stride2",
        "res2",
        "res3",
        "res4",
        "res5",
    ]
    session = runtime.InferenceSession(str(tmp_path / "r.onnx"))
    pixels = torch.stack([parity.raw_image(96, 128), parity.raw_image(96, 128).flip(0)])
    found = session.run(["res4"], {"pixels": pixels.numpy()})[0]
    images = torch.cat([parity.normalize(net, image) for image in pixels])
    torch.testing.assert_close(
        torch.from_numpy(found), parity.features(net, images)["res4"], rtol=1e-4, atol=1e-4
    )


def broken(kind: str, net: Backbone) -> Backbone:
    """The backbone as a faulty exporter would have written it."""
    spec, weights = net.spec, dict(net.weights)
    match kind:
        case "BGR":
            weights["conv1.weight"] = weights["conv1.weight"].flip(1)
        case "std":
            spec = dataclasses.replace(spec, std=(1.0, 1.0, 1.0))
        case "mean":
            spec = dataclasses.replace(spec, mean=(0.0, 0.0, 0.0))
        case "permuted":
            weights["layer2.0.conv2.weight"] = (
                weights["layer2.0.conv2.weight"].transpose(0, 1).contiguous()
            )
        case "statistics":
            weights["layer4.1.bn2.running_var"] = torch.ones_like(
                weights["layer4.1.bn2.running_var"]
            )
        case "interpolation":
            spec = dataclasses.replace(spec, interpolation="bilinear")
        case "crop":
            spec = dataclasses.replace(spec, crop_pct=0.875)
    return Backbone(spec=spec, provenance=net.provenance, weights=weights)


MUTANTS = ("BGR", "std", "mean", "permuted", "statistics", "interpolation", "crop")


@pytest.mark.parametrize("kind", MUTANTS)
@pytest.mark.parametrize("to", ["timm", "torchvision", "safetensors"])
def test_a_faulty_exporter_writes_nothing(kind, to, net, whole, tmp_path, monkeypatch):
    """The files are those of the broken backbone, compared with the true one."""
    net = whole if to == "torchvision" else net
    wrong = broken(kind, net)
    function = f"write_{to}"
    true = getattr(to_timm, function)
    monkeypatch.setattr(to_timm, function, lambda _, *rest: true(wrong, *rest))
    if to == "torchvision" and kind in ("std", "mean", "interpolation", "crop"):
        return  # a bare state dict has no place for these: FILE.json carries them
    if to == "safetensors":
        describe = writing.sidecar.describe
        monkeypatch.setattr(
            writing.sidecar, "describe", lambda _, *a, **k: describe(wrong, *a, **k)
        )
    with pytest.raises(parity.ParityError, match="DIFFERS"):
        write(net, to, tmp_path / ("out" + writing.SUFFIX[to]))
    assert left(tmp_path) == []


def test_what_shows_nothing_does_not_pass():
    one = torch.ones(1, 2, 3, 3)
    assert parity.compare("t", {"a": one}, {"a": one}).passed
    assert parity.compare("t", {"a": one}, {"a": one + 5e-5}).passed
    for other in (
        {"a": one + 2e-4},
        {},
        {"a": one, "b": one},
        {"a": one[:, :1]},
        {"a": one * float("nan")},
    ):
        assert not parity.compare("t", {"a": one}, other).passed
    assert not parity.compare("t", {"a": 0 * one}, {"a": 0 * one}).passed
    assert not parity.compare("t", {}, {}).passed
    assert "DIFFERS" in parity.compare("t", {"a": one}, {"a": one + 1}).table()


@pytest.mark.parametrize(
    ("to", "name", "said"),
    [
        ("detectron2", "x.pth", "ends in .pkl"),
        ("torchvision", "x.pkl", "ends in .pth"),
        ("timm", "x.safetensors", "is a folder"),
        ("caffe", "x.caffe", "must be of"),
    ],
)
def test_mistakes_leave_nothing(to, name, said, whole, tmp_path):
    with pytest.raises(UsageError, match=said):
        write(whole, to, tmp_path / "new" / name)
    assert left(tmp_path) == []


def test_torchvision_has_no_other_widths(net, tmp_path):
    with pytest.raises(UsageError, match=r"cannot be resnet18 built with .*--to timm"):
        write(net, "torchvision", tmp_path / "x.pth")
    assert left(tmp_path) == []


def test_an_interrupted_export_leaves_nothing(net, tmp_path, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(to_timm, "verify_timm", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(net, "timm", tmp_path / "new" / "deep" / "r")
    assert left(tmp_path) == []


def test_a_companion_is_believed_only_for_its_own_file(whole, tmp_path):
    write(whole, "torchvision", tmp_path / "a.pth")
    other = tame("resnet18", seed=1)
    torch.save(dict(other.weights), tmp_path / "a.pth")
    with pytest.raises(UsageError, match="does not say how the network is fed"):
        read(tmp_path / "a.pth")
    assert read(tmp_path / "a.pth", Overrides(source="torchvision")).spec.mean != whole.spec.mean


def test_a_sidecar_that_does_not_fit_its_weights(net, tmp_path):
    import safetensors
    from safetensors.torch import load_file, save_file

    path = tmp_path / "r.safetensors"
    write(net, "safetensors", path)
    with safetensors.safe_open(path, framework="pt") as archive:
        metadata = archive.metadata()
    weights = load_file(path)
    for change in ({"arch": "resnet34"}, {"num_classes": 11}, {"mean": [1]}, {"arch": 3}, {"x": 1}):
        passport = json.loads(metadata["cutmix_transfer"])
        passport["spec"] |= change
        save_file(weights, path, {"cutmix_transfer": json.dumps(passport)})
        with pytest.raises(UsageError, match=r"r\.safetensors"):
            read(path)
    save_file(weights, path, {"cutmix_transfer": "{"})
    with pytest.raises(UsageError, match="JSON in it is damaged"):
        read(path)


def test_assembling_shares_the_tensors_and_computes_the_same(net):
    network = parity.assemble(net)
    assert network.conv1.weight.data_ptr() == net.weights["conv1.weight"].data_ptr()
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(network(images), net.build().eval()(images))
