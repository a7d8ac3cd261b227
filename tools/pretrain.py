"""Train a backbone with CutMix and its family.

python tools/pretrain.py                                  the shape world, 3 minutes on a CPU
python tools/pretrain.py --data DIR                       image folders DIR/{train,val}/CLASS/*.jpg,
                                                          ImageNet, or CIFAR's pickles
python tools/pretrain.py --config configs/pretrain/X.yaml --section.field value
torchrun --nproc_per_node 8 tools/pretrain.py ...         on 8 GPUs
"""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

# this script's own folder comes first on the path, where `import pretrain` would find this script
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.config import PretrainConfig
from pretrain.errors import UsageError
from tools.command import SHAPE_WORLD, add_stop_after, parse, run_main, show_config, stop_after

# the world of the demo recipe: 64 pixels, ten classes
WORLD = {"train": 5000, "val": 1000, "size": 64}


def main(argv: list[str] | None = None) -> None:
    """Parse, train, and say what to do next."""
    options = parse(
        PretrainConfig,
        task="pretrain",
        description=str(__doc__),
        default="configs/pretrain/demo.yaml",
        argv=argv,
        more=_more,
    )
    config, run, rest = options.config, options.run, options.rest
    last_step = stop_after(rest)
    if rest.prove_resume is not None and rest.prove_resume < 1:
        raise UsageError(f"--prove-resume is {rest.prove_resume}; it must be at least 1")

    if rest.prove_resume is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("--prove-resume starts its runs itself: call it without torchrun.")

    from pretrain import synthetic
    from pretrain.engine import pretrain
    from pretrain.training import make_fabric
    from transfer import hub

    fabric = make_fabric(options.device, config.precision, config.deterministic)
    if config.data is None:
        with fabric.rank_zero_first():
            config = replace(config, data=str(synthetic.classification(SHAPE_WORLD, **WORLD)))
    init = None if config.init is None else hub.resolve(config.init)
    if rest.prove_resume is not None:
        from tools.prove_resume import prove

        prove(config, options.device, kills=rest.prove_resume, stop_after=last_step)
        return
    if options.dry_run:
        _dry_run(config, fabric, init)
        return
    result = pretrain(config, run, fabric, init=init, stop_after=last_step)
    if not fabric.is_global_zero:
        return
    metrics = result.metrics
    print(f"""
{result.backbone["name"]} on {result.data["name"]} ({result.data["train"]:,} images, \
{config.epochs} epochs, {result.seconds / 60:.1f} min)
  validation top-1     {metrics["top1"]:.2f} % (last epoch), \
{metrics["top1_best"]:.2f} % (best, epoch {metrics["best_epoch"]})
  backbone             {run.folder}/backbone.pth   fingerprint {result.backbone["fingerprint"]}
  a mixed batch        {run.folder}/pictures/mixed_batch.png
  curves               {run.folder}/pictures/curves.png

What is it worth? Carry it into a detector and a captioner:
  python tools/finetune_det.py --backbone {run.folder}/backbone.pth
  python tools/finetune_cap.py --backbone {run.folder}/backbone.pth""")


def _more(parser: Any) -> None:
    add_stop_after(parser)
    parser.add_argument(
        "--prove-resume",
        type=int,
        metavar="KILLS",
        help="Train the first steps of this recipe (--stop-after, 12 if not given) in a scratch "
        "folder, kill the process so many times at random moments, resume, and compare every bit.",
    )


def _dry_run(config: PretrainConfig, fabric: Any, init: Any) -> None:
    """The resolved configuration, what it comes to, and the cost by ten measured steps."""
    from pretrain.advice import advice
    from pretrain.progress import log
    from pretrain.projection import project
    from pretrain.setup import build

    setup = build(config, init)
    if fabric.is_global_zero:
        show_config(config)
        steps = setup.steps_per_epoch
        print(
            f"# {config.model.arch}: {setup.parameters / 1e6:.2f} M parameters\n"
            f"# {setup.data.name}: {len(setup.train):,} training and {len(setup.data.val):,} "
            f"validation images of {len(setup.train.classes)} classes\n"
            f"# {steps:,} steps an epoch, {config.epochs * steps:,} in all, on {fabric.device}"
            f"{f' x {fabric.world_size}' if fabric.world_size > 1 else ''}",
            flush=True,
        )
    cost = project(setup, config, fabric)
    if fabric.is_global_zero:
        print(
            f"# measured over {cost.steps} steps: {cost.seconds_per_step:.3g} s a step, "
            f"{cost.images_per_second:,.4g} images/s\n"
            f"# projected: {_duration(cost.hours)} and {cost.memory_mib:,.0f} MiB of "
            f"{'GPU memory' if fabric.device.type == 'cuda' else 'memory, loaders not counted'}"
        )
        on_cpu = fabric.device.type == "cpu"
        for line in advice(
            config, parameters=setup.parameters, images=len(setup.train), on_cpu=on_cpu
        ):
            log(f"note: {line}")


def _duration(hours: float) -> str:
    if hours < 1:
        return f"{60 * hours:.1f} minutes"
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.1f} days"


if __name__ == "__main__":
    run_main(main)
