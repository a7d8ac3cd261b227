"""Train on several machines of a SLURM cluster: one job, on each node torchrun with a tool.

python tools/submit.py --nodes 4 --gpus-per-node 8 --time 720 --partition gpu
    -- tools/pretrain.py --config configs/pretrain/X.yaml --data DIR --out RUN
python tools/submit.py ... --dry-run -- ...        print the script for sbatch, submit nothing

--out, the data and this checkout must lie where all nodes see them. When its time is over, or it is
preempted, the run stops after a step and the job is queued again; it goes on from there. What the
processes say stands in RUN/slurm, one file a node. `--slurm KEY=VALUE ...` takes what else
submitit knows: cpus_per_task=64 slurm_account=vision slurm_constraint=a100.
"""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.errors import UsageError, check_ranges
from pretrain.progress import log
from pretrain.run import Run
from tools.support.command import PARSE_ONLY, Parser, run_main, value_of


def main(argv: list[str] | None = None) -> None:
    """Read the options, submit, and tell where to look."""
    words = list(sys.argv[1:] if argv is None else argv)
    cut = words.index("--") if "--" in words else len(words)
    own, tool = words[:cut], words[cut + 1 :]

    parser = Parser(__doc__)
    add = parser.add_argument
    add("--nodes", type=int, default=1, help="Machines.")
    add("--gpus-per-node", type=int, default=1, help="GPUs on each; 0 computes on CPUs.")
    processes = "Processes on each (default: one for each GPU)."
    add("--nproc-per-node", type=int, metavar="N", help=processes)
    add("--time", type=int, default=240, help="Minutes until the job is stopped and queued again.")
    add("--partition", type=str, help="Of the cluster (default: its own).")
    timeouts = "How often it may be queued again when its time is over."
    add("--max-num-timeout", type=int, default=10, help=timeouts)
    add("--slurm", nargs="+", default=[], metavar="KEY=VALUE", help="Parameters of submitit.")
    add("--dry-run", action="store_true", help="Print the script for sbatch; submit nothing.")
    options = parser.parse(own)
    check_ranges("--", options, nodes="[1, 65536]", gpus_per_node="[0, 64]", time=">= 1")
    check_ranges("--", options, nproc_per_node="[1, 1024]", max_num_timeout=">= 0")

    run, tool = _tool(tool)
    processes_per_node = options.nproc_per_node or max(1, options.gpus_per_node)
    if 0 < options.gpus_per_node < processes_per_node:
        raise UsageError(
            f"--nproc-per-node is {processes_per_node} with --gpus-per-node "
            f"{options.gpus_per_node}; a process needs a GPU of its own. Give fewer processes, or "
            "--gpus-per-node 0 to compute on CPUs."
        )

    from tools.support.slurm import TorchrunJob, batch_script, parameters_of, submit

    given = parameters_of(options.slurm)
    parameters = {
        "name": run.folder.name,
        "nodes": options.nodes,
        "gpus_per_node": options.gpus_per_node,
        "timeout_min": options.time,
        **({"slurm_partition": options.partition} if options.partition else {}),
    }
    if twice := sorted(given.keys() & parameters.keys()):
        raise UsageError(f"--slurm has {twice[0]}, which is an option of its own: see --help.")
    parameters |= given
    folder = (run.folder / "slurm").absolute()
    job = TorchrunJob(tool, processes_per_node, Path.cwd())
    if not {"cpus_per_task", "slurm_cpus_per_gpu", "slurm_exclusive"} & given.keys():
        log("note: most clusters give a task one CPU core; for loader processes --slurm "
            "cpus_per_task=N")  # fmt: skip
    if options.dry_run:
        print(batch_script(folder, parameters))
        hosts = [f"HOST{number}" for number in range(options.nodes)]
        print("# each task then runs, here the first:")
        print(f"# {shlex.join(job.command(0, hosts, 0))}")
        return
    number = submit(job, folder, parameters, options.max_num_timeout)
    print(
        f"job {number}: {options.nodes} node(s) x {processes_per_node} process(es)\n"
        f"  what it says   {folder}/{number}_0_log.out\n"
        f"  its state      squeue -j {number}\n"
        f"  to stop it     scancel {number}; the same command goes on from its last checkpoint"
    )


def _tool(words: Sequence[str]) -> tuple[Run, list[str]]:
    """The run that a command line of a training tool makes, and that line so that it goes on.

    Raises:
        UsageError: it is none that a job could run again and again.
    """
    form = "python tools/submit.py [OPTIONS] -- tools/pretrain.py [ITS OPTIONS] --out RUN"
    if not words or not words[0].endswith(".py"):
        raise UsageError(f"no tool to be run: {form}")
    if not Path(words[0]).is_file():
        raise UsageError(f"there is no file {words[0]}: {form}")
    resumed, out = value_of(words, "--resume"), value_of(words, "--out")
    out = out or (resumed if resumed != "auto" else None)
    if out is None:
        raise UsageError(f"{words[0]} has no --out, by which a job finds its run again: {form}")
    for flag in ("--dry-run", "--prove-resume", "--help", PARSE_ONLY):
        if flag in words:
            raise UsageError(f"{flag} trains nothing: call {words[0]} without tools/submit.py.")
    run = Run(Path(out))
    run.refuse_finished()
    if run.folder.exists() and not os.access(run.folder, os.W_OK):
        raise UsageError(f"{out} cannot be written. Give another --out.")
    return run, [*words, *([] if resumed else ["--resume", "auto"])]


if __name__ == "__main__":
    run_main(main)
