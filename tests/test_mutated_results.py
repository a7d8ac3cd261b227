"""What runs and grids leave, with one thing wrong: no traceback, no hang, each file named or used.

Mutated are result.json (of tasks and of evaluations), grid.json, config.yaml, backbone.txt,
log.jsonl, captions.json, pictures, detections and expected numbers: their values, their text, or
what lies in their place. A file that is left out is named in one line, and one that is whole is
not.
"""

import io
import json
import math
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from pretrain.errors import UsageError
from pretrain.run import Run
from tests.mutations import as_yaml, draws, mutate, mutate_text, put, time_limit
from tests.transfer.test_report import result
from tests.transfer.test_report_suites import evaluation
from transfer import task
from transfer.detection.average_precision import evaluate
from transfer.detection.detections_file import read_detections
from transfer.detection.records import Record, Records
from transfer.grid import GRID_FORMAT, Job, job_status
from transfer.report import read_runs, render_files, tabulate
from transfer.report.expectations import compare, read_expected
from transfer.report.results import FinishedRun, RunSet

CASES = {"result": 500, "evaluation": 250, "grid": 250, "log": 350, "captions": 250,
         "picture": 100, "run": 300, "detections": 300, "expected": 150}  # fmt: skip
BATCH = 20  # files in one folder of runs


def png() -> bytes:
    packed = io.BytesIO()
    Image.effect_noise((24, 16), 60).save(packed, "png")
    return packed.getvalue()


def lines(records: list) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


LOG = [{"epoch": n, "loss": 0.5, "top1": 10.0 * n} for n in (1, 2, 3)]
CAPTIONS = [{"image_id": n, "caption": f"a {n}", "references": ["b"], "picture": "e.png"}
            for n in range(3)]  # fmt: skip


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= 1e12


def is_whole_log(data: bytes) -> bool:
    """Each line that ends is a record, with numbers where it has a score."""
    for line in data.splitlines(keepends=True):
        try:
            record = json.loads(line)
            assert isinstance(record, dict)
            values = [record[key] for key in ("top1", "epoch")] if "top1" in record else []
            assert all(map(is_number, values))
        except (ValueError, LookupError, RecursionError, AssertionError):
            return not line.endswith((b"\n", b"\r"))
    return True


def is_whole_captions(data: bytes) -> bool:
    try:
        rows = json.loads(data.decode())
        json.dumps(rows, ensure_ascii=False).encode()
        return isinstance(rows, list) and all(
            type(row["image_id"]) in (int, str)
            and type(row["caption"]) is str
            and type(row.get("references", [])) is list
            and all(type(text) is str for text in row.get("references", []))
            and re.fullmatch(r"\w+\.\w+", row.get("picture", "e.png"), re.ASCII) is not None
            for row in rows
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return False


def make_run(root: Path, kind: str, number: int, draw: random.Random) -> tuple[str, bool | None]:
    """A run, or a grid, with one file mutated; its name, and whether it must be named if known."""
    task = "captioning" if kind == "captions" else "pretrain"
    folder = root / f"{kind}{number}"
    facts = asdict(result(task, "none", 0, 0.5, name=f"{kind}{number}"))
    facts = asdict(evaluation("none", 0)) if kind == "evaluation" else facts
    name = {"grid": "grid.json", "log": "log.jsonl", "captions": "captions.json",
            "picture": "pictures/mixed_batch.png"}.get(kind, "result.json")  # fmt: skip
    is_bad = None
    if kind == "grid":
        jobs = [job(facts, name) for name in "ab"]
        data = mutate({"format": GRID_FORMAT, "jobs": jobs}, json.dumps, draw)
    elif kind in ("result", "evaluation"):
        data = mutate(facts, json.dumps, draw)
    elif kind == "log":
        data = mutate(LOG, lines, draw)
        is_bad = not is_whole_log(data)
    elif kind == "captions":
        data = mutate(CAPTIONS, json.dumps, draw)
        is_bad = not is_whole_captions(data)
        for file, content in (("result", facts), ("captions", CAPTIONS)):
            put(root / f"{kind}{number}-good" / f"{file}.json", json.dumps(content).encode())
        facts["backbone"] |= {"method": "cutmix", "fingerprint": "x"}
    else:
        data = mutate_text(png(), draw)
    if put(folder / name, data, draw):
        is_bad = True
    if kind in ("log", "captions", "picture"):
        put(folder / "result.json", json.dumps(facts).encode())
    return f"{kind}{number}/{name}", is_bad


def job(facts: dict, folder: str) -> dict:
    job = {"task": facts["task"], "backbone": facts["backbone"], "seed": 0, "folder": folder}
    return {**job, "state": "failed", "why": "w"}


def test_a_report_names_or_shows_each_file(tmp_path, full):
    kinds = ("result", "evaluation", "grid", "log", "captions", "picture")
    cases = [
        (kind, n, draw) for kind in kinds for n, draw in enumerate(draws(kind, CASES[kind], full))
    ]
    random.Random(1).shuffle(cases)
    counts: Counter[str] = Counter()
    for start in range(0, len(cases), BATCH):
        root = tmp_path / f"{start}"
        good = asdict(result("pretrain", "none", 0, 1))
        put(root / "good" / "result.json", json.dumps(good).encode())
        known = dict(make_run(root, *case) for case in cases[start : start + BATCH])
        told: list[str] = []
        with time_limit():
            found = read_runs(root)
            table = tabulate(found)
            texts = render_files(table, found, told.append)
        told += found.complaints
        assert all("\n" not in line and len(line) <= 280 for line in told)
        named = {line.split(":")[0].split(", ")[0] for line in told}
        runs = {run.folder for run in found.runs}
        for file, is_bad in known.items():
            name = file.split("/")[0]
            kind = name.rstrip("0123456789")
            counts[kind] += file in named
            if is_bad is not None:
                assert (file in named) == is_bad, (start, file, told)
            if kind == "grid":
                check_grid(root / name)
            elif kind == "result":
                assert (name in runs) != (file in named), (start, file)
            elif kind == "evaluation":  # one of its suites may be left out
                assert name in runs or file in named, (start, file)
            else:
                assert name in runs, (start, file)
            if kind == "picture":
                is_shown = f", {name} ({name})</figcaption>" in texts["report.html"]
                assert is_shown != (file in named), (start, file)
        for file in ("report.md", "report.tex", "report.csv", "cells.csv"):
            odd = {one for one in texts[file] if not one.isprintable() and one != "\n"}
            assert not odd, (start, file, odd)
        assert "good" in runs
        shutil.rmtree(root)
    assert all(counts[kind] for kind in kinds), counts


def check_grid(folder: Path) -> None:
    """Each job of a grid.json is planned or named, or the whole file is."""
    planned, path = 0, folder / "grid.json"
    try:
        alone = read_runs(folder)
        planned, told = len(alone.unfinished), list(alone.complaints)
    except UsageError as error:
        told = str(error).split("\n  ")[1:]
    if not any(line.startswith("grid.json: ") for line in told):
        assert planned + len(told) == len(json.loads(path.read_bytes())["jobs"]), folder


IMAGES = tuple(
    Record(image_id=f"{n}", path=Path(f"{n}.jpg"), width=60, height=40) for n in range(3)
)
RECORDS = Records(classes=("cat", "dog"), images=IMAGES, category_ids=(1, 2))
DETECTIONS = [
    {"image_id": f"{n}", "category": "cat", "category_id": 1, "bbox": [1, 2.5, 9, 8], "score": 0.5}
    for n in range(3)
]
EXPECTED = {
    "tolerance": 0.5,
    "rows": [{"task": "pretrain", "method": "none", "metric": "top1", "value": 50.0, "n": 1}],
}


def refusal(call: Callable, *arguments: Any) -> str:
    """What it says where it refuses; nothing where it does not. Anything else is an error."""
    with time_limit():
        try:
            call(*arguments)
        except UsageError as error:
            return str(error)
    return ""


def is_whole_detections(data: bytes) -> bool:
    """Each entry is of a known image and class, with a box and a score that are numbers."""
    try:
        rows = json.loads(data)
        return type(rows) is list and all(map(is_detection, rows))
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return False


def is_detection(row: dict) -> bool:
    names = {str(number): name for number, name in enumerate(RECORDS.classes, 1)}
    name = row["category"] if "category" in row else names[str(row["category_id"])]
    numbers = [*row["bbox"], row["score"]]
    return (
        type(row) is dict
        and name in RECORDS.classes
        and type(row["bbox"]) is list
        and str(row["image_id"]) in [image.image_id for image in IMAGES]
        and len(numbers) == 5
        and all(type(number) in (int, float) and math.isfinite(number) for number in numbers)
        and min(numbers[2:4]) >= 0
    )


def test_detections_are_whole_or_named(tmp_path, full):
    ends = Counter()
    for number, draw in enumerate(draws("detections", CASES["detections"], full)):
        path = tmp_path / f"{number}.json"
        data = mutate(DETECTIONS, json.dumps, draw)
        is_bad = put(path, data, draw) or not is_whole_detections(data)
        message = refusal(lambda file: evaluate(RECORDS, read_detections(file, RECORDS)), path)
        assert bool(message) == is_bad, (path, message)
        assert not message or str(path) in message or " of the detections " in message, message
        ends[is_bad] += 1
    assert ends.keys() == {True, False}


def stated(data: bytes) -> list[dict] | None:
    """The rows of expected numbers, each with its tolerance; None where something is wrong."""
    try:
        text, loader = data.decode(), getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # C is fast
        content = yaml.load(text, loader)
        rows = [{"tolerance": content.get("tolerance"), **row} for row in content["rows"]]
        assert content.keys() <= {"rows", "tolerance"}
        assert not any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, loader))
        for row in rows:
            assert row.keys() <= {"task", "method", "metric", "value", "n", "tolerance"}
            assert row["task"] == "pretrain"
            assert row["metric"] in [metric.key for metric in task.by_name("pretrain").metrics]
            assert isinstance(row["method"], str)
            assert is_number(row["value"])
            assert is_number(row["tolerance"])
            assert row["tolerance"] >= 0
            assert row.get("n") is None or (type(row["n"]) is int and 1 <= row["n"] < 2**63)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, AssertionError,
            yaml.YAMLError):  # fmt: skip
        return None
    return rows or None


def test_expected_numbers_are_compared_or_named(tmp_path, full):
    """Where they are compared, a number holds that is as it was, within its tolerance."""
    table = tabulate(RunSet((FinishedRun(result("pretrain", "none", 0, 50.0)),)))
    ends = Counter()
    for number, draw in enumerate(draws("expected", CASES["expected"], full)):
        path, outcomes = tmp_path / f"{number}.yaml", []
        data = mutate(EXPECTED, as_yaml, draw)
        rows = None if put(path, data, draw) else stated(data)

        def call(file, outcomes=outcomes):
            outcomes += compare(read_expected(file), table)

        message = refusal(call, path)
        assert bool(message) == (rows is None), (path, message)
        assert "--check" in message or not message, message
        for row, outcome in zip(rows or [], outcomes, strict=True):
            is_met = row["method"] == "none" and row["metric"] == "top1"
            is_met = is_met and row.get("n") in (None, 1)
            assert outcome.holds == (is_met and abs(row["value"] - 50) <= row["tolerance"]), row
        ends[rows is None] += 1
    assert ends.keys() == {True, False} or not full


def test_an_unfinished_run_is_taken_up_or_named(tmp_path, full):
    """By its own tool (`Run.refuse`, the log) and by the grid."""
    config = {"name": "r", "epochs": 3, "data": None, "seed": 0, "loader": {"workers": 0}}
    finished = asdict(result("detection", "none", 0, 1.0)) | {"config": config}
    digest, backbone = {"digest": "0" * 16}, {"fingerprint": "0123456789abcdef"}
    whole: dict[str, tuple[Any, Callable]] = {
        "config.yaml": (config, as_yaml),
        "backbone.txt": (backbone["fingerprint"], str),
        "data.json": (digest, json.dumps),
        "log.jsonl": (LOG, lines),
        "result.json": (finished, json.dumps),
    }
    ends: Counter[str] = Counter()
    for number, draw in enumerate(draws("run", CASES["run"], full)):
        one = Job(
            task="detection", name=f"n{number}", seed=0, backbone=backbone, config=config,
            digest=digest,
        )  # fmt: skip
        run, name = Run(tmp_path / one.folder), draw.choice(sorted(whole))
        for file, (content, write) in whole.items():
            if file != name and file != "result.json":
                put(run.folder / file, write(content).encode())
        content, write = whole[name]
        is_text = name == "backbone.txt"
        data = mutate_text(content.encode(), draw) if is_text else mutate(content, write, draw)
        put(run.folder / name, data, draw)
        with time_limit():
            status = job_status(one, tmp_path)
        ends[status.state] += 1
        messages = [str(status.why)] if status.state == "failed" else []
        messages.append(refusal(run.refuse, config, backbone["fingerprint"], digest))
        messages += [refusal(run.cut_log, 2)] if name == "log.jsonl" else []
        for message in filter(None, messages):
            assert str(run.folder) in message, message
            ends["refused"] += 1
    assert set(ends) >= {"waiting", "failed", "refused"}, ends
