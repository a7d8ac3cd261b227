#!/usr/bin/env bash
# Package:   timm 1.0.31 (torch 2.11.0)
# Behaviour: model.feature_info names the module of each feature level. In several families these names
#            are no modules (MViTv2, Twins, part of HRNet), modules that are there but never run
#            (CoaT), blocks that return a tuple or list (TNT, HRNet), or '', which named_modules() and
#            get_submodule() take for the whole network (TResNet). features_only=True, which goes
#            another way, gives the right levels.
# Seen:      what a forward hook on each named module of a plain model is given: of resnet18 and
#            convnext_atto features at every level; of mvitv2_tiny and twins_svt_small nothing, of
#            coat_tiny nothing although both modules exist, of tresnet_m the logits as its first and
#            finest level.
# Hurts:     what hooks layers by these names (Manifold Mixup, Grad-CAM, feature distillation) works on
#            the models it was tried on; on a CoaT its hook is never called, and on a TResNet it mixes
#            or distils logits that it takes for the finest features, all without a warning.
# Way out:   one pass with hooks beforehand: each is called once, with a tensor that has num_chs
#            channels; or create_model(..., features_only=True), or forward_intermediates.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check \
    timm==1.0.31 torch==2.11.0 torchvision==0.26.0 numpy==2.4.6

cat > see.py <<'PYTHON'
import timm
import torch


def levels(name):
    """What a forward hook on each module that feature_info names is given: shapes."""
    with torch.device("meta"):
        model = timm.create_model(name).eval()
        image = torch.empty(1, *model.default_cfg["input_size"])
    modules, given = dict(model.named_modules()), {}
    for level in model.feature_info:
        name = level["module"]
        given[name] = None if name in modules else "no module"
        if name in modules:
            modules[name].register_forward_hook(
                lambda module, inputs, output, name=name: given.update({name: output})
            )
    with torch.no_grad():
        logits = model(image)
    wanted = {level["module"]: level["num_chs"] for level in model.feature_info}
    return {name: kind(given[name], wanted[name], logits) for name in given}


def kind(output, channels, logits):
    if output is None or isinstance(output, str):
        return output or "never run"
    if output is logits:
        return "the logits"
    if not torch.is_tensor(output):
        return type(output).__name__
    return "features" if channels in (output.shape[1], output.shape[-1]) else "other channels"


FOUND = {
    "resnet18": {"features"},
    "convnext_atto": {"features"},
    "mvitv2_tiny": {"no module"},
    "twins_svt_small": {"no module"},
    "coat_tiny": {"never run"},
    "tresnet_m": {"the logits", "features"},
    "tnt_s_patch16_224": {"tuple"},
    "hrnet_w18_small": {"no module", "list"},
}
same = True
for name, wanted in FOUND.items():
    found = levels(name)
    print(name, found)
    same &= set(found.values()) == wanted
assert same, "the behaviour has changed"
PYTHON
env/bin/python see.py
