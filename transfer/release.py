"""A backbone as a release: what is checked, its card, its entry in our list, its folder.

- NAME/backbone.pth: this project's own file
- NAME/model.safetensors, config.json: timm's layout (without config.json where timm lacks it)
- NAME/README.md: the card, as Hugging Face expects it
- NAME/entry.yaml: for transfer/released.yaml
"""

import re
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torchvision
import yaml
from huggingface_hub import EvalResult, ModelCardData

from pretrain.backbone import Backbone, Provenance
from pretrain.cache import file_sha256
from pretrain.errors import UsageError, shorten
from pretrain.files import draft_folder, publish, write_text
from pretrain.models import NAMES
from pretrain.progress import log
from pretrain.run import Result
from transfer import formats, hub, privacy, task
from transfer.detectron2_resnet import heads_of
from transfer.download import Address
from transfer.formats.inspection import inspect
from transfer.formats.to_timm import torchvision_network
from transfer.report import results_to_markdown
from transfer.report.markdown import escape

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
    public: Sequence[str] = ()
    """Names of this machine or its user, paths and addresses that may stand in it."""

    def __post_init__(self) -> None:
        """Refuse what a card or a list cannot hold."""
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name):
            raise UsageError(f"--name is {self.name!r}; give letters, digits, ., _ and -.")
        if not self.licence.strip() or not self.licence.isprintable():
            raise UsageError(f"--licence is {self.licence!r}; give one, such as MIT or CC-BY-4.0.")
        if private := privacy.private_words(self.licence, public=self.public):
            raise UsageError(
                f"--licence would tell what is private: {shorten(list(map(repr, private)))}. Give "
                "another, or what is named here after --public where it may stand."
            )
        if self.url is not None and not re.match("https?://", self.url, re.IGNORECASE):
            raise UsageError(f"--url is {self.url!r}; it must begin with https:// or http://.")
        if self.url is not None:
            Address(self.url)  # refuses what nobody can be asked for


def make(release: Release, *folders: Path) -> None:
    """Write a release, complete or not at all: weights, compared in timm, and a card.

    Local paths and names of users and hosts are taken out of what the backbone says of itself.

    Args:
        release: what it consists of.
        folders: all get the same; they must not exist.

    Raises:
        UsageError: flawed, the export is not the same function, the entry is not readable, or
            something private is left.
    """
    public = [*release.public, release.url or ""]
    given = " ".join([release.name, release.licence, release.repository or "", *public])
    names = privacy.private_names(asdict(release.backbone.provenance))
    names -= privacy.find_names(given, names)
    release = _without_private(release, names)
    with ExitStack() as stack:
        drafts = [stack.enter_context(draft_folder(folder)) for folder in folders]
        made, file = drafts[0] / folders[0].name, drafts[0] / ".backbone.pth"
        formats.write(release.backbone, "backbone", file)
        refuse_flawed(file)
        if release.backbone.spec.arch in NAMES:  # timm has no such architecture
            export = formats.write(release.backbone, "safetensors", made / "model.safetensors")
        else:
            export = formats.write(release.backbone, "timm", made)
        file = file.rename(made / "backbone.pth")
        write_text(made / "README.md", card(release, export.reports[0].table()))
        write_text(made / "entry.yaml", entry(release, file))
        if problems := hub.read_list(made / "entry.yaml")[1]:
            problem = problems[0].replace(str(made), str(folders[0]))
            raise UsageError(f"this release cannot stand in a list: {problem}.")
        if private := privacy.search(made, names, public):
            raise UsageError(
                f"the release would tell what is private: {shorten(private)}. Take it out of the "
                "backbone file, or give it after --public where it may stand."
            )
        for draft in drafts[1:]:
            for path in made.iterdir():
                shutil.copy(path, draft)
        for draft, folder in zip((made, *drafts[1:]), folders, strict=True):
            publish(draft, folder)


def _without_private(release: Release, names: frozenset[str]) -> Release:
    """Without what is private in it; what was replaced is logged."""
    replaced: list[str] = []
    facts = privacy.clean(asdict(release.backbone.provenance), names, replaced.append)
    backbone = replace(release.backbone, provenance=Provenance(**facts))
    results = [
        Result(**privacy.clean(asdict(result), names, replaced.append, "results"))
        for result in release.results
    ]
    for line in dict.fromkeys(replaced):
        log(f"left out of the release: {line}")
    return replace(release, backbone=backbone, results=results)


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
    backbone = release.backbone
    spec, fingerprint = backbone.spec, backbone.fingerprint()
    levels = ", ".join(f"{level.channels} at 1/{level.stride}" for level in spec.levels())
    worth = "No transfer of it has been measured.\n"
    if any(result.backbone.get("fingerprint") == fingerprint for result in release.results):
        worth = results_to_markdown(release.results)
    return f"""---
{_front_matter(release)}
---
# {escape(release.name)}

{escape(spec.arch)}, {escape(_training(backbone))}. Licence: {escape(release.licence)}. \
Fingerprint `{fingerprint}`.

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

{_fenced(parity)}"""


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
    methods = [part.split()[0] for part in backbone.method.split("+")]  # without arguments
    return ModelCardData(
        license=release.licence.lower(),
        library_name=None if backbone.spec.arch in NAMES else "timm",
        pipeline_tag="image-classification" if backbone.spec.num_classes else features,
        tags=sorted({features, "transfer-learning", *methods}),
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
    recipe, versions = facts.pop("recipe"), facts.pop("versions") or {}
    del facts["classes"]
    facts["versions"] = ", ".join(f"{key} {value}" for key, value in versions.items()) or None
    rows = "".join(
        f"| {key} | {escape(str(value))} |\n" for key, value in facts.items() if value is not None
    )
    missing = ", ".join(unknown(backbone.provenance)) or "nothing"
    shown = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True) if recipe else "unknown\n"
    return f"""| | |
|---|---|
{rows}
Unknown: {missing}. The recipe, resolved:

{_fenced(shown, "yaml")}"""


def _fenced(text: str, language: str = "") -> str:
    """A block of code that its content cannot end."""
    fence = "`" * max(3, *(len(run) + 1 for run in ["", *re.findall("`+", text)]))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}\n"
