"""What every tool shares: one parser, options from dataclasses, and one way to end.

No torch here or in the configurations: `--help` answers at once.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from io import TextIOWrapper
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml
from jsonargparse import (
    ArgumentError,
    ArgumentParser,
    DefaultHelpFormatter,
    Namespace,
    set_parsing_settings,
)

from pretrain.errors import LARGEST, Stopped, UsageError
from pretrain.progress import log
from pretrain.reading import read_yaml

ROOT = Path(__file__).resolve().parents[2]
SYNTHETIC = Path("runs/synthetic_shapes")

Config = TypeVar("Config")

# options and recipe keys of before -> today's
_RENAMED = {
    "workers": "loader.workers",
    "max-broken": "max-corrupt",
    "scratch": "random_init",
    "unproved": "unverified",
    "solver.optimizer": "optimizer.name",
    "solver.min_scale": "dataset.min_scale",
    "solver.label_smoothing": "label_smoothing",
    "optimizer.label_smoothing": "label_smoothing",
    "optimizer.decay_norm_and_bias": "optimizer.no_decay",
    "mixing.ramp_epochs": "mixing.ramp",
    "mixing.off_epoch": "mixing.off_after",
    "dataset.held_out": "dataset.val_fraction",
    "detector.anchor_sides": "detector.anchor_sizes",
    "images.group": "dataset.aspect_ratio_grouping",
}
_RENAMED_SECTIONS = dict.fromkeys(("solver", "adam"), "optimizer")
_RENAMED_SECTIONS |= dict.fromkeys(("voc", "images"), "dataset")
_RENAMED_FIELDS = {"max_broken": "max_corrupt", "clip": "clip_norm", "warmup_epochs": "warmup"}
_MEANING_CHANGED = {
    "optimizer.name": "SGD without Nesterov momentum, as detectors are trained with, is 'momentum'",
    "optimizer.no_decay": "true is 'nothing', false is 'norms_and_biases'",
}
_TOO_LONG = f"number of more than 4,300 digits; at most {LARGEST:,} is allowed"


def run_main(main: Callable[[], None], again: str | None = None) -> None:
    """Run a tool. A user's mistake is one message and exit code 2; a stop tells how to go on.

    Args:
        main: the tool.
        again: the command that continues it; None for the tool's own --resume.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # what its encoding does not have, names in bytes
            stream.reconfigure(errors="backslashreplace")
    try:
        _call(main, again)
    finally:
        _end_output()


def _call(main: Callable[[], None], again: str | None) -> None:
    try:
        main()
        _leave_others()
    except (ValueError, OSError) as error:  # no space, no permission: the system names the file
        if isinstance(error, OSError) and error.filename is None:  # perhaps standard output's
            _end_output("\n")
        if not isinstance(error, UsageError | OSError) and "embedded null" not in str(error):
            _leave_others(error)
            raise
        rank = os.environ.get("RANK", "0")  # torchrun: the same mistake is met by every process
        log(f"error: {error}" if rank == "0" else f"[process {rank}] {error}")
        _leave_others(error, 2)
        sys.exit(2)
    except Stopped as stopped:
        _leave_others()
        if "TORCHELASTIC_RUN_ID" in os.environ:
            again = f"the same torchrun command with --resume {stopped.folder}"
        again = again or f"python {os.path.relpath(sys.argv[0])} --resume {stopped.folder}"
        if os.environ.get("RANK", "0") == "0":
            log(f"{stopped}. To continue: {again}")
        sys.exit(128 + stopped.signal_number if stopped.signal_number else 0)
    except KeyboardInterrupt:
        print("interrupted" + (f"; {again} goes on" if again else ""), file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        _leave_others(error)
        raise


def _leave_others(error: Exception | None = None, code: int = 1) -> None:
    """Where processes of torchrun share a run: this one ends, and by an error they end as well.

    Does not return where it was another one that failed.
    """
    begun = "pretrain.training.heartbeat" in sys.modules
    # before it has begun: on one machine torchrun itself ends them
    if not begun and (error is None or int(os.environ.get("GROUP_WORLD_SIZE", "1")) < 2):
        return
    try:
        from pretrain.training.heartbeat import heartbeat, is_of_connection
    except UsageError:  # of its seconds: each process says so itself
        return

    if (beat := heartbeat()) is None:
        return
    if error is None:
        beat.finish()
    elif is_of_connection(error):
        beat.suspect(error)
    else:
        rank = os.environ.get("RANK", "0")
        beat.announce(f"[process {rank}] {error or type(error).__name__}", code)


def _end_output(last: str = "") -> None:
    """Leave with 141, as others do, where nobody reads on, and with 2 where a disk is full.

    Args:
        last: what is written to see that; text that failed before is not kept by Python.
    """
    try:
        print(last, end="", flush=True)
    except OSError as error:
        # what is left would fail again at Python's end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            sys.exit(128 + 13)  # SIGPIPE
        log(f"error: standard output cannot be written: {error.strerror}")
        sys.exit(2)


class _Help(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults behind each option, line breaks of the description kept."""

    def _get_type_str(self, action: argparse.Action) -> str | None:
        """The type of a configuration's field; a tool's own option would show a class's repr."""
        text: str | None = super()._get_type_str(action)
        return None if text is not None and text.startswith("<") else text

    def _get_help_string(self, action: argparse.Action) -> str:
        """The help names the default once."""
        text: str = super()._get_help_string(action) or ""
        if "(default: " in (action.help or ""):
            for repeated in (", default: %(default)s", " (default: %(default)s)"):
                text = text.replace(repeated, "")
        return text


PARSE_ONLY = "--parse-only"
"""An option of every tool, for other programs: check the options, read no data, do nothing."""


class Parser(ArgumentParser):
    """The parser of every tool: no abbreviations, and a mistake is one UsageError."""

    # jsonargparse makes parsers of this class for nested dataclasses, with options of its own
    def __init__(self, description: str | None = None, **_: Any) -> None:
        set_parsing_settings(docstring_parse_attribute_docstrings=True)
        super().__init__(
            description=description,
            exit_on_error=False,
            allow_abbrev=False,
            default_env=False,
            formatter_class=_Help,
        )
        self._configuration: type | None = None

    def add_configuration(self, kind: type, default: str) -> None:
        """Add --config and an option for each field of a configuration and of its sections."""
        self._configuration = kind
        text = f"A recipe (default: one that fits the data; without --data {default})."
        self.add_argument("--config", action="config", help=text)
        self.add_class_arguments(kind, fail_untyped=True)

    def parse(
        self,
        argv: Sequence[str] | None = None,
        check: Callable[[Namespace], None] = lambda options: None,
    ) -> Namespace:
        """The options; with PARSE_ONLY among them the program ends here.

        Args:
            argv: the arguments, or None for the command line's.
            check: raises UsageError for what the options alone show to be wrong.

        Raises:
            UsageError: an unknown option or recipe key, with the nearest known one; a wrong value.
        """
        given = list(sys.argv[1:] if argv is None else argv)
        options = self._parse([word for word in given if word != PARSE_ONLY])
        check(options)
        if PARSE_ONLY in given:
            # which refuses values out of range
            if self._configuration:
                build_config(self._configuration, self, options)
            else:
                self.instantiate(options)
            sys.exit(0)
        return options

    def _parse(self, given: Sequence[str]) -> Namespace:
        words: list[str] = []
        known = {flag[2:] for flag in self._option_string_actions if flag.startswith("--")}
        mappings = {
            flag[2:]
            for flag, action in self._option_string_actions.items()
            if get_origin(getattr(action, "_typehint", None)) is dict
        }
        for word in self._with_lists(given):
            if "\0" in word:
                raise UsageError(f"{word!r} holds a NUL character, which no path or name has.")
            name = word[2:].partition("=")[0]
            of_mapping = name.rpartition(".")[0] in mappings  # --mixing.args.decay_power 3
            if word.startswith("--") and name not in known and not of_mapping:
                raise UsageError(_unknown(name, known, "--", f"there is no option --{name}"))
            action = self._option_string_actions.get(f"--{name}")
            if get_origin(getattr(action, "_typehint", None)) is list:
                # jsonargparse fills an element's missing fields from the list that is replaced
                words += [f"--{name}", "[]"]
            words.append(word)
        recipes = _values_of(words, "--config") if self._configuration else []
        for recipe in recipes:
            for key in _recipe_keys(recipe, known):
                raise UsageError(_unknown(key, known, "", f"recipe {recipe} has the key {key}"))
        for section in _sections(known):
            for value in _values_of(words, f"--{section}"):
                if not value.startswith("{"):  # which is taken for a file
                    raise UsageError(
                        f"--{section} is {value!r}; it must be {{FIELD: VALUE, ...}}, or each "
                        f"field an option: --{section}.FIELD VALUE"
                    )
        for flag, action in self._option_string_actions.items():
            if flag in ("--out", "--data") or getattr(action, "_typehint", None) is Path:
                for value in _values_of(words, flag):
                    _check_path(flag, value)
                    if "://" in value and flag != "--data":
                        scheme = value.partition("://")[0]
                        raise UsageError(
                            f"{flag} is an address, {scheme}://...; it must be a path on this "
                            "machine. Copy from or to there by another tool."
                        )
        if value_of(words, "--epochs") is not None and "duration" in known:
            words += ["--duration", "null"]  # over that of the recipe
        try:
            options = self.parse_args(words)
        except (ArgumentError, argparse.ArgumentError) as error:
            ours = ROOT / "configs"
            own = [name for name in recipes if not Path(name).resolve().is_relative_to(ours)]
            inside = f" (recipe {', '.join(own)})" if own else ""
            message = re.sub(r"(?<=required: ).*", self._with_dashes, str(error).strip())
            message = self._plainly(message)
            lists = [
                f"{flag} {action.metavar}"
                for flag, action in self._option_string_actions.items()
                if flag in words and "," in str(action.metavar)
            ]
            if "unrecognized" in message and lists:
                message += f". The form is {' '.join(lists)}, without spaces."
            message = re.sub(r"Exceeds the limit.*", f"a {_TOO_LONG}", message)
            raise UsageError(f"{message}{inside}") from error
        for name, value in options.items():
            try:
                texts = [*map(str, value if isinstance(value, list | tuple) else [value])]
            except ValueError as error:
                raise UsageError(f"{name} is a {_TOO_LONG}") from error
            if any("\0" in text for text in texts):
                raise UsageError(f"{name} holds a NUL character, which no path or name has.")
        return options

    def _with_dashes(self, names: re.Match[str]) -> str:
        """Add the dashes that jsonargparse leaves out where an option is missing."""
        options = self._option_string_actions
        return ", ".join(
            f"--{name}" if f"--{name}" in options else name for name in names[0].split(", ")
        )

    def _with_lists(self, words: Sequence[str]) -> list[str]:
        """`--name A B`, where the option is a list, as jsonargparse wants it: [A, B]."""
        joined = list[str]()
        rest = list(words)
        while rest:
            joined.append(rest.pop(0))
            hint = getattr(self._option_string_actions.get(joined[-1]), "_typehint", None)
            element = get_args(hint)[0] if get_origin(hint) in (list, tuple) else None
            if element in (str, int, float) or get_origin(element) is Literal:
                values = list(takewhile(lambda word: not word.startswith("--"), rest))
                if values and not (len(values) == 1 and values[0].startswith("[")):
                    is_text = element not in (int, float)
                    joined.append(json.dumps(values) if is_text else f"[{','.join(values)}]")
                    del rest[: len(values)]
        return joined

    def _plainly(self, message: str) -> str:
        """What jsonargparse says in our words.

        Of a wrong name the right ones, the nearest first; of a wrong type those that are allowed.
        """
        names = re.findall(r'Parser key "(.+?)"(?: element \d+)?:', message)
        place, word = ".".join(names), ""
        choices: list[str] = []
        if found := re.search(r"Expected a typing\.Literal\[(.*)\]\. Got value: (.*)", message):
            listed, word = re.findall(r"'[^']*'|\d+", found[1]), found[2]
            choices = [choice.strip("'") for choice in listed]
            problem = f"{place} is {word!r:.40}" if "'" in found[1] else f"{place} is {word:.40}"
        elif names and (found := re.search(r"Option '(.+)' is not accepted", message)):
            action = self._option_string_actions.get(f"--{place}")
            element = get_args(getattr(action, "_typehint", None))
            if element and is_dataclass(element[0]):
                choices, word = [entry.name for entry in fields(element[0])], found[1]
                problem = f"{place} has the key {word!r:.40}"
        if not choices:
            return _of_type(place, message) or message
        return f"{problem}; it must be one of {nearest_first(word, choices)}"


_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list": "a list, [A, B]",
    "tuple": "a list, [A, B]",
    "dict": "{NAME: VALUE, ...}",
    "NoneType": "null",
}


def _of_type(place: str, message: str) -> str:
    """What jsonargparse says of a value of a wrong type, in one line; empty where it is not that.

    Args:
        place: the option.
        message: with one class that was expected, or the members of a union.
    """
    if not place:
        return ""
    if found := re.search(r"Expected a tuple with (\d+) elements\. Got value: (.*)", message):
        return f"{place} is {found[2]:.40}; it must be {found[1]} values, [A, B, ...]"
    if found := re.search(r"(?:dot import path string|import path format): (.*)", message):
        return f"{place} has {found[1]!r:.40}; it must be of {{FIELD: VALUE, ...}} each"
    one = re.search(r"Expected a (<class '\w+'>)\. Got value: (.*)", message, re.DOTALL)
    some = re.search(r"Subtypes: \[(.*)\]\n.*Given value: (.*)", message, re.DOTALL)
    if not (found := one or some):
        return ""
    words = [
        _TYPES.get(name, "") if name else ", ".join(re.findall(r"'([^']*)'", literal))
        for name, literal in re.findall(r"<class '(\w+)'>|typing\.Literal\[(.*?)\]", found[1])
    ]
    if not all(words):
        return ""
    return f"{place} is {found[2].strip()!r:.40}; it must be {' or '.join(dict.fromkeys(words))}"


def _check_path(flag: str, path: str) -> None:
    """Raise UsageError for a path that is empty, which would be the working folder, or leads on."""
    if not path:
        raise UsageError(f"{flag} is empty; it must name a file or a folder")
    if os.path.islink(path) and not os.path.exists(path):
        raise UsageError(f"{flag} {path} is a link to {os.readlink(path)}, which leads nowhere")


def _sections(known: set[str]) -> set[str]:
    """The names before the dots."""
    return {name.rpartition(".")[0] for name in known if not name.endswith(".help")} - {""}


def _recipe_keys(recipe: str, known: set[str]) -> Iterable[str]:
    """The keys of a recipe that no option has; UsageError where it, or a section, is no mapping."""
    sections = _sections(known)

    def unknown(section: str, values: Any) -> Iterable[str]:
        if not isinstance(values, dict):
            place = f"recipe {recipe}: {section or 'it'}"
            raise UsageError(f"{place} is {values!r:.40}; it must hold FIELD: VALUE")
        for key, value in values.items():
            name = f"{section}.{key}" if section else str(key)
            if name in sections:
                yield from unknown(name, value)
            elif name not in known and isinstance(value, dict) and not section:
                # a section of before: its keys have new names each
                yield from (f"{name}.{inner}" for inner in value)
            elif name not in known:
                yield name

    return unknown("", read_yaml(Path(recipe), f"recipe {recipe}"))


def renamed(name: str) -> str:
    """The name that an option or key of a recipe has today."""
    section, _, last = name.rpartition(".")
    section = _RENAMED_SECTIONS.get(section, section)
    last = _RENAMED_FIELDS.get(last, last)
    return _RENAMED.get(name) or (f"{section}.{last}" if section else last)


def _unknown(name: str, known: set[str], flag: str, problem: str) -> str:
    """The message for an option or key that does not exist: its new name, or the nearest."""
    today, last = renamed(name), name.rpartition(".")[2]
    last = _RENAMED_FIELDS.get(last, last)
    if today != name and today in known:
        changed = f" ({_MEANING_CHANGED[today]})" if today in _MEANING_CHANGED else ""
        return f"{problem}: it is now {flag}{today}{changed}."
    # of another section, or misspelt
    near = [option for option in sorted(known) if option.rpartition(".")[2] == last]
    by_last = {option.rpartition(".")[2]: option for option in sorted(known)}
    near = near or get_close_matches(name, known, 1, 0.5)
    near = near or [by_last[match] for match in get_close_matches(last, by_last, 1, 0.5)]
    if not near:
        return f"{problem}; --help lists what there is."
    home = near[0].rpartition(".")[0]
    place = f" (section {home})" if home else ""
    return f"{problem}; the nearest is {flag}{near[0]}{place}."


def usable_cores() -> int:
    """The cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def nearest_first(word: str, known: Sequence[str]) -> str:
    """The known names for a message, first the one that a wrong word is nearest to."""
    near = get_close_matches(word, known, 1, 0.5)
    return ", ".join(near + [name for name in known if name not in near])


def file_in_the_way(folder: Path) -> Path | None:
    """Of a folder and those above it one that is a file, so that the folder cannot be made."""
    places = (place for place in (folder, *folder.parents) if place.exists())
    return next((place for place in places if not place.is_dir()), None)


def refuse_unknown_keys(values: Mapping[str, Any], known: Sequence[str], place: str) -> None:
    """Raise UsageError for a key of a file that is none of the known ones.

    Args:
        values: a mapping of the file.
        known: its keys; the nearest is named first.
        place: the file and where in it, which the message begins with.
    """
    for key in values:
        if key not in known:
            raise UsageError(
                f"{place}{key!s:.60} is no key; it must be one of {nearest_first(str(key), known)}."
            )


def load_config(
    kind: type[Config], path: Path, words: Sequence[str] = (), **changes: Any
) -> Config:
    """A recipe from a YAML file, with options as on a command line, and some fields replaced."""
    parser = Parser()
    parser.add_configuration(kind, str(path))
    config = build_config(kind, parser, parser.parse(["--config", str(path), *words]))
    return replace(config, **changes)  # type: ignore[type-var]


def build_config(kind: type[Config], parser: Parser, options: Namespace) -> Config:
    """The configuration object from parsed options."""
    made = parser.instantiate(options)
    return kind(**{entry.name: made[entry.name] for entry in fields(kind)})  # type: ignore[arg-type]


def value_of(words: Sequence[str], flag: str) -> str | None:
    """The value of a flag among the words of a command line."""
    return next(iter(_values_of(words, flag)), None)


def _values_of(words: Sequence[str], flag: str) -> list[str]:
    """The values of a flag that is given several times."""
    values = [value for word, value in pairwise(words) if word == flag]
    return values + [word.partition("=")[2] for word in words if word.startswith(f"{flag}=")]


def show_config(config: Any) -> None:
    """The resolved configuration, as config.yaml will hold it."""
    from pretrain.run import plain  # slow to import: Ctrl-C until then is a traceback of Python's

    print(yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True), end="")


def backbone_name(given: str | None) -> str:
    """What --backbone names, or the message that it is missing."""
    if given is None:
        raise UsageError(
            "--backbone is missing. Give a backbone file, or the folder of a "
            "pretraining run; python tools/pretrain.py makes one."
        )
    return given
