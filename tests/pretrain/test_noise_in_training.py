"""ShakeDrop, stochastic depth, DropBlock in trainings: compiled, resumed, on two processes."""

import copy
import json
from dataclasses import replace

import pytest
import torch

from pretrain.backbone import Backbone
from pretrain.config import LoaderConfig, ModelConfig
from pretrain.engine import pretrain
from pretrain.errors import Stopped
from pretrain.run import Run
from pretrain.spec import create_model
from pretrain.training import make_fabric
from tests.forked import call, start_ranks
from tests.pretrain.test_engine import config
from tools.support.prove_resume import state

# torch.compile itself makes an instance of our autograd function
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")

NOISE = {"shakedrop_rate": 0.5, "drop_path_rate": 0.25, "drop_block_rate": 0.1}
SMALL = {"depth": 11, "alpha": 12}


def gradients(model, function, seed: int) -> list[torch.Tensor]:
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(9))
    model.zero_grad()
    torch.manual_seed(seed)
    function(images).square().mean().backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def compiled(backend: str):
    """A network and itself under torch.compile, without a break in the graph."""
    torch._dynamo.reset()
    model = create_model("pyramidnet", **SMALL, **NOISE, num_classes=3).train()
    return model, torch.compile(model, backend=backend, fullgraph=True)


def test_compiled_noise_is_that_of_the_plain_network():
    """Down to the backward graphs; which numbers Inductor draws is its own affair, see below."""
    model, function = compiled("aot_eager")
    start = copy.deepcopy(model.state_dict())
    for seed in (0, 1):
        plain = gradients(model, model, seed)
        model.load_state_dict(start)
        for one, other in zip(plain, gradients(model, function, seed), strict=True):
            torch.testing.assert_close(one, other)
        model.load_state_dict(start)
    assert not torch.equal(plain[0], gradients(model, function, 2)[0])


def test_inductor_s_noise_follows_the_seed(full):
    """It draws by a generator of its own, seeded from the ambient one: other numbers, repeated."""
    if not full:
        pytest.skip("generates code: 10 s (--full)")
    model, function = compiled("inductor")
    first, again, other = (gradients(model, function, seed) for seed in (0, 0, 1))
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], other[0])


def noisy(world, **changes):
    return config(
        world,
        model=ModelConfig(arch="pyramidnet", args={**SMALL, **NOISE}),
        loader=LoaderConfig(workers=0),
        **changes,
    )


@pytest.mark.parametrize("compiling", [False, True], ids=["plain", "compiled"])
def test_a_noisy_run_is_resumed_to_the_same_bits(compiling, full, worlds, tmp_path, no_pictures):
    if compiling and not full:
        pytest.skip("generates code, three times: minutes (--full)")
    options = replace(noisy(worlds["classification"]), compile=compiling)
    whole, cut = Run(tmp_path / "whole"), Run(tmp_path / "cut")
    pretrain(options, whole, make_fabric("cpu"))
    with pytest.raises(Stopped):
        pretrain(options, cut, make_fabric("cpu"), stop_after=2)
    pretrain(options, cut, make_fabric("cpu"))
    assert_same(whole, cut)


def test_a_run_that_stops_after_an_epoch_goes_on_to_the_same_bits(worlds, tmp_path, no_pictures):
    options = noisy(worlds["classification"])
    whole, cut = Run(tmp_path / "whole"), Run(tmp_path / "cut")
    pretrain(options, whole, make_fabric("cpu"))
    for _ in range(2):  # the second time it stands there already
        with pytest.raises(Stopped, match="epoch 1 of 2"):
            pretrain(options, cut, make_fabric("cpu"), stop_after_epoch=1)
        assert [record["epoch"] for record in cut.read_log()] == [1]
        assert cut.read_log()[0]["top1"] == whole.read_log()[0]["top1"]  # scored
    pretrain(options, cut, make_fabric("cpu"), stop_after_epoch=2)
    assert_same(whole, cut)


def assert_same(whole: Run, cut: Run) -> None:
    assert cut.finished
    one, other = state(whole.folder), state(cut.folder)
    assert one.keys() == other.keys()
    for name, value in one.items():
        same = torch.equal(value, other[name]) if torch.is_tensor(value) else value == other[name]
        assert same, name


def test_two_processes_are_disturbed_as_one_that_accumulates(full, worlds, tmp_path):
    """Each micro-batch has its own noise, wherever it is computed. BatchNorm's running averages are
    process 0's alone, so weights are compared, and what training saw.
    """
    if not full:
        pytest.skip("three processes: 10 s (--full)")
    words = ["--data", worlds["classification"], "--device", "cpu", "--model.arch", "pyramidnet",
             "--model.args", json.dumps({**SMALL, **NOISE}), "--dataset.image_size", "32",
             "--batch_size", "12", "--epochs", "2", "--loader.workers", "0"]  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"
    done = call("pretrain", *words, "--accumulate", "2", "--out", one)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "said").open("w+") as said:
        ranks = start_ranks(2, "pretrain", *words, "--out", two, stdout=said, stderr=said)
        codes = [rank.wait(timeout=300) for rank in ranks]
    assert codes == [0, 0], (tmp_path / "said").read_text()
    left, right = (Backbone.load(folder / "backbone.pth").weights for folder in (one, two))
    for name, tensor in left.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(tensor, right[name], atol=1e-4, rtol=1e-4, msg=name)
    losses = [[record["train_loss"] for record in Run(folder).read_log()] for folder in (one, two)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
