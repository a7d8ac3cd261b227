"""Outputs of segmentation-models-pytorch's U-Net on given weights: fixtures/segmentation_unet.json.

    python tests/peers/segmentation_networks.py [--environment DIR]

The package is installed from PyPI into an environment (in a temporary folder, or kept in DIR);
torch and timm are borrowed from the one that runs this. Half a minute.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from environments import make_environment

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ("segmentation-models-pytorch==0.6.0",)

CODE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import segmentation_models_pytorch as smp, torch
from tests.transfer.segmentation.test_networks import DECODER, SIZES, draw_weights, image, sampled

model = smp.Unet("tu-resnet10t", encoder_weights=None, decoder_channels=DECODER, classes=2)
draw_weights(model)
found = {}
for name, size in SIZES.items():
    # what `forward` does after it has refused sizes that 32 does not divide
    def logits():
        return model.segmentation_head(model.decoder(model.encoder(image(size))))
    found[name] = {"eval": sampled(model.eval()(image(size)) if name == "even" else logits())}
model.train()
train = model(image(SIZES["even"]))
train.square().mean().backward()
found["train"] = {"logits": sampled(train), "norms": [
    parameter.grad.norm().item() for parameter in model.parameters()
]}
print(json.dumps(found))
"""


def main() -> None:
    """Write the fixture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", type=Path, help="Kept, or taken from an earlier run.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        python = make_environment(options.environment or Path(folder), REQUIREMENTS, borrow=True)
        done = subprocess.run(
            [python, "-c", CODE, ROOT], check=True, stdout=subprocess.PIPE, text=True
        )
    target = ROOT / "tests" / "fixtures" / "segmentation_unet.json"
    target.write_text(json.dumps(json.loads(done.stdout), indent=1) + "\n", encoding="utf-8")
    print(f"wrote {target.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
