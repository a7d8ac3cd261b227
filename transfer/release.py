"""A backbone as a release: what is checked, its card, its entry in our list, its folder.

NAME/backbone.pth                        this project's own file
NAME/model.safetensors, config.json      timm's layout (without config.json where timm lacks it)
NAME/README.md                           the card, as Hugging Face expects it
NAME/entry.yaml                          for transfer/released.yaml
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torchvision
import yaml
from huggingface_hub import EvalResult, ModelCardData

from pretrain.backbone import Backbone, Provenance
from pretrain.errors import UsageError
from pretrain.models import NAMES
from pretrain.run import Result
from transfer import formats, hub, task
from transfer.formats import to_detectron2, to_timm
from transfer.formats.files import sha256
from transfer.formats.inspection import inspect
from transfer.formats.sources import Given
from transfer.report import results_to_markdown

# what a backbone of our own making has no need of
_FOREIGN_ONLY = ("source", "source_sha256", "stated")


def unknown(provenance: Provenance) -> list[str]:
    """What the provenance leaves open."""
    names = [entry.name for entry in fields(Provenance) if entry.name not in _FOREIGN_ONLY]
    if provenance.source is not None and provenance.source_sha256 is None:
        names.append("source_sha256")
    return [name for name in names if getattr(provenance, name) is None]


def refuse_insane(file: Path) -> None:
    """Raise UsageError where the weights of a backbone file cannot be those of a trained network."""
    found = inspect(file, Given())
    if wrong := (*found.open_questions, *found.warnings):
        raise UsageError(f"this backbone is not fit for a release: {'; '.join(wrong)}.")


def make(
    backbone: Backbone,
    name: str,
    draft: Path,
    *,
    licence: str,
    results: Sequence[Result] = (),
    url: str | None = None,
    repository: str | None = None,
) -> None:
    """Fill the folder of a release: weights, proved in timm, and the words about them.

    Args:
        backbone: what is released.
        name: in our list.
        draft: an empty folder.
        licence: of the weights, such as MIT.
        results: of its transfer and of its rivals'.
        url: where backbone.pth will be served.
        repository: owner/name on Hugging Face, where it goes there.

    Raises:
        UsageError: not sane, the export is not the same function, or the entry is not readable.
    """
    backbone.save(draft / "backbone.pth")
    again = Backbone.load(draft / "backbone.pth")
    if again.fingerprint() != backbone.fingerprint():
        raise UsageError(f"backbone.pth would read back as {again.fingerprint()}.")
    refuse_insane(draft / "backbone.pth")
    if backbone.spec.arch in NAMES:  # timm has no such architecture
        written = formats.write(backbone, "safetensors", draft / "model.safetensors")
    else:
        written = formats.write(backbone, "timm", draft / "timm")
        for file in (draft / "timm").iterdir():
            file.rename(draft / file.name)
        (draft / "timm").rmdir()
    proof = written.proofs[0].table()
    words = card(backbone, name, licence, proof, results, repository)
    (draft / "README.md").write_text(words, encoding="utf-8")
    text = entry(backbone, name, draft / "backbone.pth", licence, url, repository)
    (draft / "entry.yaml").write_text(text, encoding="utf-8")
    hub.released(draft / "entry.yaml")


def entry(
    backbone: Backbone,
    name: str,
    file: Path,
    licence: str,
    url: str | None = None,
    repository: str | None = None,
) -> str:
    """Its entry, as transfer/released.yaml has them: what stands under `backbones` goes there."""
    known = backbone.provenance
    top1 = "unknown" if known.top1 is None else f"{100 - known.top1:.2f} (measured by its training)"
    content = {
        "arch": backbone.spec.arch,
        "source": hub.ITSELF,
        "recipe": _trained(backbone),
        "row": top1,
        "origin": _page(repository) or known.source or "this project",
        "licence": licence,
        "sha256": sha256(file),
        "size": file.stat().st_size,
        "url": url or (f"{_page(repository)}/resolve/main/backbone.pth" if repository else None),
    }
    return yaml.safe_dump(
        {"defaults": {}, "backbones": {name: content}}, sort_keys=False, allow_unicode=True
    )


def card(
    backbone: Backbone,
    name: str,
    licence: str,
    proof: str,
    results: Sequence[Result] = (),
    repository: str | None = None,
) -> str:
    """The model card: YAML front matter, then Markdown."""
    return "\n".join(
        [
            f"---\n{_front(backbone, name, licence)}\n---",
            f"# {name}\n",
            f"{backbone.spec.arch}, {_trained(backbone)}. Licence: {licence}. Fingerprint "
            f"`{backbone.fingerprint()}`.\n",
            _fed(backbone),
            f"## How to use it\n\n{_usage(backbone, name, repository)}",
            f"## What it is worth\n\n{_worth(backbone, results)}",
            f"## Where it comes from\n\n{_provenance(backbone)}",
            f"## Proof\n\nThe same raw image through both networks, every level compared:\n\n"
            f"```\n{proof}\n```\n",
        ]
    )


def copy_whole(folder: Path, target: Path) -> None:
    """Copy a folder to a place that does not exist; whole or not at all."""
    draft = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        shutil.copytree(folder, draft)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _page(repository: str | None) -> str | None:
    return f"https://huggingface.co/{repository}" if repository else None


def _trained(backbone: Backbone) -> str:
    known = backbone.provenance
    epochs = None if known.epochs is None else f"{known.epochs} epochs"
    return ", ".join(filter(None, (f"trained with {backbone.method}", epochs, known.dataset)))


def _front(backbone: Backbone, name: str, licence: str) -> str:
    known = backbone.provenance
    measured = None
    if known.top1 is not None and known.dataset is not None:
        measured = [
            EvalResult(
                task_type="image-classification",
                dataset_type=known.dataset,
                dataset_name=known.dataset,
                metric_type="accuracy",
                metric_name="top-1",
                metric_value=round(known.top1, 2),
            )
        ]
    task = "image-classification" if backbone.spec.num_classes else "image-feature-extraction"
    data = ModelCardData(
        license=licence.lower(),
        library_name=None if backbone.spec.arch in NAMES else "timm",
        pipeline_tag=task,
        tags=sorted({"image-feature-extraction", "transfer-learning", *backbone.method.split("+")}),
        model_name=name,
        eval_results=measured,
    )
    return data.to_yaml()


def _fed(backbone: Backbone) -> str:
    spec = backbone.spec
    levels = ", ".join(f"{level.channels} at 1/{level.stride}" for level in spec.levels())
    return (
        f"Fed with RGB in [0, 1], mean {spec.mean}, std {spec.std}, at {spec.input_size[1]} x "
        f"{spec.input_size[2]} pixels ({spec.interpolation}, crop {spec.crop_pct:.3f}). Feature "
        f"levels: {levels}. Classifier: {spec.num_classes or 'none'}.\n"
    )


def _usage(backbone: Backbone, name: str, repository: str | None) -> str:
    spec = backbone.spec
    file = f"hf:{repository}" if repository else f"{name}/backbone.pth"
    calls = "".join(f"python tools/{each.tool} --backbone {file}\n" for each in task.TASKS)
    parts = [f"Here, for any task:\n\n```sh\n{calls}```\n"]
    if spec.arch not in NAMES:
        place = f"hf-hub:{repository}" if repository else f"local-dir:{name}"
        parts.append(
            "In timm, with its preprocessing:\n\n```python\nimport timm\n\n"
            f'model = timm.create_model("{place}", pretrained=True)\n'
            "config = timm.data.resolve_data_config({}, model=model)\n"
            "transform = timm.data.create_transform(**config)\n```\n"
        )
    if _in_torchvision(backbone):
        parts.append(
            "In torchvision (mean and std as above):\n\n```python\nimport torch\n"
            "import torchvision\n\n"
            f"model = torchvision.models.{spec.arch}(num_classes={spec.num_classes or 1000})\n"
            f'content = torch.load("{name}/backbone.pth", weights_only=True)\n'
            f'model.load_state_dict(content["state_dict"])\n```\n'
        )
    else:
        parts.append(f"In torchvision: it has no {spec.arch} that these weights fit.\n")
    try:
        heads = to_detectron2.heads_of(backbone, None)
        parts.append(
            f"In detectron2 ({', '.join(heads)}): weights and configuration are written, and "
            f"proved, by\n\n```sh\npython tools/export.py --backbone {file} --to detectron2 --out "
            f"{name}.pkl\n```\n"
        )
    except UsageError:
        parts.append("In detectron2: its stock ResNets do not cover this architecture.\n")
    return "\n".join(parts)


def _in_torchvision(backbone: Backbone) -> bool:
    """Whether the snippet of the card works: the class of that name takes these weights whole."""
    spec = backbone.spec
    if spec.num_classes == 0 or not hasattr(torchvision.models, spec.arch):
        return False
    try:
        to_timm.torchvision_network(backbone, device="meta")
    except UsageError:
        return False
    return not spec.model_args


def _worth(backbone: Backbone, results: Sequence[Result]) -> str:
    ours = [r for r in results if r.backbone.get("fingerprint") == backbone.fingerprint()]
    if not ours:
        return "No transfer of it has been measured.\n"
    return results_to_markdown(list(results))


def _provenance(backbone: Backbone) -> str:
    facts = {
        key: value
        for key, value in asdict(backbone.provenance).items()
        if key not in ("recipe", "classes", "versions") and value is not None
    }
    versions = backbone.provenance.versions
    facts["versions"] = ", ".join(f"{k} {v}" for k, v in versions.items()) if versions else None
    rows = [f"| {key} | {value} |" for key, value in facts.items() if value is not None]
    missing = ", ".join(unknown(backbone.provenance)) or "nothing"
    recipe: Any = dict(backbone.provenance.recipe or {})
    if recipe.get("data"):
        recipe["data"] = Path(recipe["data"]).name  # where it lay is nobody's business
    shown = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True) if recipe else "unknown\n"
    return "\n".join(
        ["| | |", "|---|---|", *rows, f"\nUnknown: {missing}. The recipe, resolved:\n",
         f"```yaml\n{shown}```\n"]
    )  # fmt: skip
