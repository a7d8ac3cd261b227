"""A run is a folder; a result is one JSON file written last.

    RUN/config.yaml     the resolved configuration, written first
    RUN/backbone.txt    fingerprint of the backbone that a transfer started from
    RUN/data.json       digest of the data, see `pretrain.data_digest`
    RUN/log.jsonl       one line per epoch
    RUN/checkpoints/    what resuming needs
    RUN/pictures/
    RUN/result.json     written LAST: a folder without it is an unfinished run

No torch at import: the report reads results without it.
"""

import json
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import yaml
from filelock import AcquireReturnProxy
from msgspec import Meta

from pretrain.data_digest import describe_changes, is_same, read_digest
from pretrain.errors import UsageError
from pretrain.files import append, lock, remove, write_text
from pretrain.reading import Integer, Number, check, read_bytes, read_json, read_text, read_yaml

RESULT_FORMAT = "result/2"
# keys of Result.backbone in result/1 that were renamed
_RENAMED = {"arm": "method", "variant": "recipe_hash"}
# fields that runs and results of before lack, and what they did
_ADDED: dict[str, dict[str, Any]] = {
    "pretrain": {
        "score_every": 1.0,
        "rotation": {"weight": 0.0, "angles": "all"},
        "mixing": {"args": {}, "decoupled": 0.0},
        "dataset": {
            "shard_window": 32,
            "per_class": None,
            "progressive": {"smallest": None, "start": 0.0, "end": None, "multiple": 32},
        },
    },
    "detection": {
        "dataset": {"similar_names": "refuse", "first_pixel": 1, "exif": "auto",
                    "no_annotation": "refuse", "square": None, "photometric": 0.0,
                    "zoom_out": 0.0, "iou_crop": 0.0},
        "detector": {"kind": "faster_rcnn", "head_convs": 4, "layout": "levels",
                     "box_scales": []},
        "mixing": {"mosaic": 0.0, "mixup": 0.0, "cutmix": 0.0, "copy_paste": 0.0,
                   "mixup_alpha": 1.5, "cutmix_alpha": 1.0, "min_visible": 0.25,
                   "off_epoch": None},
    },
    "captioning": {
        "dataset": {"images": None, "tokenizer": "ptb"},
        "model": {"num_layers": 6, "encoder_layers": 3, "num_heads": 8, "ffn_size": 2048},
        "decoding": {"groups": 1, "diversity": 0.5},
        "start_from": None,
        "objective": "cross_entropy",
        "self_critical": {"samples": 5, "baseline": "mean"},
    },
}  # fmt: skip
# may change when a run is resumed: no bit depends on them (on accumulate only through the size of a
# micro-batch, and the run says what that changes)
CHANGEABLE = ("loader", "accumulate", "tensorboard", "checkpoints", "cache", "digest")
"""Top-level fields of a configuration that do not make another run."""
_PLACES = ("data", "dataset.images")  # fields that say where the data lies, not what it is


def rename_backbone_keys(backbone: Any) -> Any:
    """The description of a backbone in result/1 and grid/1, with today's keys."""
    if not isinstance(backbone, dict):
        return backbone
    return {_RENAMED.get(key, key): value for key, value in backbone.items()}


class BackboneFacts(TypedDict):
    """What a result and a grid must say of a backbone."""

    name: str
    arch: str
    method: str
    fingerprint: str
    recipe: str | None
    dataset: str | None
    epochs: Number | None
    seed: Integer | None
    recipe_hash: NotRequired[str | None]
    model_args: NotRequired[dict[str, Any] | None]
    input_size: NotRequired[Annotated[list[Integer], Meta(min_length=3, max_length=3)] | None]


class _Metrics(TypedDict):
    best_epoch: NotRequired[Integer | None]


class _Data(TypedDict):
    name: str
    digest: NotRequired[str | None]
    digest_bytes: NotRequired[str | None]


class _Config(TypedDict, total=False):
    name: str
    engine: str | None
    data: str | None
    backbone: str | None


class _Environment(TypedDict, total=False):
    device: str | None
    commit: str | None
    dirty: bool | None
    peak_memory_mib: Number | None
    created: str | None


class _ResultFile(TypedDict):
    task: str
    metric: str
    metrics: _Metrics
    backbone: BackboneFacts
    data: _Data
    seed: Integer
    config: _Config
    seconds: Number
    environment: _Environment


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one run measured, and everything needed to run it again."""

    task: str
    """pretrain, classification, detection, segmentation or captioning."""
    metric: str
    """The key of `metrics` that stands in a table."""
    metrics: dict[str, Any]
    backbone: dict[str, Any]
    """What `Backbone.describe` says: name, arch, method, fingerprint, and how it was trained."""
    data: dict[str, Any]
    """name of the data set, numbers of images, digest of the files."""
    seed: int
    config: dict[str, Any]
    seconds: float
    environment: dict[str, Any]
    """device, versions, threads, commit, dirty flag, peak memory, time: see `environment`."""
    format: str = RESULT_FORMAT

    @staticmethod
    def read(path: Path, name: str | None = None) -> "Result":
        """Read a result file, of today or before.

        Args:
            path: where it lies.
            name: what the message calls it; its path where that is not given.

        Raises:
            UsageError: it cannot be read, is none of ours, or what is used of it has another type.
        """
        return Result.parse(read_json(path, name), name or str(path))

    @staticmethod
    def parse(content: Any, name: str = "the result") -> "Result":
        """Take a result from what its file holds; fields that are not known are left away.

        Raises:
            UsageError: see `read`; it begins with `name`.
        """
        found = check(content, dict, name).get("format")
        if found == "result/1":
            content |= {"backbone": rename_backbone_keys(content.get("backbone"))}
        elif found != RESULT_FORMAT:
            raise UsageError(
                f"{name}: is no result of this project (format {found!r:.60}, expected "
                f"{RESULT_FORMAT!r})"
            )
        check(content, _ResultFile, name)
        _add_missing(content["config"], _ADDED.get(content["task"], {}))
        mixing = content["config"].get("mixing")  # of pretraining, with methods beside the first
        others = mixing.get("others") if isinstance(mixing, dict) else None
        for other in others if isinstance(others, list) else ():
            if isinstance(other, dict):
                other.setdefault("args", {})
        return Result(**{key: content[key] for key in _ResultFile.__annotations__})


class Run:
    """The folder of one run. Nothing is created before `start`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: AcquireReturnProxy | None = None

    @property
    def finished(self) -> bool:
        """True once result.json stands."""
        return os.path.lexists(self.folder / "result.json")

    @property
    def checkpoint(self) -> Path:
        """Where the state for resuming lies."""
        return self.folder / "checkpoints" / "last.pth"

    @property
    def lock_file(self) -> Path:
        """Locked by the process that works in the folder; see `pretrain.files`."""
        return self.folder / ".lock"

    @property
    def log_file(self) -> Path:
        """One JSON object per epoch."""
        return self.folder / "log.jsonl"

    @property
    def backbone(self) -> str | None:
        """Fingerprint of the backbone that the run began with; None where none is noted."""
        path = self.folder / "backbone.txt"
        return read_text(path).strip() if os.path.lexists(path) else None

    def picture(self, name: str) -> Path:
        """The path for a picture."""
        return self.folder / "pictures" / name

    def refuse_finished(self) -> None:
        """Raise UsageError where the folder holds a finished run: results are not overwritten."""
        if self.finished:
            backbone = self.folder / "backbone.pth"
            longer = f" To train its network on: --init {backbone} and another --out."
            raise UsageError(
                f"{self.folder} holds a finished run (result.json). "
                f"Give another --out, or remove the folder.{longer if backbone.exists() else ''}"
            )

    def refuse(
        self,
        config: Mapping[str, Any],
        backbone: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Raise UsageError where the folder is not free for this run, or for its continuation.

        See `start`; of `data`, what is missing on one side counts as equal. None: it is yet to be
        known, and this is asked again.
        """
        self.refuse_finished()
        path = self.folder / "config.yaml"
        try:
            held = check(read_yaml(path), dict, str(path)) if os.path.lexists(path) else None
            begun, seen = self.backbone, read_digest(self.folder / "data.json")
            self.read_log()
        except UsageError as error:
            raise UsageError(f"{error}. Give another --out, or remove {self.folder}.") from error
        if held is not None:
            same = bool(seen) if data is None else is_same(seen, data)
            if differing := other_run(held, dict(config), same_data=same):
                raise UsageError(
                    f"{self.folder} was started with another configuration "
                    f"({'; '.join(differing)}). Give another --out, or the same configuration; "
                    f"only {', '.join(CHANGEABLE)} may change."
                )
        # what a run that was killed as it began leaves, and a job its logs, is not in the way
        elif self.folder.is_file() or any(
            not re.fullmatch(r"slurm|\.lock|\..*\.tmp", entry.name)
            for entry in self.folder.glob("*")
        ):
            raise UsageError(
                f"{self.folder} exists and is no run of ours (it has no config.yaml). "
                "Give another --out."
            )
        if None not in (backbone, begun) and begun != backbone:
            raise UsageError(
                f"{self.folder} was started from another backbone (fingerprint {begun}, now "
                f"{backbone}). Give another --out, or that backbone."
            )
        if changed := describe_changes(seen, data or {}):
            raise UsageError(
                f"the data has changed since {self.folder} was started ({'; '.join(changed)}). "
                "Give the data of then; or, to start anew, another --out without --resume."
            )

    def start(
        self,
        config: Mapping[str, Any],
        backbone: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Create the folder and write config.yaml, or take up the run that is there.

        Args:
            config: the resolved configuration.
            backbone: fingerprint of the backbone that a transfer starts from, kept beside it.
            data: digest of the data, kept as well.

        Raises:
            UsageError: the folder holds a finished run, another configuration or backbone, the
                digest of other data, or foreign files; or another process works in it.
        """
        self.refuse(config, backbone, data)
        self._lock = lock(self.lock_file, f"another process is working in {self.folder}")
        self.refuse_finished()  # by that process, just now
        for folder in (self.folder, self.checkpoint.parent):
            for torn in folder.glob(".*.tmp"):
                remove(torn)
        path, start = self.folder / "config.yaml", self.folder / "backbone.txt"
        seen = self.folder / "data.json"
        if not path.exists():
            write_text(path, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
        if backbone is not None and not start.exists():
            write_text(start, backbone + "\n")
        if data is not None:
            known = read_digest(seen)  # possibly over more bytes
            write_text(seen, json.dumps({**known, **data}) + "\n")

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one line to log.jsonl."""
        append(self.log_file, (json.dumps(record) + "\n").encode())

    def read_log(self) -> list[dict[str, Any]]:
        """The lines of log.jsonl; a torn one (a kill while writing) is dropped."""
        if not os.path.lexists(self.log_file):
            return []
        records = []
        for line in read_bytes(self.log_file).splitlines():
            with suppress(ValueError, RecursionError):
                records.append(json.loads(line))
        return [one for one in records if isinstance(one, dict) and type(one.get("epoch")) is int]

    def is_best(self, key: str, value: float) -> bool:
        """Whether `value` is above that of `key` in every epoch logged so far that has one."""
        return all(value > record[key] for record in self.read_log() if key in record)

    def cut_log(self, epochs: int) -> None:
        """Keep only the first `epochs` epochs: what a checkpoint to be resumed has seen."""
        kept = [record for record in self.read_log() if record["epoch"] <= epochs]
        write_text(self.log_file, "".join(json.dumps(record) + "\n" for record in kept))

    def finish(self, result: Result) -> None:
        """Write result.json, the last act of a run."""
        write_text(self.folder / "result.json", json.dumps(asdict(result), indent=2) + "\n")
        with suppress(OSError):  # Windows keeps what is open
            self.lock_file.unlink()
        self._lock = None


def plain(config: Any) -> dict[str, Any]:
    """A configuration dataclass as the plain values that a file gives back (lists, no tuples)."""
    return json.loads(json.dumps(asdict(config)))


def differences(left: Any, right: Any, name: str = "") -> list[str]:
    """`field: left, not right` for each leaf that differs between two nested dicts.

    A field that files of before lack is taken as what they did.
    """
    if isinstance(left, dict) and isinstance(right, dict):
        lines = []
        for key in sorted({*left, *right}, key=str):
            place = f"{name}.{key}" if name else key
            there, here = (side[key] if key in side else _added(place) for side in (left, right))
            lines += differences(there, here, place)
        return lines
    both = [side for side in (left, right) if isinstance(side, list) and side]
    if len(both) == 2 and len(left) == len(right) and isinstance(left[0], dict):  # mixing.others
        pairs = zip(left, right, strict=True)
        found = (differences(*pair, f"{name}.{index}") for index, pair in enumerate(pairs))
        return [line for lines in found for line in lines]
    return [] if left == right else [f"{name}: {left!r} there, {right!r} here"]


def _added(place: str) -> Any:
    """What files that lack the field of a configuration did, whichever task they are of."""
    found: Any = None
    for inside in _ADDED.values():
        value: Any = inside
        for key in place.split("."):
            if key != "others" and not key.isdigit():  # mixing.others, each as mixing itself
                value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            found = {**found, **value} if isinstance(found, dict) else value
    return found


def _add_missing(config: dict[str, Any], added: dict[str, Any]) -> None:
    """Fill in, in place, what a file of before lacks."""
    for key, value in added.items():
        if isinstance(value, dict) and isinstance(config.setdefault(key, {}), dict):
            _add_missing(config[key], value)
        elif not isinstance(value, dict):
            config.setdefault(key, value)


def other_run(held: Any, wanted: Any, same_data: bool = False) -> list[str]:
    """The differences between two configurations that make them two runs.

    Where the data lies is compared by where the paths lead; not at all where it is the same data.
    """

    def is_another(line: str) -> bool:
        name = line.partition(":")[0]
        if name in _PLACES or name.endswith(".data"):  # of a suite of evaluations
            return not same_data and _place(held, name) != _place(wanted, name)
        return name.partition(".")[0] not in CHANGEABLE

    return list(filter(is_another, differences(held, wanted)))


def _place(config: Any, name: str) -> Any:
    """Where the path in a field leads."""
    for key in name.split("."):
        config = config[key] if isinstance(config, dict) and key in config else None
    with suppress(TypeError, ValueError):  # it is no path
        return os.path.realpath(config)
    return config


def environment(device: Any) -> dict[str, Any]:
    """Device, versions, commit, peak memory and time: what a number needs beside it.

    `device` is a torch.device. commit and dirty are None outside a git checkout.
    """
    import torch

    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        processor = _read_proc("cpuinfo", r"^model name\s*: *(.*?)\s*$")
        name = f"{processor or f'{platform.machine()} CPU'}, {os.cpu_count()} cores"
    changes, peak = _git("status", "--porcelain"), peak_memory_mib(device)
    libraries = ("torch", "torchvision", "timm", "lightning-fabric", "numpy", "pillow")
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            **{library: metadata.version(library) for library in libraries},
        },
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if changes is None else changes != "",
        "peak_memory_mib": None if math.isnan(peak) else round(peak, 1),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def peak_memory_mib(device: Any) -> float:
    """The allocator's peak on CUDA, this process's largest resident size otherwise."""
    if device.type != "cuda":
        return peak_resident_mib()
    import torch

    return torch.cuda.max_memory_allocated(device) / 2**20


def peak_resident_mib() -> float:
    """The largest size that this process has had in memory; nan where the system does not tell."""
    # on Linux, ru_maxrss begins with the parent's own size
    if peak := _read_proc("self/status", r"^VmHWM:\s*(\d+)"):
        return int(peak) / 2**10
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 2**10  # bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _read_proc(name: str, pattern: str) -> str | None:
    """What `pattern` captures in a file of Linux's /proc; None on other systems."""
    path = Path("/proc", name)
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    found = re.search(pattern, text, re.MULTILINE)
    return None if found is None else found[1]


def _git(*arguments: str) -> str | None:
    """What git prints about the checkout of this file; None outside one, or without git."""
    root = Path(__file__).resolve().parent.parent
    command = ["git", "-C", str(root), *arguments]
    if (root / ".git").exists():  # and not one around ours
        with suppress(OSError, subprocess.CalledProcessError):
            return subprocess.check_output(command, stderr=subprocess.DEVNULL, text=True).strip()
    return None
