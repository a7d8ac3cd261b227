"""Train a backbone with CutMix and its family.

python tools/pretrain.py                                  synthetic shapes, 3 minutes on a CPU
python tools/pretrain.py --data DIR                       image folders DIR/{train,val}/CLASS/*.jpg,
                                                          ImageNet, or CIFAR's pickles, by a
                                                          recipe that fits them
python tools/pretrain.py --config configs/pretrain/X.yaml --section.field value
torchrun --nproc_per_node 8 tools/pretrain.py ...         on 8 GPUs
"""

import os
import sys
from pathlib import Path
from typing import Any

# this script's own folder comes first on the path, where `import pretrain` would find this script
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.config import PretrainConfig
from pretrain.errors import UsageError
from pretrain.run import Result, Run
from tools.support.backbone_options import load
from tools.support.command import Parser, run_main, show_config
from tools.support.training import allow_time, parse, with_data
from transfer.task import PRETRAIN


def main(argv: list[str] | None = None) -> None:
    """Parse, train, and tell what to do next."""
    options = parse(PRETRAIN, __doc__, argv, _add_options)
    kills, stop_after, fabric = options.more.prove_resume, options.stop_after, options.fabric
    if kills is not None:
        if kills < 1:
            raise UsageError(f"--prove-resume is {kills}; it must be at least 1")
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UsageError("--prove-resume starts its runs itself: call it without torchrun.")

    from pretrain.engine import pretrain
    from pretrain.setup import build

    config: PretrainConfig = with_data(options.config, PRETRAIN, fabric)
    init = None if config.init is None else load(config.init)
    guide = None if config.mixing.guide is None else load(config.mixing.guide)
    if kills is not None:
        from tools.support.prove_resume import prove

        prove(config, options.more.device, kills=kills, stop_after=stop_after)
    elif options.dry_run:
        _dry_run(config, fabric, init, guide)
    else:
        allow_time(options, PRETRAIN, config, lambda: build(config, init, guide))
        result = pretrain(
            config, options.run, fabric, init=init, guide=guide, stop_after=stop_after
        )
        if fabric.is_global_zero:
            print(summarize(result, options.run))


def _add_options(parser: Parser) -> None:
    parser.add_argument(
        "--prove-resume",
        type=int,
        metavar="KILLS",
        help="Train the first steps of this recipe (--stop-after, 12 if not given) in a scratch "
        "folder, kill the process so many times at random moments, resume, and compare every bit.",
    )


def summarize(result: Result, run: Run) -> str:
    """The scores, where everything lies, and what to do next."""
    metrics = result.metrics
    return f"""
{result.backbone["name"]} on {result.data["name"]} ({result.data["train"]:,} images, \
{metrics["epochs"]} epochs, {result.seconds / 60:.1f} min)
  validation top-1     {metrics["top1"]:.2f} % (last epoch), \
{metrics["top1_best"]:.2f} % (best, epoch {metrics["best_epoch"]})
  backbone             {run.folder}/backbone.pth   fingerprint {result.backbone["fingerprint"]}
  a mixed batch        {run.folder}/pictures/mixed_batch.png
  curves               {run.folder}/pictures/curves.png

What is it worth? Carry it into a detector and a captioner:
  python tools/finetune_det.py --backbone {run.folder}/backbone.pth
  python tools/finetune_cap.py --backbone {run.folder}/backbone.pth"""


def _dry_run(config: PretrainConfig, fabric: Any, init: Any, guide: Any) -> None:
    """The resolved configuration, what it comes to, and the cost by ten measured steps."""
    from pretrain.engine import advise
    from pretrain.progress import log
    from pretrain.projection import project
    from pretrain.setup import build
    from tools.support.rehearsal import rehearse

    setup = build(config, init, guide)
    if fabric.is_global_zero:
        show_config(config)
        steps, data = setup.steps_per_epoch, setup.data
        print(
            f"# {config.model.arch}: {setup.num_parameters / 1e6:.2f} M parameters\n"
            f"# {data.name}: {len(data.train):,} training and {len(data.val):,} "
            f"validation images of {len(data.train.classes)} classes\n"
            f"# {steps:,} steps an epoch, {config.steps(steps):,} in all, on {fabric.device}"
            f"{f' x {fabric.world_size}' if fabric.world_size > 1 else ''}",
            flush=True,
        )
        for line in advise(setup, config, fabric):
            log(f"note: {line}")
    cost = project(rehearse("pretrain", setup, config, fabric), fabric)
    if fabric.is_global_zero:
        memory = "GPU memory" if fabric.device.type == "cuda" else "memory, loaders not counted"
        print(
            f"# measured over {cost.steps} steps: {cost.seconds_per_step:.3g} s a step, "
            f"{cost.samples_per_second:,.4g} images/s\n"
            f"# projected: {cost.duration} and {cost.memory_mib:,.0f} MiB of {memory}"
        )


if __name__ == "__main__":
    run_main(main)
