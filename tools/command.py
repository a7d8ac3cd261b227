"""What every tool shares: options from dataclasses, run folders, and one way to end.

No torch here or in the configurations: `--help` answers at once.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

import yaml
from jsonargparse import (
    ArgumentError,
    ArgumentParser,
    DefaultHelpFormatter,
    Namespace,
    set_parsing_settings,
)

from pretrain.errors import Stopped, UsageError
from pretrain.run import Run, other_run, plain

ROOT = Path(__file__).resolve().parent.parent
SHAPE_WORLD = Path("runs/shape_world")

Config = TypeVar("Config")


def run_main(main: Callable[[], None], again: str | None = None) -> None:
    """Run a tool. A user's mistake is one message and exit code 2; a stop says how to go on.

    Args:
        main: the tool.
        again: the command that continues it; None for the tool's own --resume.
    """
    try:
        main()
    except UsageError as error:
        _fail(str(error))
    except OSError as error:  # no space, no permission: the system's own words name the file
        _fail(str(error))
    except Stopped as stopped:
        if "TORCHELASTIC_RUN_ID" in os.environ:
            again = f"the same torchrun command with --resume {stopped.folder}"
        again = again or f"python {os.path.relpath(sys.argv[0])} --resume {stopped.folder}"
        if os.environ.get("RANK", "0") == "0":
            print(f"{stopped}. To continue: {again}", file=sys.stderr)
        sys.exit(128 + stopped.signal_number if stopped.signal_number else 0)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _fail(message: str) -> None:
    rank = os.environ.get("RANK", "0")  # torchrun: the same mistake is met by every process
    print(f"error: {message}" if rank == "0" else f"[process {rank}] {message}", file=sys.stderr)
    sys.exit(2)


class Parser(argparse.ArgumentParser):
    """For tools without a configuration: a wrong option is one message, without the usage."""

    def error(self, message: str) -> NoReturn:
        """See the class."""
        raise UsageError(message)


@dataclass(frozen=True)
class Options(Generic[Config]):
    """What a training tool was asked to do."""

    config: Config
    run: Run
    device: Any
    dry_run: bool
    rest: Namespace
    """The tool's own options."""


def parse(
    kind: type[Config],
    *,
    task: str,
    description: str,
    default: str,
    argv: Sequence[str] | None,
    more: Callable[[ArgumentParser], None] = lambda _: None,
) -> Options[Config]:
    """Read the options of a training tool.

    Args:
        kind: the configuration's dataclass; its fields and those of its sections are the options.
        task: names the folder of a run where --out is not given: runs/TASK-NAME.
        description: the head of --help.
        default: the recipe taken without --config, such as configs/pretrain/demo.yaml.
        argv: the arguments, or None for the command line's.
        more: adds the tool's own options.
    """
    parser = _config_parser(kind, description, default)
    more(parser)
    parser.add_argument("--out", type=str, help="Folder of the run (default: runs/TASK-NAME).")
    parser.add_argument(
        "--resume",
        metavar="auto|RUN",
        type=str,
        help="Continue the run in a folder; auto: the unfinished run of this "
        "configuration, if there is one.",
    )
    parser.add_argument(
        "--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="Where to compute."
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="Show the resolved configuration and its cost, train nothing.",
    )
    words = list(sys.argv[1:] if argv is None else argv)
    resumed = _value_of(words, "--resume")
    if resumed not in (None, "auto"):
        held = Path(str(resumed)) / "config.yaml"
        if not held.exists():
            raise UsageError(
                f"--resume {resumed}: there is no run in that folder (no config.yaml)."
            )
        default = str(held)
    elif _value_of(words, "--config") is None:
        default = str(ROOT / default)
    else:
        default = ""
    chosen = _parse(parser, [*(["--config", default] if default else []), *words])
    config = build(kind, parser, chosen)
    run = _run_folder(task, config, chosen.out, resumed)
    run.refuse_finished()
    return Options(config, run, chosen.device, chosen["dry_run"], chosen)


def add_stop_after(parser: ArgumentParser) -> None:
    """Add the option --stop-after; `stop_after` reads it."""
    parser.add_argument(
        "--stop-after",
        type=int,
        metavar="STEP",
        help="Stop after this step of the run, to be resumed: for time slots of a cluster.",
    )


def stop_after(chosen: Namespace) -> int | None:
    """The step that --stop-after names."""
    step: int | None = chosen.stop_after
    if step is not None and step < 1:
        raise UsageError(f"--stop-after is {step}; it must be at least 1")
    return step


def load_config(kind: type[Config], path: Path, **changes: Any) -> Config:
    """A recipe from a YAML file, with some fields replaced."""
    parser = _config_parser(kind, "", str(path))
    return replace(build(kind, parser, _parse(parser, ["--config", str(path)])), **changes)  # type: ignore[type-var]


def build(kind: type[Config], parser: ArgumentParser, chosen: Namespace) -> Config:
    """The configuration object from parsed options."""
    made = parser.instantiate(chosen)
    return kind(**{entry.name: made[entry.name] for entry in fields(kind)})  # type: ignore[arg-type]


class _Help(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults behind each option, line breaks of the description kept."""


def _config_parser(kind: type, description: str, default: str) -> ArgumentParser:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(
        description=description,
        exit_on_error=False,
        allow_abbrev=False,
        default_env=False,
        formatter_class=_Help,
    )
    parser.add_argument("--config", action="config", help=f"A recipe (default: {default}).")
    parser.add_class_arguments(kind, fail_untyped=True)
    return parser


def _parse(parser: ArgumentParser, words: list[str]) -> Namespace:
    try:
        return parser.parse_args(words)
    except (ArgumentError, argparse.ArgumentError) as error:
        recipe = _value_of(words, "--config")
        ours = recipe is None or Path(recipe).is_relative_to(ROOT / "configs")  # not the user's
        inside = "" if ours else f" (recipe {recipe})"
        raise UsageError(f"{str(error).strip()}{inside}") from error


def _value_of(words: list[str], flag: str) -> str | None:
    for place, word in enumerate(words):
        if word == flag and place + 1 < len(words):
            return words[place + 1]
        if word.startswith(flag + "="):
            return word.split("=", 1)[1]
    return None


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
    number = 1
    while True:
        run = Run(Path("runs") / (f"{task}-{config.name}" + (f"-{number}" if number > 1 else "")))
        if not run.folder.exists():
            return run
        if resumed == "auto" and not run.finished and _same_config(run, config):
            return run
        number += 1


def _same_config(run: Run, config: Any) -> bool:
    path = run.folder / "config.yaml"
    if not path.exists():
        return False
    here = plain(config)
    there = yaml.safe_load(path.read_text(encoding="utf-8"))
    if here["data"] is None:  # the shape world's folder is filled in later
        here["data"] = there.get("data")
    if here.get("engine") == "auto":  # so is the library that was found
        here["engine"] = there.get("engine")
    return not other_run(there, here)


def show_config(config: Any) -> None:
    """The resolved configuration, as config.yaml will hold it."""
    print(yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True), end="")


def backbone_name(given: str | None) -> str:
    """What --backbone says, or the message that it is missing."""
    if given is None:
        raise UsageError(
            "--backbone is missing. Give a backbone file, or the folder of a "
            "pretraining run; python tools/pretrain.py makes one."
        )
    return given
