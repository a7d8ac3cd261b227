"""What a study file says, and the commands that it comes to."""

import hashlib
import json
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from pretrain.errors import UsageError, shorten
from pretrain.files import write_text
from pretrain.progress import log
from pretrain.reading import check, read_json, read_yaml
from tools.support.command import ROOT, nearest_first, refuse_unknown_keys

PRETRAIN = "pretrain"
"""The first step of every lane: it makes the backbone."""
_NAME = re.compile(r"\w[\w.+-]*")
_SEED = re.compile(r"\{seed\}")
_COMMANDS = "commands.json"
_SEEDS = "those of each arm, {ARM: [1, 2, 3], ...}"


class Cell(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A setting of the pretraining."""

    seeds: dict[str, list[int]]
    """Of each arm."""
    options: str = ""
    """Words for the command that pretrains."""
    steps: list[str] = []
    """What its backbones are carried into."""


@dataclass(frozen=True)
class Choice:
    """A part of a study; None for all."""

    cells: Sequence[str] | None = None
    arms: Sequence[str] | None = None
    seeds: Sequence[int] | None = None
    steps: Sequence[str] | None = None
    """With the pretraining that they need."""

    def has(self, cell: str, arm: str, seed: int) -> bool:
        """Whether a backbone is in it."""
        chosen = (self.cells, cell), (self.arms, arm), (self.seeds, seed)
        return all(some is None or one in some for some, one in chosen)

    def of_steps(self, lane: "Lane") -> "Lane":
        """A lane with its steps that are in it; without jobs where none is."""
        if self.steps is None:
            return lane
        if not any(job.step in self.steps for job in lane.jobs):
            return Lane([])
        return Lane([job for job in lane.jobs if job.step in (PRETRAIN, *self.steps)])


ALL = Choice()


class Study(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A study file: commands of tools, in which {data}, {seed}, {backbone} are filled in."""

    name: str
    about: str
    """What is asked, and what was fixed beforehand."""
    pretrain: str
    """The command that pretrains."""
    arms: dict[str, str]
    """Words for it: what is compared."""
    cells: dict[str, Cell]
    steps: dict[str, str] = {}
    """Commands."""

    def lanes(
        self,
        tools: Path,
        data: str,
        out: Path,
        choice: "Choice" = Choice(),
    ) -> list["Lane"]:
        """All that is to be run: seed after seed, so that what is there after a while are pairs.

        Args:
            tools: their folder.
            data: what {data} stands for.
            out: folder of the runs.
            choice: of what alone.
        """
        lanes = [
            self._lane(cell, arm, seed, tools, data, out)
            for seed in sorted(
                {s for c in self.cells.values() for m in c.seeds.values() for s in m}
            )
            for cell in self.cells
            for arm in self.arms
            if seed in self.cells[cell].seeds.get(arm, ())
            if choice.has(cell, arm, seed)
        ]
        return [lane for lane in map(choice.of_steps, lanes) if lane.jobs]

    def _lane(self, cell: str, arm: str, seed: int, tools: Path, data: str, out: Path) -> "Lane":
        first = f"{self.pretrain} {self.cells[cell].options} {self.arms[arm]}"
        texts = {PRETRAIN: first, **{step: self.steps[step] for step in self.cells[cell].steps}}
        folders = {step: Path(cell, step, f"{arm}-seed{seed}") for step in texts}
        backbone = str(out / folders[PRETRAIN] / "backbone.pth")
        filled = {"data": data, "seed": str(seed), "backbone": backbone}
        jobs = []
        for step, text in texts.items():
            script, *words = shlex.split(text)
            words = [_fill(word, filled) for word in words]
            # evaluate.py goes on by itself
            words += [] if script == "evaluate.py" else ["--resume", "auto"]
            command = [sys.executable, str(tools / script), *words]
            title = f"{cell} {arm} seed {seed}: {step}"
            recorded = _record(text, seed)
            jobs.append(Job(title, step, command, recorded, out, folders[step]))
        return Lane(jobs)


@dataclass(frozen=True)
class Job:
    """One run of a tool."""

    title: str
    step: str
    words: list[str]
    """The command but for its --out."""
    recorded: str
    """The command whatever the place, with what its recipes say: see `_record`."""
    out: Path
    folder: Path
    """Relative to `out`, and to the folder of the results."""

    @property
    def command(self) -> list[str]:
        """What is run."""
        return [*self.words, "--out", str(self.out / self.folder)]

    @property
    def seed(self) -> int:
        """Of the backbone."""
        return int(self.folder.name.rpartition("-seed")[2])

    @property
    def has_seed(self) -> bool:
        """Whether the seed is that of its --seed; it may stand in another option."""
        return self.kind != self.recorded

    @property
    def kind(self) -> str:
        """Jobs of one kind differ in --seed and --backbone alone."""
        return re.sub(rf"--seed[ =]{self.seed}(?= |$)", "--seed", self.recorded)

    def is_done(self, folders: Sequence[Path]) -> bool:
        """Whether its result stands in one of the folders."""
        return any((folder / self.folder / "result.json").exists() for folder in folders)

    @property
    def obstacle(self) -> str:
        """Why it cannot run, with what to do: its result stands, but its backbone was removed."""
        folder = self.out / self.folder
        file = folder / "backbone.pth"
        if self.step != PRETRAIN or not self.is_done([self.out]) or file.exists():
            return ""
        return (
            f"{file} is gone, though its result stands: put it back, or remove {folder}, and it is "
            "trained again, to the same bits on the same machine."
        )

    def shell_line(self) -> str:
        """Does nothing where the result stands."""
        result = shlex.quote(str(self.out / self.folder / "result.json"))
        return f"{{ test -e {result} || {shlex.join(self.command)}; }}"


@dataclass(frozen=True)
class Lane:
    """The jobs of one backbone: its pretraining, then what needs it."""

    jobs: list[Job]

    def left(self, folders: Sequence[Path]) -> list[Job]:
        """What is to be run.

        With its pretraining, though its result stands, where the file that the others need is gone.
        """
        left = [job for job in self.jobs if not job.is_done(folders)]
        first = self.jobs[0]
        has_file = (first.out / first.folder / "backbone.pth").exists()
        return left if not left or left[0] is first or has_file else [first, *left]


def read_study(path: Path) -> Study:
    """A study from its file.

    Raises:
        UsageError: it cannot be read; what it names is not there; a placeholder is not known.
    """
    content = check(read_yaml(path), dict, str(path))
    _refuse_keys(content, path)
    study: Study = check(content, Study, str(path))
    named = {"name": [study.name], "arm": study.arms, "cell": study.cells, "step": study.steps}
    for kind, names in named.items():
        for name in names:
            if not _NAME.fullmatch(name) or name == PRETRAIN:
                raise UsageError(
                    f"{path}: {kind} {name!r}: a name of letters, digits and .+-_ is needed, which "
                    f"begins with one of the first two, other than {PRETRAIN}."
                )
    for name, cell in study.cells.items():
        for what, given, known in (
            ("seeds", cell.seeds, study.arms),
            ("steps", cell.steps, study.steps),
        ):
            for one in given:
                if one not in known:
                    raise UsageError(
                        f"{path}: cells.{name}.{what} has {one!r}; there are {', '.join(known)}."
                    )
    for name, cell in study.cells.items():
        for arm in cell.seeds:
            text = f"{study.pretrain} {cell.options} {study.arms[arm]}"
            _refuse_command(text, f"{path}: cells.{name} of {arm}", needs="seed")
    for name, text in study.steps.items():
        _refuse_command(text, f"{path}: steps.{name}", needs="backbone")
    return study


def _refuse_keys(content: Mapping[str, Any], path: Path) -> None:
    """Raise UsageError for a key that is not known or missing, and seeds that are of no arm."""
    cells = content.get("cells")
    cells = cells if isinstance(cells, dict) else {}
    levels: list[tuple[str, Any, type]] = [("", content, Study)]
    levels += [(f"cells.{name}.", cell, Cell) for name, cell in cells.items()]
    for place, values, kind in levels:
        fields = msgspec.structs.fields(kind)
        known = [one.name for one in fields]
        if isinstance(values, dict):
            refuse_unknown_keys(values, known, f"{path}: {place}")
        for one in fields:
            if one.required and isinstance(values, dict) and one.name not in values:
                raise UsageError(
                    f"{path}: {place}{one.name} is missing; a study has {', '.join(known)}."
                    if kind is Study
                    else f"{path}: {place}{one.name} is missing; give {_SEEDS}."
                )
        seeds = values.get("seeds") if isinstance(values, dict) and kind is Cell else {}
        if not isinstance(seeds, dict):
            raise UsageError(f"{path}: {place}seeds is {seeds!r:.60}; it must be {_SEEDS}.")


def _refuse_command(text: str, where: str, needs: str) -> None:
    try:
        script, *words = shlex.split(text)
    except ValueError as error:  # an open quote, or nothing
        raise UsageError(f"{where}: {text!r} is no command: {error}.") from error
    known = sorted(path.name for path in (ROOT / "tools").glob("[!_]*.py"))
    if script not in known:
        names = nearest_first(Path(script).name, known)
        raise UsageError(f"{where}: {script!r} is no tool; a command begins with one of {names}.")
    for word in words:
        _fill(word, dict.fromkeys(("data", "seed", "backbone"), ""), where)
        if word.endswith(".yaml") and not Path(word).is_file() and "{" not in word:
            raise UsageError(f"{where}: there is no file {word}.")
    flags = [word.partition("=")[0] for word in words if word.startswith("--")]
    for flag in ("--out", "--resume"):
        if flag in flags:
            raise UsageError(f"{where}: {flag} is the study's own; leave it off.")
    for flag in ("--dry-run", "--stop-after", "--prove-resume", "--help"):
        if flag in flags:
            raise UsageError(f"{where}: with {flag} a run leaves no result; leave it off.")
    for flag in ("--backbone", "--data", "--seed"):
        if flags.count(flag) > 1:
            raise UsageError(f"{where}: {flag} stands there {flags.count(flag)} times.")
    if f"{{{needs}}}" not in text:
        raise UsageError(f"{where}: {text!r} does not use {{{needs}}}.")


def _fill(word: str, values: Mapping[str, str], where: str = "") -> str:
    """A word with its placeholders filled in; other braces, as of YAML, stay."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise UsageError(f"{where}: {match[0]} is not known; there are {', '.join(values)}.")
        return values[match[1]]

    return re.sub(r"\{(\w+)\}", value, word)


def _record(text: str, seed: int) -> str:
    """A command whatever the place: {data} and {backbone} stay, and a recipe has its digest."""
    return shlex.join(_with_digest(_SEED.sub(str(seed), word)) for word in shlex.split(text))


def _with_digest(word: str) -> str:
    if not word.endswith(".yaml") or not Path(word).is_file():
        return word
    return f"{word}@{_digest(word, os.stat(word).st_mtime_ns)}"


@cache
def _digest(recipe: str, _: int) -> str:
    """Of what a recipe says: a comment may change."""
    content = json.dumps(read_yaml(Path(recipe)), default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:8]


def refuse_other_commands(lanes: Sequence[Lane], folder: Path) -> None:
    """Raise UsageError where a result in `folder` came from another command than the file's.

    Where it is not noted, that is logged.
    """
    held, unknown = _read_commands(folder), list[str]()
    for job in (job for lane in lanes for job in lane.jobs):
        if not (folder / job.folder).exists():
            continue
        before = held.get(str(job.folder))
        if before is None:
            unknown.append(str(job.folder))
        elif before != job.recorded:
            raise UsageError(
                f"{folder / job.folder} came from another command:\n  there: {before}\n"
                f"  here:  {job.recorded}\nGive another folder, or remove that one."
            )
    if unknown:
        log(
            f"note: {folder / _COMMANDS} does not say by which commands {shorten(unknown)} came; "
            "they are taken as this study's"
        )


def write_commands(lanes: Sequence[Lane], folder: Path) -> None:
    """Note in `folder` which command each result comes from; those of other cells stay."""
    commands = {str(job.folder): job.recorded for lane in lanes for job in lane.jobs}
    content = _read_commands(folder) | commands
    write_text(folder / _COMMANDS, json.dumps(dict(sorted(content.items())), indent=1) + "\n")


def _read_commands(folder: Path) -> dict[str, str]:
    path = folder / _COMMANDS
    content: Any = check(read_json(path), dict[str, str], str(path)) if path.exists() else {}
    return dict(content)
