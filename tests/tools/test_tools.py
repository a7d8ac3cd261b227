"""The tools as a user calls them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT
from tests.forked import call, start, start_ranks, text_of

TRAINING = ("pretrain", "finetune_det", "finetune_cap", "finetune_cls", "finetune_seg")
TOOLS = (*TRAINING, "report", "show_mixing", "evaluate", "prepare_data", "bench")
TOOLS = (*TOOLS, "score_captions", "score_detections", "detect", "segment", "caption", "transfer")
TOOLS = (*TOOLS, "release", "pack")


def demo(task: str) -> tuple[str, str]:
    """The recipe of the synthetic shapes, given."""
    return "--config", str(ROOT / "configs" / task / "demo.yaml")


def inside(tool: str, *words: object, capsys) -> tuple[int, str]:
    """Run a tool in this process: its exit code and what it said on standard error."""
    import importlib

    from tools.support.command import run_main

    main = importlib.import_module(f"tools.{tool}").main
    with pytest.raises(SystemExit) as ended:
        run_main(lambda: main([str(word) for word in words]))
    return int(ended.value.code or 0), capsys.readouterr().err


def fails(tool: str, *words: object, capsys, said: str) -> None:
    code, error = inside(tool, *words, capsys=capsys)
    assert code == 2, error
    notes, _, message = f"\n{error}".partition("\nerror: ")
    assert all(line.startswith("note: ") for line in notes.splitlines() if line), error
    assert said in message
    assert "Traceback" not in error


@pytest.mark.parametrize("tool", TOOLS)
def test_help_does_not_import_torch(tool, tmp_path):
    block = (
        "import sys; sys.modules['torch'] = None; import runpy; sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", block, str(ROOT / "tools" / f"{tool}.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage:")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tool", TRAINING)
def test_help_explains_every_option(tool):
    text = call(tool, "--help").stdout
    for flag in ("--config", "--data", "--seed", "--out", "--resume", "--device", "--dry-run"):
        assert flag in text
    assert "default: " in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--epocs", "3"], "no option --epocs; the nearest is --epochs."),
        (["--epoch", "3"], "no option --epoch; the nearest is --epochs."),  # no abbreviations
        (
            ["--mixing.method", "cutmux"],
            "method is 'cutmux'; it must be one of cutmix, none, mixup",
        ),
        (
            ["--mixing.others", "[{method: mixup, alpah: 1}]"],
            "mixing.others has the key 'alpah'; it must be one of alpha, method, probability,",
        ),
        (
            ["--model.arc", "x"],
            "no option --model.arc; the nearest is --model.arch (section model)",
        ),
        (["--lr", "1"], "no option --lr; the nearest is --optimizer.lr (section optimizer)"),
        (["--workers", "3"], "no option --workers: it is now --loader.workers."),
        (["--optimizer.warmup_epochs=2"], "it is now --optimizer.warmup."),
        (["--optimizer.decay_norm_and_bias", "false"], "--optimizer.no_decay (true is 'nothing'"),
        (["--duration", "3 weeks"], "duration is '3 weeks'; give a number of epochs, or"),
        (["--epochs", "many"], "epochs is 'many'; it must be a whole number or null"),
        (["--optimizer.lr", "foo"], "optimizer.lr is 'foo'; it must be a number"),
        (["--dataset.mean", "1"], "dataset.mean is [1]; it must be 3 values, [A, B, ...]"),
        (
            ["--mixing.others", "[foo]"],
            "mixing.others has 'foo'; it must be of {FIELD: VALUE, ...}",
        ),
        (["--epochs", "0"], "epochs is 0; it must be at least 1"),
        (["--seed", "-1"], "seed is -1"),
        (["--seed", "9" * 400], "it must be at least 0 and at most 4,294,967,295"),
        (["--loader.workers", "999999"], "loader.workers is 999999; it must lie in [0, 512]"),
        (["--optimizer.lr", ".inf"], "optimizer.lr is inf; it must be above 0 and at most"),
        (["--optimizer.warmup", "inf"], "'inf'; give a number of epochs, or"),
        (["--duration", "1e99 steps"], "duration is 1e99 steps; it must be at most 1e+15"),
        (["--data", "a\0b"], r"'a\x00b' holds a NUL character, which no path or name has."),
        (["--config", "a\0b"], r"'a\x00b' holds a NUL character"),
        (["--optimizer.lr", "0"], "optimizer.lr is 0"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--config=/dev/zero"], "recipe /dev/zero: is no file"),
        (["--model", "/dev/zero"], "--model is '/dev/zero'; it must be {FIELD: VALUE, ...}, or"),
        (["--epochs", "9" * 5000], "a number of more than 4,300 digits; at most 4,294,967,295 is"),
        (["--epochs", "0x" + "f" * 5000], "epochs is a number of more than 4,300 digits; at most"),
        (["--data", "nowhere"], "there is no folder nowhere"),
        (["--resume", "nowhere"], "no run in that folder"),
        (["--device", "tpu"], "tpu"),
    ],
)
def test_mistakes_on_the_command_line(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fails("pretrain", *words, capsys=capsys, said=said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epocs: 3\n", "recipe x.yaml has the key epocs; the nearest is epochs."),
        ("model:\n  arc: resnet18\n", "has the key model.arc; the nearest is model.arch (section"),
        ("optimizer:\n  label_smoothing: 0.1\n", "it is now label_smoothing."),
        ("workers: 2\n", "has the key workers: it is now loader.workers."),
        ("model: [1, 2\n", "x.yaml"),
        ("model: " + "[" * 600, "recipe x.yaml: is nested too deeply"),
        (
            "epochs: " + "9" * 5000,
            "x.yaml: cannot be read as YAML: line 1: a number of 5,000 digits",
        ),
        ("model: 5\n", "recipe x.yaml: model is 5; it must hold FIELD: VALUE"),
        ("model:\n", "recipe x.yaml: model is None; it must hold FIELD: VALUE"),
        ("mixing: {others: [5]}\n", "mixing.others"),
        ("# " + "x" * 2**20, "recipe x.yaml: has 1,048,578 bytes; at most 262,144 are read"),
        ('data: "a\\0b"\n', "data holds a NUL character, which no path or name has."),
        ("- a\n- b\n", "recipe x.yaml: it is ['a', 'b']; it must hold FIELD: VALUE"),
    ],
)
def test_mistakes_in_a_recipe(text, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text(text)
    fails("pretrain", "--config", "x.yaml", capsys=capsys, said=said)
    assert os.listdir(tmp_path) == ["x.yaml"]


@pytest.mark.parametrize(
    ("tool", "text", "message"),
    [
        (
            "finetune_det",
            "solver:\n  optimizer: sgd\n",
            "is now optimizer.name (SGD without Nesterov",
        ),
        (
            "finetune_det",
            "solver:\n  clip: 10\n",
            "key solver.clip: it is now optimizer.clip_norm.",
        ),
        ("finetune_det", "voc:\n  max_broken: 1\n", "it is now dataset.max_corrupt."),
        ("finetune_det", "images:\n  group: true\n", "is now dataset.aspect_ratio_grouping."),
        ("finetune_det", "scratch: true\n", "it is now random_init."),
        ("finetune_cap", "adam:\n  lr: 1\n", "key adam.lr: it is now optimizer.lr."),
        ("finetune_cls", "solver:\n  min_scale: 1\n", "it is now dataset.min_scale."),
        ("finetune_cls", "dataset:\n  held_out: 0.1\n", "it is now dataset.val_fraction."),
    ],
)
def test_a_recipe_of_before_is_told_today_s_names(
    tool, text, message, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text(text)
    fails(tool, "--config", "x.yaml", capsys=capsys, said=message)


def test_what_is_missing_is_named_as_it_is_given(capsys):
    """An option with its dashes; a word in its place without, which `--runs` would not be."""
    fails("report", capsys=capsys, said="are required: runs")
    fails("score_captions", capsys=capsys, said="are required: --references, --results")


def test_three_words_for_a_mean_are_told_the_form(capsys):
    words = ["--mean", *["0.5"] * 3, "--std", *["0.5"] * 3]
    said = "arguments: 0.5 0.5 0.5 0.5. The form is --mean R,G,B --std R,G,B, without spaces."
    fails("inspect_backbone", "x", *words, capsys=capsys, said=said)


@pytest.mark.parametrize("tool", ["report", "finetune_det"])
def test_places_that_are_none(tool, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("dangling").symlink_to("nowhere")
    Path("loop").symlink_to("loop")
    words = ["."] if tool == "report" else ["--backbone", "x"]
    for place, said in (
        ("", "--out is empty; it must name a file or a folder"),
        ("dangling", "--out dangling is a link to nowhere, which leads nowhere"),
        ("loop", "--out loop is a link to loop, which leads nowhere"),
    ):
        fails(tool, *words, f"--out={place}", capsys=capsys, said=said)
        fails(tool, *words, "--out", place, capsys=capsys, said=said)


def test_a_list_on_the_command_line_inherits_nothing_of_the_recipe_s(tmp_path):
    from pretrain.config import MethodConfig, PretrainConfig
    from tools.support.command import Parser, build_config

    recipe = tmp_path / "x.yaml"
    recipe.write_text("mixing: {others: [{method: mixup, alpha: 0.2, weight: 0.5}]}\n")
    parser = Parser()
    parser.add_configuration(PretrainConfig, "x.yaml")
    words = ["--config", str(recipe), "--mixing.others", "[{method: cutout}]"]
    config = build_config(PretrainConfig, parser, parser.parse(words))
    assert config.mixing.others == [MethodConfig(method="cutout")]


def test_epochs_on_the_command_line_replace_a_duration_of_the_recipe():
    from tools.support.command import load_config
    from transfer.detection.config import DetectionConfig

    path = ROOT / "configs" / "detection" / "voc0712_paper_c4.yaml"
    recipe = load_config(DetectionConfig, path)
    assert (recipe.duration, recipe.epochs) == ("120000 steps", None)
    assert recipe.optimizer.milestones == ("100000 steps",)
    assert recipe.steps(2068) == 120_000
    assert recipe.steps(2068, recipe.score_every) == 20_000


def test_mistakes_with_an_architecture(capsys, tmp_path, monkeypatch, worlds):
    monkeypatch.chdir(tmp_path)
    world = worlds["classification"]
    fails("pretrain", "--data", world, "--model.arch", "resnet5O", capsys=capsys, said="resnet50")
    fails(
        "pretrain", "--data", world, "--model.args", '{"no_such": 1}', capsys=capsys, said="no_such"
    )
    fails("pretrain", "--data", world, "--batch_size", "999", capsys=capsys, said="only 60")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("tool", "world", "none"),
    [
        ("finetune_det", "detection", "folder is no"),
        ("finetune_seg", "segmentation", "folder"),
        ("finetune_cap", "captions", "folder has no captions"),
    ],
)
def test_mistakes_with_a_backbone(
    tool, world, none, capsys, tmp_path, monkeypatch, backbone_file, worlds
):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"conv1.weight": torch.zeros(1)}}, "foreign.pth")
    Path("cut.pth").write_bytes(backbone_file.read_bytes()[:5000])
    Path("folder").mkdir()
    before = sorted(os.listdir())
    for words, said in (
        ([], "--backbone is missing"),
        (["--backbone", "none.pth"], "there is no file none.pth"),
        (["--backbone", "folder"], "has none of backbone.pth"),
        (["--backbone", "cut.pth"], "cut short"),
        (["--backbone", "foreign.pth"], "python tools/export.py --backbone foreign.pth"),
        (["--backbone", backbone_file, "--data", "folder"], none),
        (["--backbone", backbone_file, "--data", worlds[world], "--seed", "-3"], "seed is -3"),
    ):
        fails(tool, *words, capsys=capsys, said=said)
    assert sorted(os.listdir()) == before


def test_a_broken_picture_of_a_captions_tree(capsys, tmp_path, monkeypatch, backbone_file, worlds):
    import shutil

    monkeypatch.chdir(tmp_path)
    shutil.copytree(worlds["captions"], "tree")
    Path("tree/train2017/000000000003.jpg").write_bytes(b"no picture")
    fails(
        "finetune_cap",
        "--backbone",
        backbone_file,
        "--data",
        "tree",
        capsys=capsys,
        said="000000000003.jpg cannot be decoded",
    )
    # nothing half-written, and the features of the others are kept
    assert sorted(os.listdir()) == ["runs", "tree"]
    assert os.listdir("runs") == ["features"]


def test_dry_run_trains_nothing(capsys, tmp_path, monkeypatch, worlds, backbone_file):
    import importlib

    monkeypatch.chdir(tmp_path)
    for tool, words, said in (
        ("pretrain", [*demo("pretrain"), "--data", worlds["classification"]], "60 training"),
        (
            "finetune_det",
            [*demo("detection"), "--data", worlds["detection"], "--backbone", backbone_file],
            "10 training",
        ),
        (
            "finetune_cap",
            [*demo("captioning"), "--data", worlds["captions"], "--backbone", backbone_file],
            "60 captions",
        ),
        (
            "finetune_seg",
            [*demo("segmentation"), "--data", worlds["segmentation"], "--backbone", backbone_file],
            "12 training",
        ),
    ):
        importlib.import_module(f"tools.{tool}").main([*map(str, words), "--dry-run"])
        out = capsys.readouterr().out
        assert said in out
        assert "epochs:" in out
    assert list(tmp_path.iterdir()) == []


def test_from_images_to_a_table(tmp_path, worlds):
    """The three tools and the report, each its own process, chained as the README says."""
    small = ["--epochs", "1", "--loader.workers", "0", "--device", "cpu"]
    done = call(
        "pretrain",
        *demo("pretrain"),
        "--data",
        worlds["classification"],
        *small,
        "--batch_size",
        "20",
        "--dataset.image_size",
        "32",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "epoch 1/1" in done.stderr
    run = tmp_path / "runs" / "pretrain-demo"
    assert f"--backbone {run.relative_to(tmp_path)}/backbone.pth" in done.stdout
    backbone = run.relative_to(tmp_path) / "backbone.pth"

    done = call(
        "finetune_det",
        *demo("detection"),
        "--backbone",
        backbone,
        "--data",
        worlds["detection"],
        *small,
        "--batch_size",
        "4",
        "--dataset.short_side",
        "64",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "AP50" in done.stdout

    done = call(
        "finetune_cap",
        *demo("captioning"),
        "--backbone",
        run.relative_to(tmp_path),
        "--data",
        worlds["captions"],
        *small,
        "--batch_size",
        "10",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "BLEU-4" in done.stdout

    done = call("report", "runs", "--out", "table", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "| resnet10t, cutmix |" in done.stdout
    assert (tmp_path / "table" / "report.md").read_text() == done.stdout
    for task in ("pretrain", "detection", "captioning"):
        result = json.loads((tmp_path / "runs" / f"{task}-demo" / "result.json").read_text())
        assert result["backbone"]["method"] == "cutmix"

    # a finished run is not overwritten, and a second one gets its own folder
    again = call("pretrain", "--data", worlds["classification"], "--out", run, cwd=tmp_path)
    assert again.returncode == 2
    assert "finished run" in again.stderr


def test_under_torchrun(tmp_path, worlds):
    """One process: the launcher's environment changes nothing."""
    words = [*demo("pretrain"), "--dry-run", "--device", "cpu"]
    with open(tmp_path / "said", "w+") as said:
        streams = {"stdout": said, "stderr": said, "cwd": tmp_path}
        (rank,) = start_ranks(1, "pretrain", *words, "--data", worlds["classification"], **streams)
        assert rank.wait(timeout=300) == 0, text_of(said)
        assert "60 training" in text_of(said)


def weights(folder: Path) -> dict:
    return torch.load(folder / "detector.pth", weights_only=True)["state_dict"]


@pytest.mark.parametrize("how", ["auto", "folder"])
def test_ctrl_c_leaves_a_run_that_goes_on(how, tmp_path, worlds, backbone_file):
    """SIGINT to the whole process group, as a terminal sends it; loader workers stay quiet."""
    import signal
    import time

    words = [*demo("detection"), "--backbone", str(backbone_file), "--data",
             str(worlds["detection"]), "--epochs", "6",
             "--loader.workers", "1", "--batch_size", "4", "--device", "cpu",
             "--dataset.short_side", "64"]  # fmt: skip
    with open(tmp_path / "said", "w+") as stream:
        process = start("finetune_det", *words, cwd=tmp_path, stdout=stream, stderr=stream)
        run = tmp_path / "runs" / "detection-demo"
        deadline = time.monotonic() + 120
        while not (run / "checkpoints").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=60)
        said = text_of(stream)
    assert process.returncode == 130, said
    assert "To continue: python" in said
    assert "--resume runs/detection-demo" in said
    assert "Traceback" not in said
    assert not (run / "result.json").exists()
    again = ["--resume", "runs/detection-demo"] if how == "folder" else [*words, "--resume", "auto"]
    done = call("finetune_det", *again, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resuming" in done.stderr
    if how == "folder":
        assert call("finetune_det", *words, "--out", "whole", cwd=tmp_path).returncode == 0
        one, two = weights(run), weights(tmp_path / "whole")
        assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_captions_for_pictures_nobody_described(capsys, tmp_path, monkeypatch, worlds, backbone):
    import shutil

    from tools.caption import main
    from transfer.captioning.captioner import Captioner, build_decoder
    from transfer.captioning.config import DecodingConfig, ModelConfig
    from transfer.captioning.vocabulary import SPECIAL, Vocabulary

    monkeypatch.chdir(tmp_path)
    model = ModelConfig(embed_size=4, hidden_size=4)
    Path("run").mkdir()
    Captioner(
        backbone=backbone,
        model=model,
        decoding=DecodingConfig(beam=2, max_length=4),
        vocabulary=Vocabulary((*SPECIAL, "a", "dog")),
        weights=build_decoder(512, 6, model).state_dict(),
    ).save(Path("run/captioner.pth"))
    shutil.copytree(worlds["captions"] / "val2017", "mine")
    Path("empty").mkdir()
    for words, said in (
        (["--captioner", "empty", "--images", "mine"], "no captioner.pth"),
        (["--captioner", "run", "--images", "none"], "there is no folder none"),
        (["--captioner", "run", "--images", "empty"], "holds no image"),
        (["--captioner", "run", "--images", "run/captioner.pth"], "is a file; give the folder"),
        (["--captioner", "run", "--images", "mine", "--beam", "0"], "--beam is 0"),
        (["--captioner", "run"], "--images"),
    ):
        fails("caption", *words, capsys=capsys, said=said)
    assert sorted(os.listdir()) == ["empty", "mine", "run"]
    main(["--captioner", "run", "--images", "mine", "--workers", "0"])
    rows = json.loads(Path("mine-captions/captions.json").read_text())
    assert [row["image_id"] for row in rows] == [1_000_001 + place for place in range(6)]
    assert Path("mine-captions/captions.html").exists()
    Path("mine/z.jpg").write_bytes(b"no picture")
    again = ["--captioner", "run", "--images", "mine", "--out", "more", "--workers", "0"]
    fails("caption", *again, capsys=capsys, said="1 of 7 files cannot be read")
    assert not Path("more").exists()
    main([*again, "--skip-broken"])
    assert json.loads(Path("more/captions.json").read_text()) == rows
    Path("mine/z.jpg").unlink()
    for name in ("p0.jpg", "q\udcff.jpg"):  # no names of MS-COCO's, and one that is no text
        shutil.copy(next(Path("mine").glob("0*")), f"mine/{name}")
    main(["--captioner", "run", "--images", "mine", "--out", "names", "--workers", "0"])
    said = json.loads(Path("names/captions.json").read_text())
    assert [row["image_id"] for row in said] == sorted(os.listdir("mine"))
