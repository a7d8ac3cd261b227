"""Names: where each leads, what it tells about the file, and what needs no network."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import timm
import torch
import yaml

from pretrain.errors import UsageError
from tests.conftest import ROOT
from tests.transfer.formats.making import save, tame
from transfer import hub
from transfer.download import Address, cached_path
from transfer.formats import Overrides, read, sources, write


@pytest.fixture(scope="module")
def net():
    return tame("resnet18", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A function that puts a file into the cache as if an address had been fetched."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def put(url: str, file: Path) -> Path:
        path = cached_path(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        path.with_name(path.name + ".json").write_text(json.dumps({"url": url, "sha256": digest}))
        return path

    return put


def test_paths_and_run_folders(net, tmp_path):
    net.save(tmp_path / "run" / "backbone.pth")
    for name in ("run", "run/backbone.pth"):
        assert hub.resolve(str(tmp_path / name)).fingerprint() == net.fingerprint()


def test_addresses_from_the_cache(net, cached, tmp_path):
    net.save(tmp_path / "b.pth")
    url = "https://example.org/b.pth"
    path = cached(url, tmp_path / "b.pth")
    found = hub.resolve(url)
    assert found.fingerprint() == net.fingerprint()
    assert found.provenance.source == url
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert hub.resolve(f"{url}#sha256={digest}").fingerprint() == net.fingerprint()


def test_torchvision_s_names(net, cached, tmp_path, monkeypatch):
    """The list's own address; its digits are those of the file that we put there."""
    file = save(tmp_path / "t.pth", dict(net.weights))
    digits = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    choices = __import__("torchvision").models.ResNet18_Weights
    url = f"https://download.pytorch.org/models/resnet18-{digits}.pth"
    entry = choices.IMAGENET1K_V1
    monkeypatch.setattr(entry, "_value_", entry.value.__class__(url, entry.transforms, entry.meta))
    sources._known_files.cache_clear()
    try:
        cached(url, file)
        found = hub.resolve("torchvision:resnet18/IMAGENET1K_V1")
        assert found.provenance.source == "torchvision:resnet18/IMAGENET1K_V1"
        assert found.spec.crop_pct == pytest.approx(224 / 256)
        assert torch.equal(found.weights["conv1.weight"], net.weights["conv1.weight"])
    finally:
        sources._known_files.cache_clear()


def test_hugging_face_s_cache_needs_no_network(net, tmp_path, monkeypatch):
    """A repository in timm's layout, laid out as huggingface_hub caches it."""
    from huggingface_hub import constants

    write(net, "timm", tmp_path / "folder")
    content = json.loads((tmp_path / "folder" / "config.json").read_text())
    del content["cutmix_transfer"]  # as timm alone writes it
    snapshot = tmp_path / "hf" / "models--owner--net" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(content))
    shutil.copy(tmp_path / "folder" / "model.safetensors", snapshot)
    refs = snapshot.parent.parent / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    found = hub.resolve("hf:owner/net")
    assert found.fingerprint() == net.fingerprint()
    assert found.provenance.source == "hf:owner/net"
    with pytest.raises(UsageError, match="hf:owner/other cannot be had"):
        hub.resolve("hf:owner/other")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", None)  # is not asked
    for name in ("owner", "owner/", "a/b/c", "", "owner@main", "/etc/x"):
        with pytest.raises(UsageError, match=f"^hf:{name} names no repository.* hf:owner/name"):
            hub.resolve(f"hf:{name}")


def test_our_list_is_complete_and_honest():
    entries = hub.released()
    assert len(entries) >= 15
    for entry in entries.values():
        assert timm.is_model(entry.arch) or entry.arch.startswith("pyramidnet")
        assert entry.source in sources.SOURCES
        assert (entry.url is None) != (entry.page is None)
        assert entry.sha256 is None or len(entry.sha256) == 64
        assert 10 < float(entry.row.split()[0]) < 25
        assert entry.licence
    addresses = [entry.url or entry.page for entry in entries.values()]
    assert len(set(addresses)) == len(addresses)
    content = yaml.safe_load((ROOT / "transfer" / "released.yaml").read_text())
    assert set(content) == {"defaults", "backbones"}


def test_a_released_name_tells_what_its_file_does_not(cached, tmp_path):
    """The ResNet-152 may be a bare state dict: the list says whose it is."""
    entry = hub.released()["cutmix-resnet152"]
    net = tame("resnet152", num_classes=3)
    cached(entry.url, save(tmp_path / "r.pth", dict(net.weights)))
    found = hub.resolve("cutmix-resnet152")
    assert found.spec.arch == "resnet152"
    assert found.provenance.source == "cutmix-resnet152"
    assert found.method == "cutmix-resnet152"
    assert "CutMix-PyTorch" in found.provenance.stated["conventions"]


def test_addresses_know_their_hash():
    digits = "a" * 64
    assert hub.parse_address(f"https://x/y#sha256={digits}") == Address("https://x/y", digits)
    with pytest.raises(UsageError, match="64"):
        hub.parse_address("https://x/y#sha256=abc")


def test_schemes_are_those_that_are_supported_in_any_case():
    assert hub.parse_address("S3://Bucket/Net.pth").url == "s3://Bucket/Net.pth"
    with pytest.raises(UsageError, match=r"SHA-256 of http://x/Net\.pth is not known"):
        hub.resolve("HTTP://x/Net.pth")
    supported = "http://, https://, s3://, gs://, hf:// are"
    for name in ("ftp", "FTP", "file", "az"):
        with pytest.raises(UsageError, match=f" {name.lower()}:// is not supported; {supported}"):
            hub.resolve(f"{name}://x/net.pth")


def test_given_facts_reach_the_reader(net, tmp_path):
    path = save(tmp_path / "p.pth", dict(net.weights))
    found = hub.resolve(str(path), Overrides(source="torchvision"))
    assert found.fingerprint() == read(path, Overrides(source="torchvision")).fingerprint()
