"""A training tool, from its options to the end of its run; `run_task` is all that a task needs."""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import Any, Generic

from pretrain.errors import UsageError
from pretrain.progress import log
from pretrain.reading import check, read_yaml
from pretrain.run import Result, Run, other_run, plain
from tools.support.backbone_options import load
from tools.support.command import (
    PARSE_ONLY,
    ROOT,
    SYNTHETIC,
    Config,
    Parser,
    backbone_name,
    build_config,
    show_config,
    value_of,
)
from tools.support.recipe_choice import Choice, choose_demo, choose_for
from transfer import task as tasks
from transfer.task import Task

_DAY = 24.0  # hours that a CPU computes unasked
_MEASURING = 20.0  # seconds
# for a CPU, in configs
_SMALLER = {
    "pretrain": "cifar10_small",
    "classification": "demo",
    "detection": "bccd_small",
    "segmentation": "small",
    "captioning": "coco_mini",
}


@dataclass(frozen=True)
class TrainingOptions(Generic[Config]):
    """What a training tool was asked to do."""

    config: Config
    run: Run
    fabric: Any
    """Lightning Fabric on the device."""
    stop_after: int | None
    dry_run: bool
    choice: Choice | None
    """Of a recipe for the data, where none was given."""
    more: Any
    """The tool's own options."""


def run_task(
    name: str,
    description: str | None,
    argv: list[str] | None,
    describe: Callable[[Any, Any], str],
    summarize: Callable[[Result, Run], str],
) -> None:
    """Carry a backbone into a task: the whole of a transfer tool.

    Args:
        name: of the task, in transfer/task.py.
        description: the head of --help.
        argv: the arguments, or None for the command line's.
        describe: (setup, config) -> the lines of --dry-run about data and network.
        summarize: the end of the output.
    """
    task = tasks.by_name(name)
    options: TrainingOptions[Any] = parse(task, description, argv)
    config, run, fabric = options.config, options.run, options.fabric

    backbone = load(backbone_name(config.backbone))
    config = with_data(config, task, fabric)
    if options.dry_run:
        config = tasks.load(task.resolve)(config) if task.resolve else config
        setup = tasks.load(task.build)(backbone, config)
        if fabric.is_global_zero:
            show_config(config)
            print(describe(setup, config) + f", on {fabric.device}", flush=True)
        allow_time(options, task, config, lambda: setup)
        return
    allow_time(options, task, config, lambda: tasks.load(task.build)(backbone, config))
    finetune = tasks.load(task.finetune)
    result = finetune(backbone, config, run, fabric, stop_after=options.stop_after)
    if fabric.is_global_zero:
        print(summarize(result, run))


def steps_in_words(steps_per_epoch: int, config: Any) -> str:
    """How long the run is."""
    return f"{steps_per_epoch:,} steps an epoch, {config.steps(steps_per_epoch):,} in all"


def notes_in_words(notes: Iterable[str], config: Any, section: str) -> str:
    """What --dry-run says of the data, and of random weights beside `section` of the recipe."""
    random = (
        f"random weights: all are trained, normalisation too, whatever {section}.freeze and "
        f"{section}.batch_norm say"
    )
    lines = [*notes, random] if config.random_init else notes
    return "".join(f"# note: {line}\n" for line in lines)


def parse(
    task: Task,
    description: str | None,
    argv: Sequence[str] | None,
    more: Callable[[Parser], None] = lambda parser: None,
) -> TrainingOptions[Any]:
    """Read the options of a training tool.

    Args:
        task: whose configuration's fields, and those of its sections, are the options.
        description: the head of --help.
        argv: the arguments, or None for the command line's.
        more: adds the tool's own options.
    """
    kind, default = tasks.load(task.config), f"configs/{task.name}/demo.yaml"
    parser = Parser(description)
    parser.add_configuration(kind, default)
    more(parser)
    add = parser.add_argument
    add("--out", type=str, help="Folder of the run (default: runs/TASK-NAME).")
    add(
        "--resume",
        metavar="auto|RUN",
        type=str,
        help="Continue the run in a folder; auto: the unfinished run of this configuration, if "
        "there is one.",
    )
    devices = ["auto", "cpu", "cuda", "mps"]
    add("--device", choices=devices, default="auto", help="Where to compute.")
    add(
        "--dry-run",
        action="store_true",
        help="Show the resolved configuration and its cost, train nothing.",
    )
    add(
        "--stop-after",
        type=int,
        metavar="STEP",
        help="Stop after this step of the run, to be resumed: for time slots of a cluster.",
    )
    yes = "Train even if a CPU takes more than a day for the recipe that was chosen for the data."
    add("--yes", action="store_true", help=yes)
    words = list(sys.argv[1:] if argv is None else argv)
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0" and not value_of(words, "--resume"):
        words += ["--resume", "auto"]  # torchrun starts again what has failed
    resumed, choice = value_of(words, "--resume"), None
    recipe = [] if value_of(words, "--config") else ["--config", str(ROOT / default)]
    if resumed not in (None, "auto"):
        recipe = ["--config", str(Path(str(resumed)) / "config.yaml")]
        if not Path(recipe[1]).exists():
            raise UsageError(
                f"--resume {resumed}: there is no run in that folder (no config.yaml)."
            )
    elif recipe:
        usual, choice = _choose(task, parser, words)
        recipe = ["--config", str(usual.path), *usual.words]
    chosen = parser.parse([*recipe, *words])
    config: Any = build_config(kind, parser, chosen)
    if task.resolve and getattr(config, "start_from", None):  # decides more than what was given
        config = tasks.load(task.resolve)(config)
    run = _run_folder(task.name, config, chosen.out, resumed)
    run.refuse_finished()
    if chosen.stop_after is not None and chosen.stop_after < 1:
        raise UsageError(f"--stop-after is {chosen.stop_after}; it must be at least 1")
    if hasattr(config, "backbone"):
        backbone_name(config.backbone)

    from pretrain.training import make_fabric

    fabric = make_fabric(chosen.device, config.precision, config.deterministic)
    return TrainingOptions(
        config, run, fabric, chosen.stop_after, chosen["dry_run"], choice, chosen
    )


def _choose(task: Task, parser: Parser, words: Sequence[str]) -> tuple[Choice, Choice | None]:
    """The recipe of a command line without one; again, and said, where it is of the user's data."""
    is_check = PARSE_ONLY in words
    words = [word for word in words if word != PARSE_ONLY]
    options = parser.parse(words)
    given = {
        name: options[name]
        for word in words
        if word.startswith("--") and (name := word[2:].partition("=")[0]) in options
    }
    if options.data is None:
        return choose_demo(task.name, given), None
    if is_check:  # the recipe depends on the data, which may lie on another machine
        sys.exit(0)
    section = parser.instantiate(options).dataset
    choice = choose_for(task.name, options.data, section, options.device, given)
    if os.environ.get("RANK", "0") == "0":
        log(f"note: {choice}; --config FILE takes another")
    return choice, choice


def allow_time(
    options: TrainingOptions[Any], task: Task, config: Any, build: Callable[[], Any]
) -> None:
    """Say how long a CPU takes for a recipe that was chosen for the data.

    Args:
        options: of the tool.
        task: that is trained.
        config: of the run.
        build: makes the setup of the task.

    Raises:
        UsageError: more than a day, and neither --yes nor a dry run nor a run that goes on.
    """
    fabric = options.fabric
    if options.choice is None or fabric.device.type != "cpu" or options.run.checkpoint.exists():
        return
    from pretrain.projection import project
    from tools.support.rehearsal import rehearse

    cost = fabric.broadcast(
        project(rehearse(task.name, build(), config, fabric, small=True), fabric, _MEASURING)
    )
    if fabric.is_global_zero:
        log(f"note: projected: {cost.duration} on this CPU, by {cost.steps} measured steps")
    if cost.hours <= _DAY or options.more.yes or options.dry_run:
        return
    fitting = int(0.9 * cost.epochs_within(_DAY))
    fewer = f"--epochs {fitting} takes less, " if fitting else ""
    raise UsageError(
        f"the run takes {cost.hours:,.0f} hours on this CPU; one of more than a day wants --yes. "
        f"{fewer}--config configs/{task.name}/{_SMALLER[task.name]}.yaml is a small recipe."
    )


def with_data(config: Any, task: Task, fabric: Any) -> Any:
    """The configuration with the folder of the task's synthetic shapes where no data is given."""
    if config.data is not None:
        return config
    with fabric.rank_zero_first():
        # drawn where they are not there yet
        return replace(config, data=str(tasks.load(task.demo.draw)(SYNTHETIC, **task.demo.tool)))


def _run_folder(task: str, config: Any, out: str | None, resumed: str | None) -> Run:
    """--out, or the folder to be resumed, or the first free runs/TASK-NAME[-2, -3, ...]."""
    if resumed not in (None, "auto"):
        if out is not None and Path(out) != Path(str(resumed)):
            raise UsageError(f"--resume {resumed} and --out {out} name two folders; give one.")
        return Run(Path(str(resumed)))
    if out is not None:
        run = Run(Path(out))
        if resumed is None and run.checkpoint.exists() and not run.finished:
            raise UsageError(
                f"{out} holds an unfinished run. Continue it with --resume {out}, or "
                "give another --out."
            )
        return run
    names = chain([f"{task}-{config.name}"], (f"{task}-{config.name}-{n}" for n in count(2)))
    return next(
        run
        for run in map(Run, map(Path("runs").joinpath, names))
        if not run.folder.exists()
        or (resumed == "auto" and not run.finished and _is_run_of(run, config))
    )


def _is_run_of(run: Run, config: Any) -> bool:
    """Whether a folder holds a run of this configuration; one that cannot be read is named."""
    path = run.folder / "config.yaml"
    if not path.exists():
        return False
    try:
        there = check(read_yaml(path), dict, str(path))
    except UsageError as error:
        log(f"note: left out: {error}")
        return False
    here = plain(config)
    if here["data"] is None:  # the folder of the synthetic shapes is filled in later
        here["data"] = there.get("data")
    if here.get("engine") == "auto":  # so is the library that was found
        here["engine"] = there.get("engine")
    return not other_run(there, here)
