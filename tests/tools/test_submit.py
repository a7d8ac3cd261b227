"""Jobs of several nodes: the script for sbatch, what each task starts, what cannot be submitted."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pretrain.errors import UsageError
from pretrain.run import Run
from tests.conftest import ROOT
from tests.forked import until
from tools import submit
from tools.support.slurm import TorchrunJob

submitit = pytest.importorskip("submitit")
PRETRAIN = str(ROOT / "tools" / "pretrain.py")

# a tool that stops by SIGTERM after its "step", and goes on from there
TOOL = """
import json, os, signal, sys, time
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--out") + 1])
out.mkdir(exist_ok=True)
rank, seen = os.environ["RANK"], out / f"{os.environ['RANK']}.json"
before = json.loads(seen.read_text()) if seen.exists() else []
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
seen.write_text(json.dumps([*before, sys.argv[1:]]))
while not before:
    time.sleep(0.05)
"""


def test_a_script_for_sbatch(tmp_path, capsys):
    """By what sbatch itself takes: https://slurm.schedmd.com/sbatch.html."""
    submit.main(["--nodes", "4", "--gpus-per-node", "8", "--time", "720", "--partition", "gpu",
                 "--slurm", "cpus_per_task=64", "slurm_account=vision", "--dry-run", "--",
                 PRETRAIN, "--data", "a folder", "--out", str(tmp_path / "run")])  # fmt: skip
    said = capsys.readouterr()
    assert said.err == ""
    lines = said.out.splitlines()
    given = {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")}
    assert given >= {"--nodes=4", "--ntasks-per-node=1", "--gpus-per-node=8", "--time=720",
                     "--partition=gpu", "--cpus-per-task=64", "--account=vision",
                     "--signal=USR2@90", "--open-mode=append", "--job-name=run",
                     f"--output={tmp_path}/run/slurm/%j_0_log.out"}  # fmt: skip
    assert subprocess.run(["bash", "-n"], input=said.out, text=True).returncode == 0
    command = lines[-1].removeprefix("# ")
    assert "--nnodes 4 --node_rank 0 --nproc_per_node 8 --master_addr HOST0" in command
    assert shlex.split(command)[-6:] == ["--data", "a folder", "--out", str(tmp_path / "run"),
                                         "--resume", "auto"]  # fmt: skip
    assert not (tmp_path / "run").exists()


class Alone(TorchrunJob):
    """One process, by itself."""

    def command(self, node, hosts, job):
        return [sys.executable, *self.words]


@pytest.mark.parametrize("kind", [Alone, TorchrunJob])
def test_a_job_whose_time_is_over_goes_on(kind, tmp_path, monkeypatch, full):
    """Through submitit's local executor, which queues it again as a cluster does."""
    if kind is TorchrunJob and not full:
        pytest.skip("--full starts torchrun")
    monkeypatch.setenv("RANK", "0")
    tool, run = tmp_path / "tool.py", tmp_path / "run"
    tool.write_text(TOOL)
    words = [str(tool), "--out", str(run), "--resume", "auto"]
    executor = submitit.LocalExecutor(run / "slurm")
    executor.update_parameters(timeout_min=5, setup=[f"export PYTHONPATH={ROOT}"])
    job = executor.submit(kind(words, 2, tmp_path))
    seen = [run / f"{rank}.json" for rank in range(1 if kind is Alone else 2)]
    until(lambda: all(path.exists() and path.read_text() for path in seen))
    (task,) = children(job._process.pid, "submitit.core._submit")
    os.kill(task, signal.SIGUSR2)
    until(job.done)
    assert "Requeued job" in job.paths.stderr.read_text() + job.paths.stdout.read_text()
    assert [json.loads(path.read_text()) for path in seen] == [[words[1:]] * 2] * len(seen)


def children(parent: int, name: str) -> list[int]:
    """The processes below one whose command has a word."""
    found = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True)
    rows = [line.split(None, 2) for line in found.stdout.splitlines()[1:]]
    below = {parent}
    for pid, above, _ in rows * 3:
        if int(above) in below:
            below.add(int(pid))
    return [int(pid) for pid, _, args in rows if int(pid) in below and name in args]


def test_the_first_host_is_where_all_meet(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_NODELIST", "gpu[03-04],gpu7")
    hosts = submitit.slurm.slurm.SlurmJobEnvironment().hostnames
    for node in range(3):
        command = TorchrunJob(["tool.py"], 8, Path()).command(node, hosts, 123_456)
        assert command[3:] == ["--nnodes", "3", "--node_rank", str(node), "--nproc_per_node", "8",
                               "--master_addr", "gpu03", "--master_port", "23456",
                               "tool.py"]  # fmt: skip


@pytest.mark.parametrize(
    ("own", "tool", "message"),
    [
        ([], [], "no tool to be run: python tools/submit.py"),
        ([], ["pretrain.py", "--out", "x"], "there is no file pretrain.py"),
        ([], [PRETRAIN], "has no --out, by which a job finds its run again"),
        ([], [PRETRAIN, "--resume", "auto"], "has no --out"),
        ([], [PRETRAIN, "--out", "x", "--dry-run"], "--dry-run trains nothing"),
        ([], [PRETRAIN, "--out", "x", "--parse-only"], "--parse-only trains nothing"),
        ([], [PRETRAIN, "--out", "done"], "holds a finished run"),
        (["--nodes", "0"], [PRETRAIN, "--out", "x"], "--nodes is 0; it must lie in"),
        (["--nproc-per-node", "4"], [PRETRAIN, "--out", "x"], "a process needs a GPU of its own"),
        (["--slurm", "account"], [PRETRAIN, "--out", "x"], "it must be KEY=VALUE"),
        (["--slurm", "nodes=3"], [PRETRAIN, "--out", "x"], "nodes, which is an option of its own"),
        (["--slurm", "a=1", "--dry-run"], [PRETRAIN, "--out", "x"], "Unavailable parameter"),
        ([], [PRETRAIN, "--out", "x"], "srun"),
    ],
)  # fmt: skip
def test_what_cannot_be_submitted(own, tool, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))  # no SLURM
    (tmp_path / "done").mkdir()
    (Run(Path("done")).folder / "result.json").write_text("{}")
    with pytest.raises(UsageError, match=message):
        submit.main([*own, "--", *tool])
    assert not (tmp_path / "x").exists()
