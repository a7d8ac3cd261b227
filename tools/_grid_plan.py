"""From what a user asked for to the cells of a grid: every mistake is told before the first job."""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from pretrain.errors import UsageError
from pretrain.run import plain
from tools._transfer_run import draw_world
from tools.command import ROOT, SHAPE_WORLD, load_config
from transfer.grid import SCRIPTS, TASKS, Cell, labels, order

_KINDS = {
    "classification": "transfer.classification.config:ClassificationConfig",
    "detection": "transfer.detection.config:DetectionConfig",
    "captioning": "transfer.captioning.config:CaptioningConfig",
}


@dataclass(frozen=True)
class Wanted:
    """What the command line says of a grid."""

    backbones: Sequence[str]
    tasks: Sequence[str] = TASKS
    seeds: Sequence[int] | None = None
    """None: of each backbone, the seed of its pretraining."""
    recipes: Mapping[str, Path] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    engine: str | None = None
    cache: str | None = None
    """Folder of kept features, where the recipes' own is not wanted."""


def chosen(flag: str, words: Iterable[str], tasks: Sequence[str]) -> dict[str, str]:
    """`TASK=VALUE` words as a dict; UsageError for another task."""
    found: dict[str, str] = {}
    for word in words:
        task, equals, value = word.partition("=")
        if not equals or not value or task not in tasks or task in found:
            raise UsageError(
                f"{flag} has {word!r}; it must be TASK=PATH, each task once, of {', '.join(tasks)}."
            )
        found[task] = value
    return found


def plan(wanted: Wanted) -> list[Cell]:
    """The cells: backbones are read, recipes resolved, data opened, each network built once.

    Raises:
        UsageError: the first thing that no cell of it could be run with.
    """
    from transfer import hub

    backbones = [hub.resolve(name) for name in wanted.backbones]
    names = labels(wanted.backbones, [backbone.fingerprint() for backbone in backbones])
    cells = []
    for task in wanted.tasks:
        recipe = wanted.recipes.get(task, ROOT / "configs" / task / "demo.yaml")
        config = load_config(_kind(task), recipe)
        config = replace(config, data=wanted.data.get(task) or config.data or _world(task))
        if task == "detection":
            config = _with_engine(config, wanted.engine)
        if wanted.cache is not None and hasattr(config, "cache"):
            config = replace(config, cache=wanted.cache)
        known: dict[Any, dict[str, Any]] = {}
        for place, (name, backbone) in enumerate(zip(names, backbones, strict=True)):
            given = replace(config, backbone=wanted.backbones[place])
            kind = str(backbone.spec)  # networks of one kind fit, or do not, alike
            if kind not in known:
                try:
                    known[kind] = _check(task, backbone, given)
                except UsageError as error:
                    raise UsageError(f"{task} from {wanted.backbones[place]}: {error}") from error
            for seed in _seeds(wanted, wanted.backbones[place], backbone):
                cells.append(
                    Cell(
                        task=task,
                        name=name,
                        seed=seed,
                        backbone=backbone.describe(),
                        config=plain(replace(given, seed=seed)),
                        data=known[kind],
                        options=_options(task, recipe, given, seed, wanted),
                    )
                )
    return order(cells)


def _kind(task: str) -> Any:
    module, _, name = _KINDS[task].partition(":")
    return getattr(import_module(module), name)


def _world(task: str) -> str:
    """The shape world that the task's own tool would draw, drawn once for all cells."""
    sizes = import_module(f"tools.{SCRIPTS[task].removesuffix('.py')}").WORLD
    return world(task, SHAPE_WORLD, sizes)


def world(task: str, root: Path, sizes: Mapping[str, Any]) -> str:
    """The folder of `draw_world`, and a word where it is new: it is written even by --print."""
    before = set(os.listdir(root)) if root.is_dir() else set()
    folder = draw_world(task, root, sizes)
    if folder.name not in before:
        print(f"# drew the shape world {folder}", file=sys.stderr)
    return str(folder)


def _with_engine(config: Any, engine: str | None) -> Any:
    from transfer.detection.setup import resolved

    return resolved(config if engine is None else replace(config, engine=engine))


def _seeds(wanted: Wanted, name: str, backbone: Any) -> Sequence[int]:
    if wanted.seeds is not None:
        return wanted.seeds
    if backbone.provenance.seed is None:
        raise UsageError(
            f"{name} does not say the seed of its pretraining, which is the seed of its transfer "
            "unless you give --seeds."
        )
    return [backbone.provenance.seed]


def _check(task: str, backbone: Any, config: Any) -> dict[str, Any]:
    """What --dry-run would find wrong; what the result will say of the data."""
    setup: Any = import_module(f"transfer.{task}.setup").build(backbone, config)
    facts = {"name": setup.data.name, "train": len(setup.data.train)}
    return facts | ({"test": len(setup.data.test)} if task == "detection" else {})


def _options(task: str, recipe: Path, config: Any, seed: int, wanted: Wanted) -> tuple[str, ...]:
    words = {
        "--config": str(recipe),
        "--backbone": config.backbone,
        "--data": config.data,
        "--seed": str(seed),
        **({"--engine": config.engine} if task == "detection" else {}),
        **({"--cache": config.cache} if wanted.cache and hasattr(config, "cache") else {}),
    }
    return tuple(word for pair in words.items() for word in pair)
