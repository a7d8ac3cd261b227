"""A task is one entry in the list: a toy one goes through grid and report."""

import json
import sys
from pathlib import Path

import pytest

from pretrain.errors import UsageError
from tests.conftest import ROOT
from transfer import task

PACKAGE = '''
"""A task without training: which share of the marks in a file are ones."""

from dataclasses import dataclass
from pathlib import Path

from pretrain.data_digest import DataFiles
from pretrain.run import Result, plain
from transfer.task import DemoData, Metric, Task


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    """One run."""

    name: str = "custom"
    backbone: str | None = None
    data: str | None = None
    strictness: str = "auto"
    """auto, low or high."""
    seed: int = 0


@dataclass(frozen=True)
class ToySetup:
    """The marks."""

    marks: str
    data_summary: dict
    files: DataFiles


def resolved(config):
    from dataclasses import replace

    return replace(config, strictness="low") if config.strictness == "auto" else config


def draw(root, *, ones, zeros):
    folder = root / f"toy-{ones}+{zeros}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "marks.txt").write_text("1" * ones + "0" * zeros)
    return folder


def build(backbone, config):
    file = Path(config.data) / "marks.txt"
    marks, files = file.read_text(), DataFiles((file.parent,), [], [file])
    summary = {"name": file.parent.name, "train": len(marks), **files.summary}
    return ToySetup(marks, summary, files)


def finetune(backbone, config, run, fabric, *, stop_after=None):
    setup = build(backbone, config)
    run.start(plain(config), backbone.fingerprint())
    share = setup.marks.count("1") / len(setup.marks)
    result = Result(
        task="toy", metric="share", metrics={"share": share}, backbone=backbone.describe(),
        data=setup.data_summary, seed=config.seed, config=plain(config), seconds=0.1,
        environment={},
    )
    run.finish(result)
    return result


TOY = Task(
    name="toy",
    tool=str(Path(__file__).with_name("finetune_toy.py")),
    config="toy:ToyConfig",
    build="toy:build",
    finetune="toy:finetune",
    resolve="toy:resolved",
    metrics=(Metric("share", "ones %", 100),),
    curve=None,
    demo=DemoData(draw="toy:draw", tool={"ones": 3, "zeros": 5}, grids={}),
)
'''

TOOL = f"""
import json
import sys
from pathlib import Path

sys.path[:1] = [{str(ROOT)!r}, str(Path(__file__).parent)]
import toy
from pretrain.run import Run
from tools.support.command import Parser, build_config, run_main
from transfer import task

task.TASKS += (toy.TOY,)


class Description:
    # of a backbone; to read the weights would need torch, and seconds

    def __init__(self, file):
        self.content = json.loads(Path(file).with_suffix(".json").read_text())

    def describe(self):
        return self.content

    def fingerprint(self):
        return self.content["fingerprint"]


def main():
    parser = Parser("")
    parser.add_configuration(toy.ToyConfig, "toy.yaml")
    parser.add_argument("--out")
    parser.add_argument("--resume")
    options = parser.parse()
    config = build_config(toy.ToyConfig, parser, options)
    finetune = task.load(task.by_name("toy").finetune)
    finetune(Description(config.backbone), config, Run(Path(options.out)), None)


run_main(main)
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Its package, its tool, its recipe; and its entry in the list."""
    (tmp_path / "toy.py").write_text(PACKAGE)
    (tmp_path / "finetune_toy.py").write_text(TOOL)
    (tmp_path / "toy.yaml").write_text("name: small\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import toy

    monkeypatch.setattr(task, "TASKS", (*task.TASKS, toy.TOY))
    yield toy.TOY
    sys.modules.pop("toy")


def test_a_task_of_one_entry_goes_through_grid_and_report(toy, backbone_file, backbone, capsys):
    from tools.transfer import main
    from transfer.report import read_runs, tabulate, to_markdown

    Path("b.pth").write_bytes(backbone_file.read_bytes())
    Path("b.json").write_text(json.dumps(backbone.describe()))
    words = ["--backbones", "b.pth", "--tasks", "toy", "--config", "toy=toy.yaml",
             "--out", "out"]  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        main(words)
    error = capsys.readouterr().err
    assert ended.value.code == 0, error
    assert "# drew the synthetic shapes runs/synthetic_shapes/toy-3+5" in error
    assert ": ones % 37.5 (" in error
    (job,) = json.loads(Path("out/grid.json").read_text())["jobs"]
    assert (job["task"], job["state"], job["seed"]) == ("toy", "done", 3)
    result = json.loads((Path("out") / job["folder"] / "result.json").read_text())
    assert result["config"]["strictness"] == "low"  # as resolved when the grid was planned
    assert result["backbone"]["fingerprint"] == backbone.fingerprint()

    with pytest.raises(UsageError, match="--random_init: toy has no such option"):
        main([*words, "--random_init"])

    runs = read_runs(Path("out"))
    assert (len(runs.runs), runs.unfinished, runs.complaints) == (1, (), ())
    text = to_markdown(tabulate(runs), runs)
    assert "| backbone | ones % [1] |" in text
    assert "| resnet10t, unknown | 37.5 |" in text
    assert "[1] toy: recipe small, data toy-3+5 (8 train)" in text


def test_a_task_is_found_by_its_name():
    assert task.by_name("pretrain") is task.PRETRAIN
    assert [task.by_name(name) for name in task.names()] == list(task.TASKS)
    with pytest.raises(UsageError, match="there is no task 'toy'; there are pretrain, "):
        task.by_name("toy")


def test_what_the_tasks_name_exists():
    for one in (task.PRETRAIN, *task.TASKS):
        references = (one.config, one.build, one.finetune, one.resolve, one.demo.draw)
        assert all(callable(task.load(reference)) for reference in references if reference)
        assert (ROOT / "tools" / one.tool).is_file()
        assert one.demo.grids.keys() == task.GRIDS.keys()
        for part in one.demo.grids.values():
            assert (ROOT / "configs" / one.name / f"{part.recipe}.yaml").is_file()
        assert (ROOT / "configs" / one.name / "demo.yaml").is_file()
