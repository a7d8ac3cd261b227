"""The grid's processes: a stub tool in the place of the real ones, and one real job."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from argparse import Namespace
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from pretrain.backbone import Backbone, Provenance
from pretrain.data_digest import DataFiles
from pretrain.errors import UsageError
from pretrain.files import lock
from pretrain.run import Run, other_run
from tests.conftest import ROOT
from tools.support import grid_run
from tools.support.grid_run import launch_here
from tools.support.job_server import JobServer
from transfer.grid import Job, JobStatus, command, job_status, seconds_left, write_grid
from transfer.task import GRIDS

STUB = f"""
import argparse, json, os, sys, time
from pathlib import Path
sys.path[0] = {str(ROOT)!r}
from pretrain.run import Result, Run
parser = argparse.ArgumentParser()
for flag in ("--config", "--out", "--resume"):
    parser.add_argument(flag)
options = parser.parse_args()
assert options.resume == "auto"
config = json.loads(options.config)
run = Run(Path(options.out))
run.refuse_finished()
run.start(config, "f00d")
threads = os.environ["OMP_NUM_THREADS"]
try:
    print(f"started in {{os.environ.get('CUDA_VISIBLE_DEVICES')}} {{threads}}", flush=True)
    if config.get("fails"):
        sys.exit("error: it cannot be\\n")
    while "waits_for" in config and not os.path.exists(config["waits_for"]):
        time.sleep(0.02)
    for epoch in range(len(run.read_log()), config["epochs"]):
        time.sleep(config["sleep"])
        run.log({{"epoch": epoch + 1}})
        if config.get("dies"):
            os.kill(os.getpid(), 9)
except KeyboardInterrupt:
    print("stopping after this step")
    sys.exit(130)
run.finish(Result(task="detection", metric="AP50", metrics={{"AP50": 40.0}},
    backbone={{"fingerprint": "f00d", **dict.fromkeys(("name", "arch", "method"), "x"),
               **dict.fromkeys(("recipe", "dataset", "epochs", "seed"))}},
    data={{"name": "x"}}, seed=config["seed"], config=config, seconds=1.0, environment={{}}))
"""


@pytest.fixture
def tools(tmp_path) -> Path:
    folder = tmp_path / "stubs"
    folder.mkdir()
    (folder / "finetune_det.py").write_text(STUB)
    return folder


def job(seed: int, **more) -> Job:
    config = {"seed": seed, "epochs": 1, "sleep": 0.0, **more}
    return Job(
        task="detection",
        name="b",
        seed=seed,
        backbone={"fingerprint": "f00d"},
        config=config,
        options=("--config", json.dumps(config)),
    )


def scan(jobs, out):
    return [job_status(job, out) for job in jobs]


def run_all(jobs, out, tools, slots=1, devices=(), show=lambda _: None):
    statuses = scan(jobs, out)
    launch = partial(launch_here, slots=slots, devices=devices)
    return statuses, grid_run.run_all(statuses, out, tools, launch, slots, show)


def kept(out: Path) -> list[str]:
    return [row["state"] for row in json.loads((out / "grid.json").read_text())["jobs"]]


def states_of(out: Path) -> dict[str, str]:
    jobs = json.loads((out / "grid.json").read_text())["jobs"]
    return {row["folder"]: row["state"] for row in jobs}


def test_a_failed_job_is_shown_and_the_rest_goes_on(tools, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    out = tmp_path / "out"
    jobs = [job(0), job(1, fails=True), job(2, dies=True), job(3)]
    statuses, number = run_all(jobs, out, tools, slots=2, devices=("4", "7"))
    assert number is None
    assert [s.state for s in statuses] == ["done", "failed", "failed", "done"]
    assert statuses[1].why == f"it cannot be (log: {out}/logs/detection/b-seed1.log)"
    assert statuses[2].why.startswith("killed by signal 9; it said last: started in")
    assert kept(out) == ["done", "failed", "failed", "done"]
    logs = [(out / one.log).read_text() for one in jobs]
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    assert {log.splitlines()[0] for log in logs} == {
        f"started in 4 {threads}", f"started in 7 {threads}"}  # fmt: skip

    # again: what is done is not run again, what failed is, and its old words are not its new ones
    before = (out / jobs[0].folder / "result.json").stat().st_mtime_ns
    statuses, _ = run_all(jobs, out, tools)
    assert (out / jobs[0].folder / "result.json").stat().st_mtime_ns == before
    assert [s.state for s in statuses] == ["done", "failed", "done", "done"]  # 2 had done its epoch
    (tools / "finetune_det.py").write_text("raise SystemExit('it broke')")
    statuses, _ = run_all(jobs[:2], out, tools)
    assert statuses[1].why.startswith("it broke (log: ")


def test_a_call_for_a_part_of_the_grid_does_not_lose_the_rest(tools, tmp_path):
    out = tmp_path / "out"
    run_all([job(0, fails=True), job(1)], out, tools)
    run_all([job(2)], out, tools)
    assert kept(out) == ["failed", "done", "done"]
    (out / "grid.json").write_text("{torn")
    write_grid(scan([job(2)], out), out)
    assert kept(out) == ["done"]


def test_no_more_at_once_than_asked(tools, tmp_path):
    most = []

    def show(statuses):
        most.append(sum(s.state == "running" for s in statuses))

    run_all([job(seed, sleep=0.2) for seed in range(4)], tmp_path / "out", tools, 2, show=show)
    assert max(most) == 2


def test_the_result_of_another_configuration_is_left_alone(tools, tmp_path):
    out = tmp_path / "out"
    run_all([job(0)], out, tools)
    other = job(0, extra=1)
    statuses, _ = run_all([other, job(1)], out, tools)
    assert [s.state for s in statuses] == ["failed", "done"]
    assert "another configuration is in this folder (extra: None there, 1 here)" in statuses[0].why
    held = json.loads((out / other.folder / "result.json").read_text())
    assert not other_run(held["config"], job(0).config)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_children_and_the_same_call_goes_on(number, tools, tmp_path, capsys):
    out, jobs = tmp_path / "out", [job(0, epochs=200, sleep=0.05), job(1)]
    sent: list[int] = []

    def show(statuses):
        if len(Run(out / jobs[0].folder).read_log()) >= 2 and not sent:
            sent.append(1)
            os.kill(os.getpid(), number)

    statuses, received = run_all(jobs, out, tools, show=show)
    assert received == number
    assert capsys.readouterr().err.count("stopping: the jobs that run end after their step") == 1
    assert [s.state for s in statuses] == ["waiting", "waiting"]
    assert kept(out) == ["missing", "missing"]
    assert "stopping after this step" in (out / jobs[0].log).read_text()
    epochs = len(Run(out / jobs[0].folder).read_log())
    quick = json.loads(jobs[0].options[1])
    assert 2 <= epochs < quick["epochs"]
    assert scan(jobs, out)[0].state == "waiting"


def test_ctrl_c_ends_the_program_with_130(tools, tmp_path, capsys):
    out, one = tmp_path / "out", job(0, epochs=200, sleep=0.05)

    def press():
        while not Run(out / one.folder).read_log():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(SystemExit) as ended:
        grid_run.run_grid([one], Namespace(out=out, jobs=None, devices=[], slurm=None), tools)
    assert ended.value.code == 130
    error = capsys.readouterr().err
    assert error.count("stopping: the jobs that run end after their step") == 1
    assert error.index("stopping: ") < error.index("stopped; the same command goes on")


def test_without_groups_of_processes_a_job_is_ended(tools, tmp_path, monkeypatch):
    """Windows, which has no SIGINT for one process either."""
    monkeypatch.delattr(os, "killpg")
    log, signals = tmp_path / "log", [signal.SIGINT]
    words = [sys.executable, "-c", "import time; time.sleep(60)"]
    assert launch_here(words, log, 0, signals) == -signal.SIGTERM


SCRIPT = """
import atexit, os, sys, time
atexit.register(print, "left in order")
print(sys.argv[1:], os.environ["OMP_NUM_THREADS"], os.getsid(0) == os.getpid(), sys.stdin.read())
sys.path[0] == os.path.dirname(__file__) or print("another path")
sys.argv[1] == "sleeps" and time.sleep(60)
sys.exit(int(sys.argv[1]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere jobs are not forked")
def test_a_forked_job_is_what_python_would_run(tmp_path):
    """Arguments, exit code, output, session, end; a signal reaches it; it outlives the server."""
    tool, log = tmp_path / "tool.py", tmp_path / "log"
    tool.write_text(SCRIPT)
    server = JobServer(modules=["this"])  # which prints
    launch = partial(launch_here, server=server)
    words = [sys.executable, str(tool)]
    assert launch([*words, "0", "a b"], log, 0, []) == 0
    assert log.read_text() == "['0', 'a b'] 2 True \nleft in order\n".replace(
        " 2 ", f" {os.environ.get('OMP_NUM_THREADS', len(os.sched_getaffinity(0)))} "
    )
    assert launch([*words, "7"], log, 0, []) == 7
    assert launch([sys.executable, str(tmp_path / "none.py")], log, 0, []) == 1
    assert "none.py" in log.read_text()
    assert log.read_text().count("left in order") == 2
    signals: list[int] = []
    threading.Timer(0.5, lambda: signals.extend([signal.SIGINT, signal.SIGINT])).start()
    assert launch([*words, "sleeps"], log, 0, signals) < 0
    last = server.start([str(tool), "sleeps"], log, "1")
    assert os.getsid(last.pid) == last.pid  # before anybody may end it
    server.close()
    os.kill(last.pid, 0)
    os.kill(last.pid, signal.SIGKILL)
    server = JobServer(modules=["no_such_module"])
    with pytest.raises(OSError, match="the process that starts the jobs has ended"):
        server.start([str(tool), "0"], log, "1")
    server.close()


def test_where_the_grid_itself_fails_its_jobs_are_stopped(tools, tmp_path, monkeypatch):
    long = {"epochs": 2000, "sleep": 0.05}
    out, jobs = tmp_path / "out", [job(0, fails=True), job(1, **long), job(2, **long)]

    def full(statuses, _, about):
        """The first job has failed; the next one may still be importing, deaf to a signal."""
        log = out / jobs[1].log
        while not log.exists() or "started" not in log.read_text():
            time.sleep(0.01)
        raise UsageError("no room")

    monkeypatch.setattr(grid_run.grid, "write_grid", full)
    with pytest.raises(UsageError, match="no room"):
        run_all(jobs, out, tools, slots=2)
    assert "stopping after this step" in (out / jobs[1].log).read_text()
    assert [one.state for one in scan(jobs, out)] == ["waiting"] * 3


def test_what_stands_in_the_way_of_one_job_is_its_line(tools, tmp_path, monkeypatch):
    """A lock that cannot be opened, a log that cannot be written; a full disk is said."""
    out, jobs = tmp_path / "out", [job(seed, fails=seed == 2) for seed in range(3)]
    (out / jobs[0].folder).mkdir(parents=True)
    os.mkfifo(Run(out / jobs[0].folder).lock_file)
    (out / jobs[1].log).mkdir(parents=True)
    monkeypatch.setattr(grid_run.shutil, "disk_usage", lambda _: Namespace(free=7))
    statuses, _ = run_all(jobs, out, tools)
    assert [status.state for status in statuses] == ["failed"] * 3
    assert "b-seed0/.lock cannot be opened" in statuses[0].why
    assert f"Is a directory: '{out / jobs[1].log}'" in statuses[1].why
    assert statuses[2].why.startswith(f"it cannot be; 7 bytes are left on the disk of {out} (log:")


def test_a_second_signal_does_not_wait(tools, tmp_path):
    (tools / "finetune_det.py").write_text(
        "import signal, time\nsignal.signal(2, lambda *_: print('deaf', flush=True))\n"
        "print('up', flush=True)\ntime.sleep(60)\ntime.sleep(60)\n"
    )
    out, jobs, started = tmp_path / "out", [job(0)], time.monotonic()

    def show(_):
        log = out / jobs[0].log
        words = log.read_text() if log.exists() else ""
        if ("up" in words and not sent) or ("deaf" in words and len(sent) == 1):
            sent.append(1)
            os.kill(os.getpid(), signal.SIGINT)

    sent: list[int] = []
    assert run_all(jobs, out, tools, show=show)[1] == signal.SIGINT
    assert time.monotonic() - started < 30


def test_a_child_of_a_killed_grid_is_waited_for(tools, tmp_path):
    """SIGKILL leaves the child at work: the next call waits for it and takes its result."""
    out, one = tmp_path / "out", job(0, epochs=4, waits_for=str(tmp_path / "seen"))
    words = command(one, out, tools)
    with open(os.devnull, "w") as nothing:
        orphan = subprocess.Popen(
            words, stdout=nothing, stderr=nothing, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    held = out / one.folder / ".lock"
    while orphan.poll() is None and not (held.exists() and held.read_text()):
        time.sleep(0.02)
    seen = set()

    def show(found):
        seen.add((found[0].state, found[0].why))
        if found[0].state == "elsewhere":
            (tmp_path / "seen").touch()

    statuses, _ = run_all([one], out, tools, show=show)
    orphan.wait()
    assert statuses[0].state == "done"
    assert "running" not in {state for state, _ in seen}
    (who,) = {why for state, why in seen if state == "elsewhere"}
    assert who.startswith(f"process {orphan.pid} on ")
    assert len(Run(out / one.folder).read_log()) == 4


def test_one_grid_in_a_folder(tmp_path):
    block = (f"import sys; sys.path[0] = {str(ROOT)!r}\nfrom pathlib import Path\n"
             "from tools.support.grid_run import run_grid\n"
             "from argparse import Namespace\n"
             f"options = Namespace(out=Path({str(tmp_path)!r}), jobs=1, devices=[], slurm=None)\n"
             "run_grid([], options, Path())")  # fmt: skip
    with lock(tmp_path / ".grid.lock", "it is busy"):
        done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"another grid is at work in {tmp_path} (process {os.getpid()} on " in done.stderr
    assert subprocess.run([sys.executable, "-c", block]).returncode == 0


def test_what_a_terminal_shows(tmp_path):
    from rich.console import Console

    from tools.support.grid_display import footer, view

    under_way = JobStatus(job(2, epochs=7), "running", started=time.monotonic())
    run = Run(tmp_path / under_way.job.folder)
    run.start(under_way.job.config)
    run.log({"epoch": 3})
    done = Namespace(seconds=5.0)
    statuses = [JobStatus(job(0), "done", result=done, seconds=60.0), under_way, JobStatus(job(3)),
                JobStatus(job(1), "failed", "it cannot be")]  # fmt: skip
    assert 119 < seconds_left(statuses, 1, time.monotonic()) <= 120
    console = Console(force_terminal=True, color_system=None)
    with console.capture() as text:
        console.print(view(statuses, tmp_path, 1))
    lines = [line.strip() for line in text.get().splitlines()]
    assert lines[:2] == ["detection b seed 2        epoch 3 of 7", "next: detection b seed 3"]
    assert lines[2].startswith("1 of 4 done, 1 failed; about 2 min left, until ")
    assert len(lines) == 3
    assert footer(statuses, 1).splitlines()[1] == "failed: detection b seed 1: it cannot be"


def test_the_time_left_goes_by_every_job_that_is_done(tools, tmp_path):
    """Also by those of earlier calls: 1 s each, as their results say; one of this call has 4 s."""
    out = tmp_path / "out"
    run_all([job(0), job(1)], out, tools)
    before = scan([job(0), job(1)], out)
    assert [state.seconds for state in before] == [None, None]
    now = JobStatus(job(2), "done", result=before[0].result, seconds=4.0)
    assert seconds_left([*before, now, JobStatus(job(3))], 1, time.monotonic()) == (1 + 1 + 4) / 3
    assert seconds_left([*before, JobStatus(job(3))], 1, time.monotonic()) == 1


def test_a_line_for_each_begin_and_end(tools, tmp_path, capsys):
    for _ in range(2):
        run_all([job(0), job(1, fails=True)], tmp_path / "out", tools)
    lines = capsys.readouterr().err.splitlines()
    assert [re.sub(r"\d+ s", "0 s", line) for line in lines if "seed 0" in line] == [
        "[1/2] detection b seed 0: running", "[1/2] detection b seed 0: AP50 40.0 (0 s)",
        "[1/2] detection b seed 0: AP50 40.0 (done before)"]  # fmt: skip
    assert sum("[2/2] detection b seed 1: failed: it cannot be (log: " in line
               for line in lines) == 2  # fmt: skip


def test_a_printed_line_is_a_run_of_its_own(tools, tmp_path):
    from transfer.grid import shell_line

    out = tmp_path / "an out"
    line = shell_line(job(0), out, tools)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for _ in range(2):  # the second one finds the result
        assert subprocess.run(["sh", "-c", line], env=environment, cwd="/").returncode == 0
    assert scan([job(0)], out)[0].state == "done"


def test_through_submitit(tools, tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    from tools.support.grid_slurm import slurm_launcher

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    out = tmp_path / "out"
    out.mkdir()
    jobs = [job(0), job(1, fails=True)]
    statuses = scan(jobs, out)
    launch = slurm_launcher(["cluster=local", "timeout_min=2"], out / "logs")
    assert grid_run.run_all(statuses, out, tools, launch, slots=2) is None
    assert [s.state for s in statuses] == ["done", "failed"]
    assert statuses[1].why.startswith("it cannot be (log: ")
    for words, message in ((["timeout_min"], "KEY=VALUE"), (["cluster=moon"], "moon"),
                        (["cluster=local", "no_such=1"], "no_such")):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            slurm_launcher(words, out)


def test_each_network_has_random_weights_of_its_own(monkeypatch, backbone):
    """Two of one architecture, and a third as the first but fed otherwise."""
    from tools.support import grid_plan

    spec = backbone.spec
    specs = spec, replace(spec, model_args={"stem_width": 8}), replace(spec, mean=(0.1, 0.2, 0.3))
    given = {
        str(number): replace(backbone, spec=one, weights={})  # nothing is built
        for number, one in enumerate(specs)
    }
    monkeypatch.setattr(grid_plan, "load", given.__getitem__)
    random = [one for one in grid_plan._entries([*given], [3], True) if one.is_random]
    assert [one.backbone.spec for one in random] == [*specs[:2]]
    names = [one.label.removeprefix(f"{spec.arch}-random-") for one in random]
    assert all(re.fullmatch(r"[0-9a-f]{8}", one) for one in names)
    assert len({*names}) == 2


def test_without_submitit(tmp_path, monkeypatch):
    from tools.support.grid_slurm import slurm_launcher

    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UsageError, match="pip install"):
        slurm_launcher([], tmp_path)
    options = Namespace(out=tmp_path / "out", jobs=None, devices=[], slurm=[])
    with pytest.raises(UsageError, match="pip install"):
        grid_run.run_grid([], options, tmp_path)
    assert not options.out.exists()


TINY = """\
name: tiny
dataset: {image_size: 48, min_count: 1}
model: {embed_size: 8, hidden_size: 8}
decoding: {beam: 1, max_length: 6}
epochs: 1
batch_size: 20
loader: {workers: 0}
meteor: "off"
"""


def called(*words: object, capsys) -> tuple[int, str, str]:
    """Exit code, standard output and error of tools/transfer.py in this process."""
    from tools.support.command import run_main
    from tools.transfer import main

    code = 0
    try:
        run_main(lambda: main([str(word) for word in words]))
    except SystemExit as ended:
        code = int(ended.code or 0)
    return code, *capsys.readouterr()


def test_a_real_job(tmp_path, monkeypatch, capsys, worlds, backbone_file, backbone):
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY)
    grid = ["--backbones", backbone_file, "--tasks", "captioning", "--out", "out",
            "--config", "captioning=tiny.yaml", "--data",
            f"captioning={worlds['captions']}"]  # fmt: skip
    code, out, error = called(*grid, "--print", capsys=capsys)
    assert code == 0, error
    assert not Path("out").exists()
    (line,) = out.splitlines()
    assert line.startswith(f"cd {tmp_path} && {{ test -e out/captioning/")
    assert "--seed 3 " in line  # the seed of its pretraining

    code, out, error = called(*grid, capsys=capsys)
    assert code == 0, error
    (row,) = json.loads(Path("out/grid.json").read_text())["jobs"]
    assert row["backbone"] == json.loads(json.dumps(backbone.describe()))
    assert (row["task"], row["seed"], row["state"], row["why"]) == ("captioning", 3, "done", None)
    result = json.loads((Path("out") / row["folder"] / "result.json").read_text())
    assert result["backbone"]["fingerprint"] == backbone.fingerprint()
    assert result["config"]["seed"] == 3

    spec = replace(backbone.spec, mean=(0.5, 0.5, 0.5))
    network = spec.create(spec.num_classes, 9)
    Backbone.of(network, spec, backbone.provenance).save(Path("other.pth"))
    read, real = [], DataFiles.digest.func
    two = ["--print", "--backbones", backbone_file, "other.pth"]
    with monkeypatch.context() as patch:
        patch.setattr(DataFiles, "digest", property(lambda self: read.append(self) or real(self)))
        assert called(*grid, *two, capsys=capsys)[0] == 0
    assert len(set(map(id, read))) == 1  # for both networks
    code, out, error = called(*grid, capsys=capsys)
    assert code == 0, error
    assert " (done before)" in error
    code, out, error = called(*grid, "--print", capsys=capsys)
    assert (code, out) == (0, "")
    assert "# 1 of 1 jobs are done" in error

    # beside it the same network with random weights, of the same seed
    with_set = ["--set", "captioning.model.embed_size=9", "captioning.batch_size=10", "--print"]
    code, out, error = called(*grid, *with_set, capsys=capsys)
    assert code == 2, error
    assert "model.embed_size: 8 there, 9 here" in error
    assert "batch_size: 20 there, 10 here" in error
    code, out, error = called(*grid, "--random_init", capsys=capsys)
    assert code == 0, error
    before, random = json.loads(Path("out/grid.json").read_text())["jobs"]
    assert (before, random["state"], random["seed"]) == (row, "done", 3)
    assert random["folder"] == f"captioning/{backbone.spec.arch}-random-seed3"
    name = f"{backbone.spec.arch}, from scratch"
    facts = json.loads((Path("out") / random["folder"] / "result.json").read_text())["backbone"]
    assert random["backbone"] | {"fingerprint": ""} == facts | {"fingerprint": ""}
    assert (facts["name"], facts["seed"]) == (name, 3)
    assert facts["fingerprint"] != backbone.fingerprint() == random["backbone"]["fingerprint"]
    assert called(*grid, "--random_init", "--print", capsys=capsys)[:2] == (0, "")

    Path("tiny.yaml").write_text(TINY.replace("epochs: 1", "epochs: 2"))
    code, out, error = called(*grid, "--print", capsys=capsys)
    assert (code, out) == (2, "")
    assert "error: captioning backbone0 seed 3: another configuration is in" in error
    code, out, error = called(*grid, capsys=capsys)
    assert code == 1
    assert "another configuration is in this folder (epochs: 1 there, 2 here)" in error
    row, before = json.loads(Path("out/grid.json").read_text())["jobs"]
    assert (row["state"], before) == ("failed", random)
    assert json.loads((Path("out") / row["folder"] / "result.json").read_text()) == result


def test_mistakes_are_reported_before_the_first_job(
    tmp_path, monkeypatch, capsys, worlds, backbone, backbone_file
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delattr(DataFiles, "digest")  # nor is the data read before
    copy, unknown = Path("copy.pth"), Path("unknown.pth")
    copy.write_bytes(backbone_file.read_bytes())
    replace(backbone, provenance=Provenance()).save(unknown)
    Path("bad.yaml").write_text("epocs: 3\n")
    Path("big.yaml").write_text(TINY.replace("batch_size: 20", "batch_size: 9999"))
    before = sorted(os.listdir())
    world = ["--data", f"captioning={worlds['captions']}"]
    one = ["--backbones", backbone_file, "--tasks", "captioning"]
    for words, message in (
        ([*one, *world, "--jobs", "0"], "--jobs is 0; it must lie in [1, 1024]"),
        ([*one, *world, "--jobs", "999999"], "--jobs is 999999; it must lie in"),
        ([*one, *world, "--seeds", "1", "1"], "--seeds is 1 1; each may stand once"),
        ([*one, *world, "--seeds", "-1"], "--seeds is -1; it must lie in [0, 4294967295]"),
        ([*one, *world, "--config", "bad.yaml"], "it must be TASK=PATH"),
        ([*one, "--data", "detection=x"], "of captioning"),
        ([*one, *world, "--config", "captioning=none.yaml"], "there is no file none.yaml"),
        ([*one, *world, "--config", "captioning=bad.yaml"], "epocs"),
        ([*one, "--data", "captioning=nowhere"], "captioning: there is no folder nowhere"),
        (["--backbones", backbone_file, copy, "--tasks", "captioning", *world], "names one back"),
        (["--backbones", backbone_file, "none.pth", "--tasks", "captioning", *world], "none.pth"),
        (["--backbones", unknown, "--tasks", "captioning", *world], "unless you give --seeds"),
        (["--data", "captioning=x"], "--data needs --backbones"),
        ([*one, *world, "--out", copy], "is a file"),
        (["--random_init"], "--random_init needs --backbones"),
        ([*one, *world, "--set", "captioning.epochs"], "must be TASK.FIELD=VALUE, of captioning"),
        ([*one, *world, "--set", "detection.epochs=2"], "must be TASK.FIELD=VALUE, of captioning"),
        ([*one, *world, "--set", "captioning.seed=2"], "is the grid's own: give --seeds"),
        ([*one, *world, "--set", "captioning.epochs=2", "captioning.epochs=3"], "epochs twice"),
        ([*one, *world, "--set", "captioning.epocs=2"], "captioning: there is no"),
    ):
        code, _, error = called(*words, capsys=capsys)
        assert (code, error[:7]) == (2, "error: "), (words, error)
        assert message in error
    assert sorted(os.listdir()) == before


EMBEDDED_STUB = f"""
import json, os, shutil, sys
sys.path[0] = {str(ROOT)!r}
from pretrain.config import PretrainConfig
from pathlib import Path
from pretrain.run import Result, Run, plain
from tools.support.command import Parser, build_config
from transfer.detection.config import DetectionConfig
task = "pretrain" if "pretrain" in sys.argv[0] else "detection"
kind = PretrainConfig if task == "pretrain" else DetectionConfig
parser = Parser("")
parser.add_configuration(kind, "")
parser.add_argument("--out")
parser.add_argument("--resume")
options = parser.parse()
config, run = build_config(kind, parser, options), Run(Path(options.out))
print(config.name)
method = config.mixing.method if task == "pretrain" else "cutmix" if "cutmix" in config.backbone else "none"
if os.environ.get("FAILS") == f"{{task}} {{method}}":
    sys.exit("error: not now")
run.start(plain(config))
backbone = json.load(open(f"{{method}}.json"))
if task == "pretrain":
    shutil.copy(f"{{method}}.pth", run.folder / "backbone.pth")
names = {{"pretrain": ("classification1-32px-20+10-seed0", 20, {{}}),
         "detection": ("voc1-48px-8+4-seed0", 8, {{"test": 4}})}}[task]
run.finish(Result(task=task, metric="x", metrics={{"x": 50.0}},
    backbone=backbone, data={{"name": names[0], "train": names[1], **names[2]}},
    seed=config.seed, config=plain(config), seconds=1.0, environment={{}}))
"""  # noqa: E501


def test_the_embedded_grid_goes_from_nothing_to_a_report(tmp_path, monkeypatch, capsys, backbone):
    """Real planning; stubs for the training: a pretraining that fails, then all of it."""
    from pretrain.config import PretrainConfig
    from pretrain.run import plain
    from tools.support.command import load_config, run_main
    from tools.transfer import enough_seeds, main
    from transfer import task
    from transfer.report import read_runs, tabulate, to_markdown

    monkeypatch.chdir(tmp_path)
    small = {"pretrain": {"train": 20, "val": 10, "size": 32},
             "detection": {"train": 8, "val": 4, "size": 48}}  # fmt: skip

    def shrink(one):
        part = replace(one.demo.grids["easy"], data=small.get(one.name, {}))
        return replace(one, demo=replace(one.demo, grids={"hard": part}))

    monkeypatch.setattr("tools.support.job_server.TRAINERS", ())  # the stubs need none
    monkeypatch.setattr(task, "PRETRAIN", shrink(task.PRETRAIN))
    monkeypatch.setattr(task, "TASKS", tuple(map(shrink, task.TASKS)))
    stubs = Path("stubs")
    stubs.mkdir()
    for script in ("pretrain.py", "finetune_det.py"):
        (stubs / script).write_text(EMBEDDED_STUB)
    (stubs / "report.py").write_text(
        "import sys; from pathlib import Path; Path(sys.argv[3], 'report.html').write_text('x')"
    )
    recipe = load_config(PretrainConfig, ROOT / "configs/pretrain/grid.yaml")
    for number, method in enumerate(("none", "cutmix")):
        side = recipe.dataset.image_size
        made = replace(
            backbone,
            spec=replace(backbone.spec, input_size=(3, side, side)),
            weights={name: tensor + number for name, tensor in backbone.weights.items()},
            provenance=Provenance(
                seed=0,
                recipe=plain(replace(recipe, mixing=replace(recipe.mixing, method=method))),
                dataset="classification1-32px-20+10-seed0",
                epochs=9,
            ),
        )
        made.save(Path(f"{method}.pth"))
        Path(f"{method}.json").write_text(json.dumps(made.describe()))
    words = ["--tasks", "detection", "--seeds", "0", "--out", "out"]

    def call(*more: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            run_main(lambda: main([*words, *more], stubs))
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    main([*words, "--print"], stubs)
    said = capsys.readouterr()
    assert [line.split(" && ")[0] for line in said.out.splitlines()] == [f"cd {tmp_path}"] * 2
    assert [line for line in said.err.splitlines() if line.startswith("# drew")] == [
        "# drew the synthetic shapes out/synthetic_shapes/classification1-32px-20+10-seed0",
        "# drew the synthetic shapes out/synthetic_shapes/voc1-48px-8+4-seed0"]  # fmt: skip

    monkeypatch.setenv("FAILS", "pretrain cutmix")
    code, said = call()
    assert "drew" not in said
    assert code == 1, said
    assert "pretrain cutmix seed 0: failed: not now" in said
    assert states_of(Path("out")) == {
        "pretrain/none-seed0": "done", "pretrain/cutmix-seed0": "failed",
        "detection/none-seed0": "done", "detection/cutmix-seed0": "failed"}  # fmt: skip
    assert Path("out/report.html").exists()
    found = read_runs(Path("out"))
    assert found.complaints == ()
    text = to_markdown(tabulate(found), found)
    assert "| resnet10t, cutmix | failed | failed |" in text
    assert "seed0): not now (log: " in text
    assert "seed0): its pretraining failed" in text

    monkeypatch.setenv("FAILS", "detection cutmix")
    code, said = call()
    assert code == 1, said
    assert list(states_of(Path("out")).values()).count("failed") == 1
    assert "pretrain none seed 0: x 50.0 (done before)" in said

    monkeypatch.delenv("FAILS")
    code, said = call()
    assert code == 0, said
    assert set(states_of(Path("out")).values()) == {"done"}
    found = read_runs(Path("out"))
    assert (len(found.runs), found.unfinished, found.complaints) == (4, (), ())
    # what the grid had said of the pretrainings is what the backbones then say of themselves
    rows = json.loads(Path("out/grid.json").read_text())["jobs"]
    for row in rows:
        told = json.loads(Path(f"{row['backbone']['method']}.json").read_text())
        before = {} if row["task"] == "detection" else {"fingerprint": ""}
        stub = {"model_args": None}  # which has not the recipe's network
        assert row["backbone"] | stub == told | before | stub
    assert "Look at: out/report.html\nSo few replicates show that the chain works, not" in said
    assert "with --seeds 0 1 2 3 4 goes on to 5." in said
    assert enough_seeds([7]) == [0, 1, 2, 3, 7]  # what is trained is not forgotten
    assert sorted(os.listdir("out/synthetic_shapes")) == [
        "classification1-32px-20+10-seed0", "voc1-48px-8+4-seed0"]  # fmt: skip


def test_another_embedded_grid_is_not_mixed_into_one(tmp_path):
    """Its jobs have the same folders, and what it says of itself stands beside the table."""
    from tools.transfer import _options, main

    outs = [_options(words).out for words in ([], ["--shapes", "easy"], ["--quick"])]
    assert [str(out) for out in outs] == ["runs/transfer", "runs/easy", "runs/quick"]
    write_grid([], tmp_path, GRIDS["easy"])
    before = (tmp_path / "grid.json").read_bytes()
    with pytest.raises(UsageError, match=r"holds another grid \(Easy shapes: .*another folder"):
        main(["--out", str(tmp_path), "--print"])
    assert os.listdir(tmp_path) == ["grid.json"]
    assert (tmp_path / "grid.json").read_bytes() == before
