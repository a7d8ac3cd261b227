"""From what a user asked for to the jobs of a grid: every mistake shows before the first job."""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pretrain.backbone import Backbone, Provenance
from pretrain.errors import UsageError
from pretrain.progress import log
from pretrain.run import plain
from tools.support import recipe_choice
from tools.support.backbone_options import load
from tools.support.command import ROOT, SYNTHETIC, load_config
from transfer import task
from transfer.grid import Job, labels, order
from transfer.random_weights import origin

# field of a recipe -> the option of the grid that decides it
_OWN = {"backbone": "backbones", "data": "data", "seed": "seeds", "random_init": "random_init"}


def by_task(flag: str, words: Iterable[str], tasks: Sequence[str]) -> dict[str, str]:
    """`TASK=VALUE` words as a dict; UsageError for another task."""
    values: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not value or name not in tasks or name in values:
            must = f"it must be TASK=PATH, each task once, of {', '.join(tasks)}."
            raise UsageError(f"{flag} has {word!r}; {must}")
        values[name] = value
    return values


def fields_by_task(words: Iterable[str], tasks: Sequence[str]) -> dict[str, list[str]]:
    """`TASK.FIELD=VALUE` words as options of each task's tool; UsageError for another task."""
    found: dict[str, list[str]] = {}
    for word in words:
        name, equals, value = word.partition("=")
        of_task, _, key = name.partition(".")
        if not equals or not key or of_task not in tasks:
            must = f"it must be TASK.FIELD=VALUE, of {', '.join(tasks)}."
            raise UsageError(f"--set has {word!r}; {must}")
        if f"--{key}" in found.get(of_task, ()):
            raise UsageError(f"--set has {of_task}.{key} twice; give each field once.")
        if key in _OWN:
            raise UsageError(f"--set has {word!r}; {key} is the grid's own: give --{_OWN[key]}.")
        found.setdefault(of_task, []).extend([f"--{key}", value])
    return found


def plan(
    backbones: Sequence[str],
    tasks: Sequence[str],
    recipes: Mapping[str, Path | str],
    data: Mapping[str, str],
    seeds: Sequence[int] | None = None,
    words: Mapping[str, Sequence[str]] = MappingProxyType({}),
    random_init: bool = False,
    **fields: str | None,
) -> list[Job]:
    """The jobs: backbones are read, recipes resolved, data opened, each network built once.

    What the data holds is looked at in the end, once for each task.

    Args:
        backbones: names or files.
        tasks: names of transfer tasks.
        recipes: by task; where there is none, one that fits the data, or demo.yaml of shapes.
        data: folders by task; the recipe's, or synthetic shapes, where there is none.
        seeds: of the transfers; None for each backbone's own, that of its pretraining.
        words: options of each task's tool, by task.
        random_init: beside them each network once with random weights, with all of its seeds.
        fields: instead of a recipe's (engine, cache), in the configurations that have them; None
            leaves the recipe's.

    Raises:
        UsageError: the first thing that a job could not be run with.
    """
    entries = _entries(backbones, seeds, random_init)
    jobs, setups, notes = list[Job](), dict[str, Any](), list[str]()
    for name in tasks:
        kind = task.by_name(name)
        form, choice = task.load(kind.config), None
        if name in data and name not in recipes and name in recipe_choice.TASKS:
            try:
                choice = recipe_choice.choose_for(name, data[name], form().dataset)
            except UsageError as error:
                raise UsageError(f"{name}: {error}") from error
            notes.append(f"note: {name}: {choice}")
        demo = ROOT / "configs" / name / "demo.yaml"
        recipe = choice.path if choice else Path(recipes.get(name, demo))
        options_of = [*(choice.words if choice else ()), *words.get(name, ())]
        try:
            config = load_config(form, recipe, options_of)
        except UsageError as error:
            raise UsageError(f"{name}: {error}") from error
        as_written = dict(_leaves(plain(load_config(form, recipe))))
        folder = data.get(name) or config.data or draw(kind, SYNTHETIC, kind.demo.tool)
        given = {key: value for key, value in fields.items() if value and hasattr(config, key)}
        config = replace(config, data=folder, **given)
        if kind.resolve is not None:
            config = task.load(kind.resolve)(config)
        if random_init and not hasattr(config, "random_init"):
            raise UsageError(f"--random_init: {name} has no such option. Leave one of them out.")
        built = set[str]()
        for entry in entries:
            backbone, file = entry.backbone, entry.file
            random = {"random_init": True} if entry.is_random else {}
            own = replace(config, backbone=file, **random)
            # networks of one kind fit, or do not, alike
            spec = f"{backbone.spec}, {entry.is_random}"
            if spec not in built:
                try:
                    setup = task.load(kind.build)(backbone, own)
                except UsageError as error:
                    raise UsageError(f"{name} from {file}: {error}") from error
                setups.setdefault(name, setup)  # that has the same data for all backbones
                built.add(spec)
            for seed in entry.seeds:
                values = plain(replace(own, seed=seed))
                options = ["--config", str(recipe)]
                for key, value in _leaves(values):
                    if key in ("backbone", "data", "seed") or value != as_written.get(key):
                        options += recipe_choice.option_words(key, value)
                facts: dict[str, Any] = {"backbone": backbone.describe(), "config": values}
                job = Job(task=name, name=entry.label, seed=seed, options=tuple(options), **facts)
                jobs.append(job)
    known = {name: _known_data(setup) for name, setup in setups.items()}
    for note in notes:
        log(note)
    return order(replace(job, **known[job.task]) for job in jobs)


@dataclass(frozen=True)
class _Entry:
    """A row of the grid."""

    file: str
    label: str
    backbone: Backbone
    seeds: Sequence[int]
    is_random: bool = False


def _entries(backbones: Sequence[str], seeds: Sequence[int] | None, random: bool) -> list[_Entry]:
    """The rows: as given and, if asked for, each network with random weights behind."""
    loaded = [load(name) for name in backbones]
    first = dict[str, int]()
    for number, backbone in enumerate(loaded if random else ()):
        first.setdefault(_network(backbone), number)
    untrained = [f"{loaded[number].spec.arch}-random" for number in first.values()]
    prints = [backbone.fingerprint() for backbone in loaded]
    names = labels(
        [*backbones, *untrained],
        [*prints, *(hashlib.sha256(network.encode()).hexdigest() for network in first)],
    )
    entries, seeds_of = list[_Entry](), defaultdict[str, set[int]](set)
    for file, label, backbone in zip(backbones, names, loaded, strict=False):
        own = backbone.provenance.seed
        if seeds is None and own is None:
            raise UsageError(
                f"{file} does not say the seed of its pretraining, which is the seed of its "
                "transfer unless you give --seeds."
            )
        chosen = [seed for seed in ([own] if seeds is None else seeds) if seed is not None]
        entries.append(_Entry(file, label, backbone, chosen))
        seeds_of[_network(backbone)].update(chosen)
    for label, (network, number) in zip(names[len(loaded) :], first.items(), strict=True):
        for seed in sorted(seeds_of[network]):  # each with the fingerprint of what is given
            backbone = replace(loaded[number], provenance=origin(seed))
            entries.append(_Entry(backbones[number], label, backbone, [seed], is_random=True))
    return entries


def _network(backbone: Backbone) -> str:
    """What random weights share; they are fed as the first of its backbones is."""
    return f"{backbone.spec.arch} {json.dumps(backbone.spec.model_args, sort_keys=True)}"


def _leaves(values: Mapping[str, Any], section: str = "") -> Iterator[tuple[str, Any]]:
    """Options and their values, with dots between the names."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{section}{key}.")
        else:
            yield f"{section}{key}", value


def pretraining(method: Any, seed: int, data: str, recipe: Path) -> Job:
    """The job that makes a backbone; it has no fingerprint yet."""
    kind = task.by_name("pretrain")
    config = load_config(task.load(kind.config), recipe, seed=seed, data=data)
    config = replace(config, mixing=replace(config.mixing, method=method))
    setup, values = task.load(kind.build)(config), plain(config)
    origin = Provenance(seed=seed, recipe=values, dataset=setup.data.name, epochs=config.epochs)
    backbone = Backbone(spec=setup.spec, provenance=origin, weights={}).describe()
    words = "--config", str(recipe), "--data", data, "--mixing.method", method, "--seed", str(seed)
    facts = {"backbone": {**backbone, "fingerprint": ""}, "config": values, **_known_data(setup)}
    return Job(task="pretrain", name=method, seed=seed, options=words, **facts)


def _known_data(setup: Any) -> dict[str, Any]:
    """What a job says of its data."""
    return {"data": setup.data_summary, "digest": setup.files.digest}


def recipe_of(kind: task.Task, part: task.GridPart) -> Path:
    """Of a task in an embedded grid."""
    return ROOT / "configs" / kind.name / f"{part.recipe}.yaml"


def draw(kind: task.Task, root: Path, arguments: Mapping[str, Any]) -> str:
    """The folder of a task's synthetic shapes, drawn where it is not there yet.

    That is logged: it is written even by --print.
    """
    before = set(os.listdir(root)) if root.is_dir() else set()
    folder: Path = task.load(kind.demo.draw)(root, **arguments)
    if folder.name not in before:
        log(f"# drew the synthetic shapes {folder}")
    return str(folder)
