"""tools/report.py as a user calls it."""

import csv
import errno
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, replace
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
from PIL import Image

from pretrain.errors import UsageError
from tests.conftest import ROOT
from tests.transfer.test_report import result
from tools.report import main
from tools.support.command import run_main
from transfer.report import write_files


@pytest.fixture
def runs(tmp_path):
    for method, value in (("none", 50.0), ("cutmix", 52.0)):
        folder = tmp_path / "runs" / method
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(
            json.dumps(asdict(result("pretrain", method, 0, value)))
        )
    return tmp_path / "runs"


def code(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        run_main(lambda: main([str(word) for word in words]))
    return int(ended.value.code or 0)


@pytest.mark.parametrize(("name", "left"), [("/dev/full", 2), (None, 141)])
@pytest.mark.parametrize("repeated", [1, 10_000])  # in Python's buffer, and beyond
def test_output_that_nobody_takes(repeated, name, left, runs, tmp_path, capsys, monkeypatch):
    if name is None:
        reader, writer = os.pipe()
        os.close(reader)
    monkeypatch.setattr("transfer.report.to_markdown", lambda *_: "text\n" * repeated)
    with open(name or writer, "w") as output:
        monkeypatch.setattr("sys.stdout", output)
        assert code(runs, "--out", tmp_path / "out") == left
    said = "error: standard output cannot be written: No space left on device\n" if name else ""
    assert capsys.readouterr().err == said
    assert (tmp_path / "out" / "report.html").exists()


def test_output_in_ascii(runs, monkeypatch):
    output = TextIOWrapper(BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", output)
    run_main(lambda: print("± \udcff"))
    assert output.buffer.getvalue() == rb"\xb1 \udcff" + b"\n"


def test_a_name_cannot_steer_the_terminal(tmp_path, capsys):
    assert code(tmp_path / "\x1b[31mred\rX") == 2
    assert r"\x1b[31mred X." in capsys.readouterr().err


def test_expected_numbers_decide_the_exit_code(runs, tmp_path, capsys):
    file = tmp_path / "expected.yaml"
    row = "  - {task: pretrain, method: cutmix, metric: top1, value: 52, tolerance: 0.1}\n"
    file.write_text(f"rows:\n{row}")
    main([str(runs), "--check", str(file)])  # returns: exit code 0
    assert "ok   pretrain top1, cutmix: 52, expected 52 ± 0.1" in capsys.readouterr().err
    file.write_text(f"rows:\n{row}{row.replace('52', '53')}")
    assert code(runs, "--check", file) == 1
    shown = capsys.readouterr()
    assert "FAIL pretrain top1, cutmix: 52, expected 53 ± 0.1, off by -1" in shown.err
    assert "| net, cutmix | 52.0 | 52.0 |" in shown.out
    file.write_text(f"rows:\n{row.replace('cutmix', 'mixup')}")
    assert code(runs, "--check", file) == 1
    assert "FAIL pretrain top1, mixup: not measured" in capsys.readouterr().err
    file.write_text("rows: [")
    assert code(runs, "--check", file) == 2
    assert code(runs, "--check", tmp_path / "nowhere.yaml") == 2


def test_a_user_s_mistakes_leave_nothing_behind(runs, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("x")
    assert code(runs, "--out", file) == 2
    assert "is a file; it must name a folder" in capsys.readouterr().err
    assert code(tmp_path / "nowhere") == 2
    assert code(runs, "--docs", file, "--out", tmp_path / "out") == 2
    assert file.read_text() == "x"
    assert code(runs, "--ou", tmp_path / "out") == 2  # no abbreviations
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "runs"]


def test_docs_are_brought_in_step(runs, tmp_path, capsys):
    docs = tmp_path / "docs.md"
    docs.write_text("# Results\n\n<!-- report -->\n<!-- /report -->\nmore\n")
    main([str(runs), "--docs", str(docs)])
    table = capsys.readouterr().out
    assert docs.read_text() == (
        f"# Results\n\n<!-- report -->\n\n{table.strip()}\n\n<!-- /report -->\nmore\n"
    )


def test_the_report_needs_no_torch(runs, tmp_path):
    block = "import sys; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; "
    block += "import runpy; runpy.run_path(sys.argv[0], run_name='__main__')"
    tool = str(ROOT / "tools" / "report.py")
    command = [sys.executable, "-c", block, tool, str(runs), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").iterdir())) == 5


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("failing", "call"), [("write", 3), ("rename", 1), ("rename", 4)])
def test_a_report_is_five_new_files_or_the_old_ones(failing, call, tmp_path, monkeypatch):
    out, calls = tmp_path / "runs" / "out", []

    def rename(source: Path, target: Path) -> None:
        if target.parent == folder and source.suffix != ".before":
            calls.append(target)
            if len(calls) == call:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename_file(source, target)

    def fail_to_write(text: str) -> None:
        calls.clear()
        before = contents(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", rename)
            with pytest.raises(UsageError, match=r"report.html cannot be written: No space left"):
                write_files(out, dict.fromkeys(names, text))
        assert contents(tmp_path) == before
        assert len(calls) == call

    rename_file, draft = os.replace, out / f".report.html.{os.getpid()}.tmp"
    folder = draft if failing == "write" else out
    names = ["report.md", "report.html", "report.csv", "cells.csv", "report.tex"]
    fail_to_write("1")
    assert list(tmp_path.iterdir()) == []
    out.mkdir(parents=True)  # the folder of the runs may be the report's
    (out / "result.json").write_text("{}")
    (out / names[2]).write_text("0")
    fail_to_write("1")
    write_files(out, dict.fromkeys(names, "1"))
    fail_to_write("2")
    write_files(out, dict.fromkeys(names, "2"))
    texts = {Path(name).name: content for name, content in contents(out).items()}
    assert texts == {**dict.fromkeys(names, b"2"), "result.json": b"{}"}


def test_nothing_but_renames_lies_between_the_files_of_a_report(tmp_path, monkeypatch):
    events: list[str] = []
    sync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append("sync"), sync(handle)))
    monkeypatch.setattr(os, "replace", lambda *paths: (events.append("name"), rename(*paths)))
    write_files(tmp_path, dict.fromkeys("abcde", "text"))
    assert events[-7:] == ["sync", *["name"] * 5, "sync"]


def test_a_folder_of_a_report_s_name_is_left_alone(runs, capsys):
    (runs / "report.tex").mkdir()
    assert code(runs, "--out", runs) == 2
    assert "report.tex is a folder. Name another --out" in capsys.readouterr().err
    assert sorted(path.name for path in runs.iterdir()) == ["cutmix", "none", "report.tex"]


def test_no_control_character_and_no_formula_gets_out(runs, tmp_path, capsys):
    odd = "\x1b[31m=1+1\x00\x9b\u202e\r\n@SUM(1)\t"
    bad = result("pretrain", f"[{odd}", 0, 1.0)
    bad = replace(bad, data={"name": odd, "train": 1}, environment={"device": odd})
    cells = ["=1", " =1", "\t=1", "\n+1+1", "\r@x", "\x00-1-1", "-1 OR", "\uff1d1"]
    cells += ["-0.5", "-3e-7", "+4"]
    bad = replace(bad, config={"name": odd, odd: odd, "cells": dict(enumerate(cells)), "lr": -0.1})
    folder = runs / f"a{odd.translate({0: None})}"
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps(asdict(bad)))
    (folder / "log.jsonl").write_text("[]\n")
    lost = {"task": "pretrain", "backbone": bad.backbone, "seed": 0, "folder": odd}
    jobs = [{**lost, "state": "failed", "why": odd}, odd]
    (runs / "grid.json").write_text(json.dumps({"format": "grid/2", "jobs": jobs}))
    out = tmp_path / "out"
    main([str(runs), "--out", str(out)])
    shown = capsys.readouterr()
    texts = [
        shown.out,
        shown.err,
        *((out / name).read_text() for name in ("report.tex", "report.md", "report.html")),
    ]
    with open(out / "report.csv", newline="") as handle:
        rows = list(csv.reader(handle))
    with open(out / "cells.csv", newline="") as handle:
        every_cell = [cell for row in rows + list(csv.reader(handle)) for cell in row]
    for text in (*texts, *every_cell):
        assert not [letter for letter in text if letter != "\n" and not letter.isprintable()]
    assert not [cell for cell in every_cell if "\n" in cell]
    formulas = [cell for cell in every_cell if re.match("\\s*[-=+@\uff1d]", cell)]
    assert all(re.fullmatch(r"[-+]?[0-9.]+(e-?[0-9]+)?", cell) for cell in formulas)
    line = next(row for row in rows if "\\x1b" in row[0])
    shown = [line[rows[0].index(f"config.cells.{n}")] for n in range(len(cells))]
    assert shown[-3:] == ["-0.5", "-3e-7", "+4"]
    assert shown[:5] == ["'=1", "' =1", "' =1", "' +1+1", "' @x"]
    assert "-0.1" in line


def test_each_file_that_cannot_be_shown_is_named_and_the_rest_is_shown(tmp_path, capsys):
    root, good = tmp_path / "runs", {"epoch": 1, "top1": 1.0}
    bad: dict[bytes, dict[str, bytes]] = {
        b"digits": {"log.jsonl": b'{"epoch": 1, "top1": ' + b"9" * 400 + b"}\n"},
        b"latin": {"log.jsonl": b'{"epoch": 1, "top1": "\xe9"}\n' + json.dumps(good).encode()},
        b"deep": {"log.jsonl": b"[" * 100_000 + b"\n"},
        b"list": {"log.jsonl": json.dumps({"epoch": [1], "top1": 1}).encode() + b"\n"},
        b"torn": {"pictures/mixed_batch.png": b"\x89PNG\r\n\x1a\n"},
        b"eps": {"pictures/mixed_batch.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"},
    }
    for number, (name, files) in enumerate(bad.items()):
        run = result("pretrain", "none", number, 1.0)
        folder = Path(os.fsdecode(os.fsencode(root) + b"/" + name))
        (folder / "pictures").mkdir(parents=True)
        # each of another recipe, so that each is the one that would be shown
        run = replace(run, config={"name": name.decode()})
        (folder / "result.json").write_text(json.dumps(asdict(run)))
        for file, content in files.items():
            (folder / file).write_bytes(content)
    os.mkfifo(root / "digits" / "pictures" / "mixed_batch.png")
    tall = root / "list" / "pictures" / "mixed_batch.png"
    Image.new("RGB", (10, 20_000)).save(tall)
    os.mkdir(os.fsencode(root) + b"/\xff")
    os.mkfifo(root / "result.json")
    for method in ("none", "cutmix"):
        for seed, score in enumerate((5e-324, 1e12, -1e12, 0)):
            run = result("detection", method, seed, score * (1 + (method == "none")))
            (root / f"{method}{seed}").mkdir()
            (root / f"{method}{seed}" / "result.json").write_text(json.dumps(asdict(run)))
    main([str(root), "--out", str(tmp_path / "out")])
    lines = [line.removeprefix("left out: ") for line in capsys.readouterr().err.splitlines()]
    assert sorted(line.split(": ")[0] for line in lines) == [
        "\\udcff", "cutmix1/result.json", "cutmix2/result.json", "deep/log.jsonl",
        "digits/log.jsonl", "digits/pictures/mixed_batch.png", "eps/pictures/mixed_batch.png",
        "latin/log.jsonl", "list/log.jsonl", "none1/result.json", "none2/result.json",
        "result.json", "torn/pictures/mixed_batch.png",
    ]  # fmt: skip
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count('src="data:image/webp') == 1  # the tall one, made small
    assert 'height="2880"' in page
    assert "nan" not in page.split("Configurations")[0].lower().replace("name", "")
    for line in lines:
        assert line.split(": ")[0] in page
