"""A backbone as a release: what is checked, its card, its entry in our list, its folder.

NAME/backbone.pth                        this project's own file
NAME/model.safetensors, config.json      timm's layout (without config.json where timm lacks it)
NAME/README.md                           the card, as Hugging Face expects it
NAME/entry.yaml                          for transfer/released.yaml
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torchvision
import yaml
from huggingface_hub import EvalResult, ModelCardData

from pretrain.backbone import Backbone, Provenance
from pretrain.errors import UsageError
from pretrain.models import NAMES
from pretrain.run import Result
from transfer import formats, hub, task
from transfer.cache import file_sha256
from transfer.detectron2_resnet import heads_of
from transfer.formats.inspection import inspect
from transfer.formats.to_timm import torchvision_network
from transfer.formats.writing import draft_folder
from transfer.report import results_to_markdown

# what a backbone of our own making has no need of
_FOREIGN_ONLY = ("source", "source_sha256", "stated")


def unknown(provenance: Provenance) -> list[str]:
    """What the provenance leaves open."""
    names = [entry.name for entry in fields(Provenance) if entry.name not in _FOREIGN_ONLY]
    if provenance.source is not None:
        names.append("source_sha256")
    return [name for name in names if getattr(provenance, name) is None]


def refuse_flawed(file: Path) -> None:
    """Raise UsageError where the weights of a file cannot be those of a trained network."""
    if flaws := inspect(file, formats.Overrides()).flaws:
        raise UsageError(f"this backbone is not fit for a release: {'; '.join(flaws)}.")


@dataclass(frozen=True, kw_only=True)
class Release:
    """A backbone, and what its card and its entry in our list say beside what it says itself."""

    backbone: Backbone
    name: str
    """In our list."""
    licence: str
    """Of the weights, such as MIT."""
    results: Sequence[Result] = ()
    """Of its transfer and of its rivals'."""
    url: str | None = None
    """Where backbone.pth will be served."""
    repository: str | None = None
    """owner/name on Hugging Face, where it goes there."""


def make(release: Release, folder: Path) -> None:
    """Write the folder of a release, complete or not at all: weights, compared in timm, and a card.

    Args:
        release: what it consists of.
        folder: must not exist.

    Raises:
        UsageError: flawed, the export is not the same function, or the entry is not readable.
    """
    backbone = release.backbone
    folder.parent.mkdir(parents=True, exist_ok=True)
    with draft_folder(folder) as parent:
        draft, file = parent / folder.name, parent / ".backbone.pth"
        formats.write(backbone, "backbone", file)
        refuse_flawed(file)
        if backbone.spec.arch in NAMES:  # timm has no such architecture
            export = formats.write(backbone, "safetensors", draft / "model.safetensors")
        else:
            export = formats.write(backbone, "timm", draft)
        file = file.rename(draft / "backbone.pth")
        text = card(release, export.reports[0].table())
        (draft / "README.md").write_text(text, encoding="utf-8")
        (draft / "entry.yaml").write_text(entry(release, file), encoding="utf-8")
        hub.released(draft / "entry.yaml")
        os.replace(draft, folder)


def entry(release: Release, file: Path) -> str:
    """Its entry, as transfer/released.yaml has them: what stands under `backbones` goes there."""
    known, repository = release.backbone.provenance, release.repository
    page = f"https://huggingface.co/{repository}" if repository else None
    measured = None if known.top1 is None else f"{100 - known.top1:.2f} (measured by its training)"
    content = {
        "arch": release.backbone.spec.arch,
        "source": hub.ITSELF,
        "recipe": _training(release.backbone),
        "row": measured or "unknown",
        "origin": page or known.source or "this project",
        "licence": release.licence,
        "sha256": file_sha256(file),
        "size": file.stat().st_size,
        "url": release.url or (f"{page}/resolve/main/backbone.pth" if page else None),
    }
    entries = {"defaults": {}, "backbones": {release.name: content}}
    return yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)


def card(release: Release, parity: str) -> str:
    """The model card: YAML front matter, then Markdown."""
    backbone, name, licence = release.backbone, release.name, release.licence
    spec, fingerprint = backbone.spec, backbone.fingerprint()
    levels = ", ".join(f"{level.channels} at 1/{level.stride}" for level in spec.levels())
    worth = "No transfer of it has been measured.\n"
    if any(result.backbone.get("fingerprint") == fingerprint for result in release.results):
        worth = results_to_markdown(release.results)
    return f"""---
{_front_matter(release)}
---
# {name}

{spec.arch}, {_training(backbone)}. Licence: {licence}. Fingerprint `{fingerprint}`.

Fed with RGB in [0, 1], mean {spec.mean}, std {spec.std}, at {spec.input_size[1]} x \
{spec.input_size[2]} pixels ({spec.interpolation}, crop {spec.crop_pct:.3f}). Feature levels: \
{levels}. Classifier: {spec.num_classes or "none"}.

## How to use it

{_usage(release)}
## What it is worth

{worth}
## Where it comes from

{_provenance(backbone)}
## Parity

The same raw image through both networks, every level compared:

```
{parity}
```
"""


def copy_folder(folder: Path, target: Path) -> None:
    """Copy a folder to a path that does not exist; complete or not at all."""
    with draft_folder(target) as draft:
        shutil.copytree(folder, draft / target.name)
        os.replace(draft / target.name, target)


def _training(backbone: Backbone) -> str:
    known = backbone.provenance
    epochs = None if known.epochs is None else f"{known.epochs} epochs"
    return ", ".join(filter(None, (f"trained with {backbone.method}", epochs, known.dataset)))


def _front_matter(release: Release) -> str:
    backbone, known = release.backbone, release.backbone.provenance
    evaluation = None
    if known.top1 is not None and known.dataset is not None:
        evaluation = EvalResult(
            task_type="image-classification",
            dataset_type=known.dataset,
            dataset_name=known.dataset,
            metric_type="accuracy",
            metric_name="top-1",
            metric_value=round(known.top1, 2),
        )
    features = "image-feature-extraction"
    return ModelCardData(
        license=release.licence.lower(),
        library_name=None if backbone.spec.arch in NAMES else "timm",
        pipeline_tag="image-classification" if backbone.spec.num_classes else features,
        tags=sorted({features, "transfer-learning", *backbone.method.split("+")}),
        model_name=release.name,
        eval_results=[evaluation] if evaluation else None,
    ).to_yaml()


def _usage(release: Release) -> str:
    name, repository, spec = release.name, release.repository, release.backbone.spec
    file = f"hf:{repository}" if repository else f"{name}/backbone.pth"
    calls = "".join(f"python tools/{each.tool} --backbone {file}\n" for each in task.TASKS)
    parts = [f"Here, for any task:\n\n```sh\n{calls}```\n"]
    if spec.arch not in NAMES:
        source = f"hf-hub:{repository}" if repository else f"local-dir:{name}"
        parts.append(f"""In timm, with its preprocessing:

```python
import timm

model = timm.create_model("{source}", pretrained=True)
config = timm.data.resolve_data_config({{}}, model=model)
transform = timm.data.create_transform(**config)
```
""")
    # the lines work where the class of that name takes all of these weights
    fits = spec.num_classes > 0 and not spec.model_args and hasattr(torchvision.models, spec.arch)
    try:
        torchvision_network(release.backbone)
    except UsageError:
        fits = False
    if fits:
        parts.append(f"""In torchvision (mean and std as above):

```python
import torch
import torchvision

model = torchvision.models.{spec.arch}(num_classes={spec.num_classes})
content = torch.load("{name}/backbone.pth", weights_only=True)
model.load_state_dict(content["state_dict"])
```
""")
    else:
        parts.append(f"In torchvision: it has no {spec.arch} that these weights fit.\n")
    try:
        heads = ", ".join(heads_of(release.backbone))
        parts.append(f"""In detectron2 ({heads}): weights and configuration, written and verified by

```sh
python tools/export.py --backbone {file} --to detectron2 --out {name}.pkl
```
""")
    except UsageError:
        parts.append("In detectron2: its stock ResNets do not cover this architecture.\n")
    return "\n".join(parts)


def _provenance(backbone: Backbone) -> str:
    facts = asdict(backbone.provenance)
    recipe, versions = facts.pop("recipe") or {}, facts.pop("versions") or {}
    del facts["classes"]
    facts["versions"] = ", ".join(f"{key} {value}" for key, value in versions.items()) or None
    rows = "".join(f"| {key} | {value} |\n" for key, value in facts.items() if value is not None)
    missing = ", ".join(unknown(backbone.provenance)) or "nothing"
    if recipe.get("data"):
        recipe["data"] = Path(recipe["data"]).name  # the folder around it is private
    shown = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True) if recipe else "unknown\n"
    return f"""| | |
|---|---|
{rows}
Unknown: {missing}. The recipe, resolved:

```yaml
{shown}```
"""
