"""Studies: what a file comes to, and a run of one with stub tools in the place of the real ones."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from itertools import product
from pathlib import Path

import msgspec
import pytest

from pretrain.errors import UsageError
from pretrain.files import write_text
from pretrain.run import Result
from tests.conftest import ROOT
from tools.study import main, print_commands
from tools.support.study_plan import (
    Cell,
    Choice,
    Lane,
    Study,
    read_study,
    refuse_other_commands,
    write_commands,
)
from tools.support.study_run import (
    TIME_IS_UP,
    StudyRun,
    refuse_wrong_options,
    refuse_wrong_results,
    run_study,
)

STUDY = """
name: small
about: a test
pretrain: pretrain.py --seed {seed} --data {data}/train
arms: {none: "--mixing.method none", cutmix: "--mixing.method cutmix"}
cells:
  long:
    options: --epochs 80
    seeds: {none: [1, 2], cutmix: [1, 2]}
    steps: [linear]
  short: {options: --epochs 10, seeds: {none: [2]}}
steps:
  linear: >-
    finetune_cls.py --backbone {backbone} --seed {seed} --optimizer '{lr: 0.01}'
"""
STUB = f"""
import json, sys, os, time
from dataclasses import asdict
from pathlib import Path
sys.path[0] = {str(ROOT)!r}
from pretrain.run import Result
words = sys.argv[1:]
if "--parse-only" in words:
    sys.exit("error: there is no option --epocs" if "--epocs" in words else 0)
value = lambda flag: words[words.index(flag) + 1]
out, seed = Path(value("--out")), int(value("--seed"))
print(*words, flush=True)
if (Path(sys.argv[0]).parent / "slow").exists():
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        sys.exit(130)
if "--fails" in words and seed == 1:
    sys.exit("error: it cannot be\\n")
out.mkdir(parents=True, exist_ok=True)
pretrains = sys.argv[0].endswith("pretrain.py")
if pretrains:
    (out / "backbone.pth").write_text("weights")
assert pretrains or Path(value("--backbone")).exists()
facts = {{"fingerprint": f"{{seed:016x}}", **dict.fromkeys(("name", "arch", "method"), "x"),
         **dict.fromkeys(("recipe", "dataset", "epochs"), None), "seed": seed}}
result = Result(task="pretrain" if pretrains else "classification", metric="top1",
    metrics={{"top1": 40.0}}, backbone=facts, data={{"name": "x"}}, seed=seed, config={{}},
    seconds=1.0, environment={{}})
(out / "result.json").write_text(json.dumps(asdict(result)))
"""


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(STUDY)
    return path


@pytest.fixture
def stubs(tmp_path) -> Path:
    folder = tmp_path / "stubs"
    folder.mkdir()
    for name in ("pretrain.py", "finetune_cls.py"):
        (folder / name).write_text(STUB)
    return folder


def run(file: Path, stubs: Path, out: Path, results: Path | None = None, **more) -> StudyRun:
    lanes = read_study(file).lanes(stubs, "photos", out)
    study = StudyRun(out, results, slots=2)
    run_study(lanes, study, **more)
    return study


def results_in(folder: Path) -> set[str]:
    return {str(path.parent.relative_to(folder)) for path in folder.rglob("result.json")}


ALL = {
    *(
        f"long/{s}/{a}-seed{n}"
        for s in ("pretrain", "linear")
        for a in ("none", "cutmix")
        for n in (1, 2)
    ),
    "short/pretrain/none-seed2",
}


def test_a_file_comes_to_commands_seed_after_seed(file, stubs):
    lanes = read_study(file).lanes(Path("tools"), "photos", Path("runs"))
    assert [lane.jobs[0].title for lane in lanes] == [
        "long none seed 1: pretrain",
        "long cutmix seed 1: pretrain",
        "long none seed 2: pretrain",
        "long cutmix seed 2: pretrain",
        "short none seed 2: pretrain",
    ]
    first, second = lanes[1].jobs
    assert " ".join(first.command[1:]) == (
        "tools/pretrain.py --seed 1 --data photos/train --epochs 80 --mixing.method cutmix "
        "--resume auto --out runs/long/pretrain/cutmix-seed1"
    )
    backbone = "runs/long/pretrain/cutmix-seed1/backbone.pth"
    words = ["--backbone", backbone, "--seed", "1", "--optimizer", "{lr: 0.01}"]
    assert second.command[2:8] == words


@pytest.mark.parametrize(
    ("choice", "titles"),
    [
        (Choice(["short"], seeds=[2]), [["short none seed 2: pretrain"]]),
        (
            Choice(arms=["cutmix"], seeds=[1]),
            [["long cutmix seed 1: pretrain", "long cutmix seed 1: linear"]],
        ),
        (
            Choice(seeds=[2], steps=["pretrain"]),
            [[f"{cell} seed 2: pretrain"] for cell in ("long none", "long cutmix", "short none")],
        ),
        (  # with what it needs, and no cell that goes without it
            Choice(arms=["none"], seeds=[2], steps=["linear"]),
            [["long none seed 2: pretrain", "long none seed 2: linear"]],
        ),
        (Choice(["short"], steps=["linear"]), []),
    ],
    ids=str,
)
def test_a_part_of_a_study(choice, titles, file):
    lanes = read_study(file).lanes(Path("tools"), "photos", Path("runs"), choice)
    assert [[job.title for job in lane.jobs] for lane in lanes] == titles


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("[linear]", "[linaer]", "cells.long.steps has 'linaer'; there are linear"),
        ("{none: [2]}", "{noen: [2]}", "cells.short.seeds has 'noen'; there are none, cutmix"),
        ("name: small", "nmae: small", "nmae is no key; it must be one of name, about"),
        ("about: a test", "", "about is missing; a study has name, about, pretrain, arms"),
        ("seeds: {none: [2]}", "seed: {}", "cells.short.seed is no key; it must be one of seeds,"),
        (", seeds: {none: [2]}", "", "cells.short.seeds is missing; give those of each arm"),
        ("{none: [2]}", "[2]", "cells.short.seeds is [2]; it must be those of each arm, {ARM: [1"),
        (
            "finetune_cls.py",
            "finetune_clz.py",
            "linear: 'finetune_clz.py' is no tool; a command begins with one of finetune_cls.py, ",
        ),
        ("finetune_cls.py", "tools/pretrain.py", "begins with one of pretrain.py, "),
        ("{data}/train", "{data}/train --dry-run", "with --dry-run a run leaves no result"),
        ("{backbone}", "{backbone} --backbone x", "--backbone stands there 2 times"),
        ("{backbone}", "{backbon}", "{backbon} is not known; there are data, seed, backbone"),
        ("--backbone {backbone}", "", "does not use {backbone}"),
        ("--seed {seed} --data", "--data", "does not use {seed}"),
        ("--epochs 80", "--epochs '80", "No closing quotation"),
        ("{data}/train", "{data}/train --out x", "--out is the study's own"),
        ("  short:", "  a/b:", "cell 'a/b': a name of letters"),
        ("  short:", "  ..:", "cell '..': a name of letters"),
        ("name: small", "name: ../small", "name '../small': a name of letters"),
        ("  short:", "  10:", "cells: a key: expected `str`, got `int`. Write it in quotes"),
        ("arms: {none:", "arms: {no:", "arms: a key: expected `str`, got `bool`. Write it in quot"),
        ("  short:", "  long:", "line 11: long stands there a second time"),
        ("{data}/train", "{data}/train --out=x", "--out is the study's own"),
        ("{data}/train", "{data}/train --config no.yaml", "there is no file no.yaml"),
        ("{none: [2]}", "{none: [2, 1.5]}", "cells.short.seeds.none[1]: expected `int`, got 1.5"),
        ("[linear]", "linear", "cells.long.steps: expected `array`, got 'linear'"),
        ("seeds: {none: [2]}", "seeds: {none: [2]", "line 12: expected ',' or '}'"),
    ],
)
def test_mistakes_show_before_anything_runs(file, before, after, message):
    assert before in STUDY
    file.write_text(STUDY.replace(before, after, 1))
    with pytest.raises(UsageError) as error:
        read_study(file)
    assert message in str(error.value)


def test_the_study_in_the_docs(tmp_path, monkeypatch):
    text = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
    path = tmp_path / "small.yaml"
    path.write_text(text.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    monkeypatch.chdir(ROOT)
    lanes = read_study(path).lanes(Path("tools"), ".", tmp_path)
    assert [len(lane.jobs) for lane in lanes] == 2 * [3, 3, 1, 1]
    keys = {one.name for one in msgspec.structs.fields(Study)} - {"cells"}
    keys |= {f"cells.NAME.{one.name}" for one in msgspec.structs.fields(Cell)}
    assert not {key for key in keys if f"| `{key}` |" not in text}


def test_results_are_kept_and_are_enough_to_go_on(file, stubs, tmp_path):
    kept = tmp_path / "kept"
    study = run(file, stubs, tmp_path / "one", kept)
    assert not study.left
    assert not study.failed
    assert results_in(kept) == results_in(tmp_path / "one") == ALL

    # in another place: nothing is run, as all results stand; then one needs its backbone again
    assert not run(file, stubs, tmp_path / "two", kept).left
    assert not results_in(tmp_path / "two")
    (kept / "long/linear/cutmix-seed2/result.json").unlink()
    run(file, stubs, tmp_path / "two", kept)
    there = {"long/pretrain/cutmix-seed2", "long/linear/cutmix-seed2"}
    assert results_in(tmp_path / "two") == there
    assert results_in(kept) == ALL


def test_a_backbone_that_came_out_otherwise_does_not_mix_with_the_results(file, stubs, tmp_path):
    kept = tmp_path / "kept"
    run(file, stubs, tmp_path / "one", kept)
    (kept / "long/linear/none-seed1/result.json").unlink()
    other = kept / "long/pretrain/none-seed1/result.json"
    other.write_text(other.read_text().replace("0000000000000001", "000000000000000f"))
    with pytest.raises(UsageError, match="it came to other bits"):
        run(file, stubs, tmp_path / "two", kept)
    assert "000000000000000f" in other.read_text()


def test_results_of_before_are_kept_where_they_are_of_that_backbone(file, stubs, tmp_path):
    file.write_text(STUDY.replace("{none: [1, 2], cutmix: [1, 2]}", "{none: [1]}"))
    out, kept = tmp_path / "out", tmp_path / "kept"
    run(file, stubs, out)
    run(file, stubs, out, kept)
    assert results_in(kept) == results_in(out)

    # in OUT is a backbone of other bits than what is kept: nothing is made of it
    other = kept / "long/pretrain/none-seed1/result.json"
    other.write_text(other.read_text().replace("0000000000000001", "000000000000000f"))
    run(file, stubs, out, kept)  # all is there
    for folder in (kept, out):
        (folder / "long/linear/none-seed1/result.json").unlink()
    with pytest.raises(UsageError, match="it came to other bits") as error:
        run(file, stubs, out, kept)
    assert f"remove {kept}/long/*/none-seed1, and" in str(error.value)
    assert not (out / "long/linear/none-seed1/result.json").exists()
    other.unlink()  # as it says
    run(file, stubs, out, kept)
    assert results_in(kept) == results_in(out)


@pytest.fixture
def done(file, tmp_path) -> tuple[list[Lane], Path, Path]:
    """Lanes of a study that ran, its folder and that of its results."""
    out, kept = tmp_path / "out", tmp_path / "kept"
    lanes = read_study(file).lanes(Path("tools"), "photos", out)
    for job, folder in product((job for lane in lanes for job in lane.jobs), (out, kept)):
        facts = {"fingerprint": f"{job.seed:016x}", "seed": job.seed, "epochs": None}
        facts |= dict.fromkeys(("name", "arch", "method", "recipe", "dataset"), "x")
        result = Result(task="pretrain", metric="top1", metrics={"top1": 40.0}, backbone=facts,
                        data={"name": "x"}, seed=job.seed, config={}, seconds=1.0,
                        environment={})  # fmt: skip
        write_text(folder / job.folder / "result.json", json.dumps(asdict(result)))
    refuse_wrong_results(lanes, [kept, out])
    return lanes, out, kept


def test_results_of_another_seed_are_not_taken_for_done(done):
    lanes, out, kept = done
    for step in ("pretrain", "linear"):
        one, two = (kept / f"long/{step}/none-seed{seed}/result.json" for seed in (1, 2))
        one.write_text(two.read_text())
    with pytest.raises(UsageError, match=r"is of a backbone of seed 2, not 1.*Remove .*-seed1,"):
        refuse_wrong_results(lanes, [kept, out])


@pytest.mark.parametrize("step", ["pretrain", "linear"])
def test_results_of_two_backbones_are_not_taken_for_done(step, done):
    lanes, out, kept = done
    other = out / f"long/{step}/none-seed1/result.json"
    other.write_text(other.read_text().replace("0000000000000001", "000000000000000f"))
    with pytest.raises(UsageError, match=r"is of the backbone 0+f, .* of 0+1; all") as error:
        refuse_wrong_results(lanes, [kept, out])
    assert f"Remove {kept}/long/*/none-seed1 or {out}/long/*/none-seed1, and" in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", None])
def test_a_broken_result_is_named_with_what_helps(text, done):
    lanes, out, kept = done
    broken = out / "long/linear/none-seed1/result.json"
    broken.unlink()
    if text is None:
        broken.mkdir()
    else:
        broken.write_text(text)
    with pytest.raises(UsageError, match=r"Remove .*linear/none-seed1, and the same command"):
        refuse_wrong_results(lanes, [kept, out])


def test_print_says_what_the_results_lack(done, file, capsys):
    _, out, kept = done
    shutil.rmtree(kept / "long/linear/none-seed1")
    main([str(file), "--out", str(out), "--results", str(kept), "--print"])
    said = capsys.readouterr()
    assert said.out == ""
    assert f"1 of 9 results lie in {out} alone; the same command without --print" in said.err


@pytest.mark.parametrize("flag", ["--out", "--results"])
@pytest.mark.parametrize("place", ["small.yaml", "small.yaml/x"])
def test_a_file_in_the_place_of_a_folder(flag, place, file, tmp_path):
    for more in ([], ["--print"]):
        with pytest.raises(UsageError, match=r"small.yaml is a file; --out and --results must"):
            main([str(file), flag, str(tmp_path / place), *more])


def test_data_that_is_not_there_may_be_elsewhere_where_commands_are_printed(file, tmp_path):
    words = [str(file), "--out", str(tmp_path / "out"), "--data", str(tmp_path / "no")]
    with pytest.raises(UsageError, match="no: there is no such folder"):
        main(words)
    main([*words, "--print", "--cells", "short"])
    assert not (tmp_path / "out").exists()


def test_a_failed_job_does_not_stop_the_others(file, stubs, tmp_path):
    file.write_text(STUDY.replace("--mixing.method cutmix", "--fails"))
    study = run(file, stubs, tmp_path / "out")
    assert [job.title for job in study.failed] == ["long cutmix seed 1: pretrain"]
    assert results_in(tmp_path / "out") == {name for name in ALL if "cutmix-seed1" not in name}
    log = tmp_path / "out/logs/long/pretrain/cutmix-seed1.log"
    assert "error: it cannot be" in log.read_text()


def test_a_backbone_that_was_removed_is_named_and_trained_again_where_its_folder_is_gone(
    file, stubs, tmp_path, capsys
):
    out = tmp_path / "runs"
    run(file, stubs, out)
    for name in ("none-seed1", "cutmix-seed1"):
        (out / "long/pretrain" / name / "backbone.pth").unlink()
    (out / "long/linear/none-seed1/result.json").unlink()
    study, lanes = run(file, stubs, out), read_study(file).lanes(stubs, "photos", out)
    assert [job.title for job in study.failed] == ["long none seed 1: pretrain"]
    folder = out / "long/pretrain/none-seed1"
    assert f"{folder / 'backbone.pth'} is gone, though its result stands" in capsys.readouterr().err
    with pytest.raises(UsageError, match=rf"is gone.*remove {folder}, "):
        print_commands(lanes, [out])
    shutil.rmtree(folder)
    assert not run(file, stubs, out).failed
    assert results_in(out) == ALL


def test_a_job_of_a_study_that_was_killed_goes_on(file, stubs, tmp_path):
    """It is waited for, and not started a second time."""
    out = tmp_path / "out"
    folder = out / "short/pretrain/none-seed2"
    script = (
        f"import sys, time; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\n"
        "from pretrain.files import lock\n"
        f"with lock(Path({str(folder)!r}) / '.lock', 'busy'):\n"
        "    print(flush=True)\n"
        "    time.sleep(1)\n"
        f"    (Path({str(folder)!r}) / 'backbone.pth').touch()\n"
        f"    (Path({str(folder)!r}) / 'result.json').write_text(Path('result').read_text())\n"
    )
    file.write_text(STUDY.replace("{none: [1, 2], cutmix: [1, 2]}", "{none: [1]}"))
    run(file, stubs, tmp_path / "one")
    (tmp_path / "result").write_text(
        (tmp_path / "one/short/pretrain/none-seed2/result.json").read_text()
    )
    words = [sys.executable, "-c", script]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=tmp_path) as orphan:
        orphan.stdout.readline()
        study = run(file, stubs, out)
    assert not study.left
    assert not study.failed
    assert not (out / "logs/short/pretrain/none-seed2.log").exists()


def test_hours(file, stubs, tmp_path):
    (stubs / "slow").touch()
    started = time.monotonic()
    study = run(file, stubs, tmp_path / "out", hours=1 / 3600)
    assert study.signals == [TIME_IS_UP]
    assert time.monotonic() - started < 20
    assert len(study.left) == len(ALL)
    assert not study.failed
    assert not results_in(tmp_path / "out")
    (stubs / "slow").unlink()
    assert not run(file, stubs, tmp_path / "out").left


def test_another_command_is_refused(file, stubs, tmp_path):
    out = tmp_path / "out"
    study = read_study(file)
    write_commands(study.lanes(stubs, "photos", out), out)
    run(file, stubs, out)
    refuse_other_commands(study.lanes(Path("elsewhere"), "/other/photos", tmp_path / "x"), out)
    file.write_text(STUDY.replace("--epochs 80", "--epochs 90"))
    with pytest.raises(UsageError) as error:
        refuse_other_commands(read_study(file).lanes(stubs, "photos", out), out)
    assert "--epochs 80" in str(error.value)
    assert "--epochs 90" in str(error.value)
    for before, after in (("{data}/train", "{data}/other/train"), ("{lr: 0.01}", "a/{lr: 0.01}")):
        file.write_text(STUDY.replace(before, after))
        with pytest.raises(UsageError, match="came from another command"):
            refuse_other_commands(read_study(file).lanes(stubs, "photos", out), out)


def test_another_recipe_is_refused(file, stubs, tmp_path, capsys):
    out, recipe = tmp_path / "out", tmp_path / "recipe.yaml"
    recipe.write_text("# one\nbatch_size: 16\n")
    file.write_text(STUDY.replace("--epochs 80", f"--epochs 80 --config {recipe}"))
    (out / "long/pretrain/none-seed1").mkdir(parents=True)

    def lanes():
        return read_study(file).lanes(stubs, "photos", out)

    refuse_other_commands(lanes(), out)
    assert "does not say by which commands long/pretrain/none-seed1 came" in capsys.readouterr().err
    write_commands(lanes(), out)
    recipe.write_text("# two\nbatch_size: 16\n")
    os.utime(recipe, (1, 1))
    refuse_other_commands(lanes(), out)
    recipe.write_text("# two\nbatch_size: 32\n")
    with pytest.raises(UsageError, match=r"recipe.yaml@\w{8} .*\n.*recipe.yaml@\w{8} "):
        refuse_other_commands(lanes(), out)


def test_the_tool(file, tmp_path):
    command = [sys.executable, str(ROOT / "tools/study.py"), str(file), "--out", "runs"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    there = {"cwd": tmp_path, "env": env, "capture_output": True, "text": True}
    printed = subprocess.run([*command, "--print"], **there)
    lines = printed.stdout.splitlines()
    assert (printed.returncode, len(lines)) == (0, 5), printed.stderr
    assert "test -e runs/long/linear/none-seed1/result.json ||" in lines[0]
    assert not (tmp_path / "runs").exists()

    wrong = subprocess.run([*command, "--cells", "log"], **there)
    assert wrong.returncode == 2
    assert "--cells has 'log'" in wrong.stderr
    wrong = subprocess.run([*command, "--cells", "short", "--seeds", "2", "7"], **there)
    assert wrong.returncode == 2
    assert f"--seeds has 7; {file} has 2 in short." in wrong.stderr
    wrong = subprocess.run([*command, "--steps", "lienar"], **there)
    assert wrong.returncode == 2
    assert f"--steps has 'lienar'; {file} has pretrain, linear." in wrong.stderr
    wrong = subprocess.run([*command, "--cells", "short", "--arms", "cutmix"], **there)
    assert wrong.returncode == 2
    assert f"{file} has nothing of --cells short --arms cutmix." in wrong.stderr

    wrong_options = {"--epochs 80": "--epocs 80", "--seed {seed} --opt": "--batch_size 0 --opt"}
    for before, after in wrong_options.items():
        file.write_text(file.read_text().replace(before, after))
    wrong = subprocess.run([*command, "--cells", "long"], **there)
    assert wrong.returncode == 2
    assert wrong.stderr == (
        "error: these commands are wrong, and nothing is run:\n"
        "long none seed 1: pretrain: there is no option --epocs; the nearest is --epochs.\n"
        "long none seed 1: linear: batch_size is 0; it must be at least 1\n"
        "long cutmix seed 1: pretrain: there is no option --epocs; the nearest is --epochs.\n"
    )
    assert not (tmp_path / "runs").exists()
    file.write_text(STUDY)

    failed = subprocess.run([*command, "--cells", "short"], **there)  # there are no images
    assert failed.returncode == 1, failed.stderr
    assert "there is no folder" in failed.stderr
    assert "jobs: 0 of 1 done, 1 failed" in failed.stderr
    commands = json.loads((tmp_path / "runs/commands.json").read_text())
    assert commands["short/pretrain/none-seed2"].startswith(
        "pretrain.py --seed 2 --data '{data}/train'"
    )


def command_of(text: str, tmp_path: Path) -> list[Lane]:
    """A study whose one step is `text`."""
    file = tmp_path / "one.yaml"
    file.write_text(
        STUDY.replace(
            STUDY[STUDY.index("  linear: >-") :], f"  linear: {text} --backbone {{backbone}}"
        )
    )
    return read_study(file).lanes(
        ROOT / "tools", "photos", tmp_path / "out", Choice(steps=["linear"])
    )


@pytest.mark.parametrize(
    ("command", "message"),
    [
        # the recipe that these words choose is asked, as when they are run
        ("finetune_det.py --detector.kind ssd --engine torchvision", None),
        # which it is, the data would say, and that may lie elsewhere
        ("finetune_det.py --data {data}/cards", None),
        ("finetune_seg.py --optimizer.warmup 500", "warmup"),
        (
            "evaluate.py --suite robustnes --data {data}",
            "there is no suite 'robustnes'; there are robustness",
        ),
        ("evaluate.py --suite ood --data {data} --batch-size 0", "--batch-size is 0"),
        (
            "evaluate.py --suite ood --data {data} --robustness.pgd_steps 3",
            "does not name robustness",
        ),
        (
            "evaluate.py --suite robustness --data {data} --robustness.pgd_steps 0",
            "robustness.pgd_steps is 0",
        ),
        ("evaluate.py --suite ood,calibration --data ood={data}", "calibration has none; give cal"),
        ("evaluate.py --suite ood --data {data} --ood.noise x", "ood.noise is 'x'; it must be a w"),
    ],
)
def test_tools_are_asked_for_what_their_options_alone_show(command, message, tmp_path):
    lanes = [Lane(lane.jobs[1:]) for lane in command_of(command, tmp_path)]
    study = StudyRun(tmp_path / "out", None, slots=2)
    if message is None:
        refuse_wrong_options(lanes, study)
    else:
        with pytest.raises(UsageError, match=message):
            refuse_wrong_options(lanes, study)
    assert not (tmp_path / "out").exists()


def test_one_job_is_asked_of_those_that_differ_in_the_seed_alone(file, stubs):
    jobs = [
        job for lane in read_study(file).lanes(stubs, "photos", Path("runs")) for job in lane.jobs
    ]
    assert len(jobs) == len(ALL) == 9
    assert len({job.kind for job in jobs}) == 4  # none and cutmix, linear; none in short
    file.write_text(STUDY.replace("{lr: 0.01}", "{lr: 0.0{seed}}"))
    jobs = [
        job for lane in read_study(file).lanes(stubs, "photos", Path("runs")) for job in lane.jobs
    ]
    assert len({job.kind for job in jobs}) == 5


def test_ctrl_c(file, stubs, tmp_path):
    (stubs / "slow").touch()
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\n"
        "from tests.tools.test_study import run\n"
        f"study = run(Path({str(file)!r}), Path({str(stubs)!r}), Path({str(tmp_path / 'out')!r}))\n"
        "print(study.signals, len(study.left))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    log = tmp_path / "out/logs/long/pretrain/none-seed1.log"
    while not (log.exists() and log.read_text()) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert output == f"[2] {len(ALL)}\n", errors
    assert errors.count("stopping") == 1


def test_the_committed_studies_can_be_read():
    files = sorted((ROOT / "configs/studies").glob("*.yaml"))
    assert files
    for path in files:
        study = read_study(path)
        assert study.lanes(Path("tools"), "data", Path("runs"))
