"""FGSM and PGD beside torchattacks and foolbox, from the same start.

    python tests/peers/attacks.py [--environment DIR] [--backbone FILE --data DIR] [--fixture FILE]

The packages are installed from PyPI into an environment (in a temporary folder, or kept in DIR);
torch is borrowed from the one that runs this. A small network gets random images; a backbone, where
one is given, random ones and those of a folder, as tools/evaluate.py reads it. Prints a Markdown
table, and with --fixture writes what tests/transfer/evaluation/test_attacks.py compares with.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from environments import make_environment

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

REQUIREMENTS = ("eagerpy==0.30.0", "GitPython", "setuptools", "requests", "typing-extensions")
# torchattacks asks for a requests of 2020
ALONE = ("torchattacks==3.5.1", "foolbox==3.3.4")
EPS, STEP, STEPS, IMAGES = 8 / 255, 2 / 255, 10, 8


def small_network():
    """A network for 8 x 8 images that is smooth, so that no sign of a gradient is by chance."""
    from torch import nn

    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(72, 5))


def cases(options) -> Iterator[tuple]:
    """(name, network that takes pixels, pixels, labels)."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    network = small_network().eval()
    for weights in network.parameters():
        weights.data.mul_(3)
    pixels = torch.randint(256, (IMAGES, 3, 8, 8)).float() / 255
    with torch.no_grad():
        labels = network(pixels).argmax(1)
    labels[-1] = (labels[-1] + 1) % 5  # one that is wrong from the start
    yield "small network, random images", network, pixels, labels
    if options.backbone is None:
        return

    from pretrain.backbone import Backbone
    from pretrain.backbone_evaluation import open_matched
    from pretrain.spec import evaluation_crop
    from transfer.evaluation.session import normalise, to_unit

    backbone = Backbone.load(options.backbone)
    spec = backbone.spec

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = backbone.build().eval()

        def forward(self, pixels):
            return self.inside(normalise(pixels, spec))

    network = Network().eval()
    pixels = torch.rand(IMAGES, *spec.input_size)
    with torch.inference_mode():
        labels = network(pixels).argmax(1)
    yield f"{spec.arch}, random images", network, pixels, labels.clone()
    images, _ = open_matched(options.data, None, None, backbone)
    crop = nn.Sequential(*evaluation_crop(*spec.input_size[1:], spec.crop_pct, spec.interpolation))
    numbers = range(0, len(images), len(images) // IMAGES)[:IMAGES]
    pixels = torch.stack([to_unit(crop(images.read(number))) for number in numbers])
    labels = torch.from_numpy(images.labels)[list(numbers)]
    yield f"{spec.arch}, photographs", network, pixels, labels


def attack(package: str, network, pixels, labels, start) -> dict:
    """Images after FGSM and PGD."""
    import torch

    if package == "ours":
        from transfer.evaluation.attacks import fgsm, input_gradient, pgd

        _, gradient = input_gradient(network, pixels, labels)
        made = pgd(network, pixels, labels, start, eps=EPS, step_size=STEP, steps=STEPS)
        return {"FGSM": fgsm(pixels, gradient, EPS), "PGD-10": made}
    if package.startswith("torchattacks"):
        import torchattacks

        torch.manual_seed(1)  # its start, from the ambient generator, is then `start`
        made = torchattacks.PGD(network, eps=EPS, alpha=STEP, steps=STEPS)(pixels, labels)
        return {"FGSM": torchattacks.FGSM(network, eps=EPS)(pixels, labels), "PGD-10": made}
    import eagerpy
    import foolbox

    model = foolbox.PyTorchModel(network, bounds=(0, 1))
    pgd = foolbox.attacks.LinfPGD(abs_stepsize=STEP, steps=STEPS)
    pgd.get_random_start = lambda x0, _: x0 + eagerpy.astensor(start)
    attacks = {"FGSM": foolbox.attacks.LinfFastGradientAttack(), "PGD-10": pgd}
    return {name: one(model, pixels, labels, epsilons=EPS)[1] for name, one in attacks.items()}


def compare(options) -> None:
    """Run in the environment of the packages."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    print("| inputs | attack | package | max abs difference | success, ours | theirs |")
    print("|---" * 6 + "|")
    for number, (name, network, pixels, labels) in enumerate(cases(options)):
        network.requires_grad_(False)
        torch.manual_seed(1)
        start = torch.empty_like(pixels).uniform_(-EPS, EPS)
        made = {one: attack(one, network, pixels, labels, start) for one in ("ours", *ALONE)}

        def success(images, network=network, pixels=pixels, labels=labels) -> str:
            with torch.inference_mode():
                right = network(pixels).argmax(1) == labels
                wrong = network(images).argmax(1) != labels
            return f"{int((right & wrong).sum())} of {int(right.sum())}"

        for package in ALONE:
            for kind, ours in made["ours"].items():
                theirs = made[package][kind]
                difference = float((ours - theirs).abs().max())
                figures = f"{difference:.1e} | {success(ours)} | {success(theirs)}"
                print(f"| {name} | {kind} | {package.replace('==', ' ')} | {figures} |")
        if number == 0 and options.fixture is not None:
            weights = {key: value.numpy() for key, value in network.state_dict().items()}
            theirs = {
                kind[:4].strip("-").lower(): one.numpy() for kind, one in made[ALONE[0]].items()
            }
            for kind, images in made[ALONE[1]].items():
                assert torch.equal(images, made[ALONE[0]][kind]), kind
            given = {"pixels": pixels.numpy(), "labels": labels.numpy(), "start": start.numpy()}
            np.savez_compressed(options.fixture, **given, **weights, **theirs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--environment", type=Path, metavar="DIR", help="keep it here")
    parser.add_argument("--backbone", type=Path, metavar="FILE")
    parser.add_argument("--data", type=Path, metavar="DIR")
    parser.add_argument("--fixture", type=Path, metavar="FILE")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if (options.backbone is None) != (options.data is None):
        parser.error("--backbone and --data go together")
    if options.inside:
        compare(options)
        return
    with tempfile.TemporaryDirectory() as work:
        folder = options.environment or Path(work) / "environment"
        python = make_environment(folder, REQUIREMENTS, True, ALONE)
        subprocess.run([python, __file__, *sys.argv[1:], "--inside"], check=True)


if __name__ == "__main__":
    main()
