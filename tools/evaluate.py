"""Score a backbone's own classifier: top-1, top-5, loss, every class; or its worth beyond them.

python tools/evaluate.py --backbone RUN/backbone.pth --data DIR
python tools/evaluate.py --backbone F --data imagenet --preprocess tensor --batch-size 256
python tools/evaluate.py --backbone F --suite robustness --data DIR
python tools/evaluate.py --backbone F --suite ood,calibration --data ood=DIR calibration=DIR
                         --ood.foreign DIR DIR

Suites: robustness (attacks, occlusion, samples in between, corruptions), ood (images of no known
class), localisation (boxes from activation maps), imagenet-variants, calibration, omnibenchmark.
They leave one result for tools/report.py; a run that was stopped goes on by the same command.
docs/evaluation.md says what each measures.

Images go through the backbone's own preprocessing: resized by PIL, as published figures are, or as
tensors, which is faster and differs by up to two of 255 levels in a pixel.
"""

import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.config import Precision
from pretrain.errors import UsageError, check_ranges
from pretrain.files import write_text
from pretrain.run import Result, Run, environment, plain
from tools.support.backbone_options import add_overrides, load, overrides
from tools.support.command import Parser, run_main
from transfer import task
from transfer.evaluation import suites
from transfer.stores import data_name, is_there


def main(argv: list[str] | None = None) -> None:
    """Open, score, write, print."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--backbone", required=True, help="A backbone file, a finished run, a checkpoint.")
    add("--suite", metavar="A[,B]", help=f"Of {', '.join(suites.names())}.")
    add(
        "--data",
        nargs="+",
        required=True,
        metavar="[SUITE=]DIR",
        help="Its validation images; of each suite: "
        + "; ".join(f"{suite.name}: {suite.data}" for suite in suites.SUITES)
        + ".",
    )
    add("--split", help="Folder in DATA; without it val, test, or DATA itself.")
    add("--val-labels", help="Labels of a split without class folders.")
    add(
        "--class-order",
        choices=["alphabetical", "natural", "number"],
        help="Which class folder is output 0, 1, ..., where the backbone's file does not name its "
        "classes: as torchvision sorts folders, as timm does, or the folder's name itself.",
    )
    add("--preprocess", choices=["pil", "tensor"], default="pil")
    add("--batch-size", type=int, default=64)
    add("--workers", type=int, default=2, help="Loader processes.")
    add("--max-corrupt", type=int, default=0, help="Images that may be left out.")
    add("--out", type=Path, help="The result (default: runs/evaluate-...).")
    add("--precision", choices=get_args(Precision), default="32-true")
    add("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto")
    for suite in suites.SUITES:
        parser.add_class_arguments(task.load(suite.config), suite.section, fail_untyped=True)
    add_overrides(parser)
    options = parser.parse(argv, lambda given: _refuse(given, parser))
    if options.suite is None:
        score(options)
    else:
        run_suites(options, parser)


def _refuse(options: Any, parser: Parser) -> None:
    """Raise UsageError for what the options alone show to be wrong."""
    check_ranges("--", options, batch_size="[1, 65536]", workers="[0, 512]", max_corrupt=">= 0")
    wanted = wanted_suites(options.suite)
    refuse_unused(options, parser, wanted)
    if wanted:
        data_of(options.data, wanted)
    elif len(options.data) > 1:
        raise UsageError(f"--data names {len(options.data)} folders; without --suite give one.")


def wanted_suites(asked: str | None) -> list[str]:
    """Of --suite, in their own order.

    Raises:
        UsageError: there is no such suite, or one stands twice.
    """
    names = [] if asked is None else asked.split(",")
    for name in names:
        suites.by_name(name, "--suite: ")
    if len(set(names)) < len(names):
        raise UsageError(f"--suite is {asked}; each suite may stand once.")
    return [name for name in suites.names() if name in names]


def data_of(given: Sequence[str], wanted: Sequence[str]) -> dict[str, str]:
    """The data of each suite, from SUITE=DIR or, where it is the only one, DIR.

    Raises:
        UsageError: a suite without data, or data without suite.
    """
    found = dict[str, str]()
    for text in given:
        name, equals, folder = text.partition("=")
        if not equals or name not in suites.names():
            if len(wanted) > 1 or len(given) > 1:
                raise UsageError(
                    f"--data {text}: several suites want SUITE=DIR each: "
                    f"{' '.join(f'{one}=DIR' for one in wanted)}."
                )
            name, folder = wanted[0], text
        if name not in wanted:
            raise UsageError(f"--data {text}: --suite does not name {name}; add it, or leave it.")
        if name in found:
            raise UsageError(f"--data names {name} twice: {found[name]} and {folder}.")
        if not folder:
            raise UsageError(f"--data {text}: its folder is empty text; give {name}=DIR.")
        found[name] = folder
    if missing := [name for name in wanted if name not in found]:
        raise UsageError(f"--data: {missing[0]} has none; give {missing[0]}=DIR.")
    return found


def refuse_unused(options: Any, parser: Parser, wanted: Sequence[str]) -> None:
    """Raise UsageError for an option that no suite reads, or that one would not."""
    for name in wanted:
        for key in suites.by_name(name).unused:
            if options[key] != parser.get_default(key):
                flag = f"--{key.replace('_', '-')}"
                raise UsageError(
                    f"{flag} is {options[key]}, but {name} does not know it. Leave it off, or run "
                    f"{name} by itself."
                )
    for suite in suites.SUITES:
        default = parser.get_defaults().get(suite.section)
        if suite.name not in wanted and options.get(suite.section) != default:
            raise UsageError(
                f"options --{suite.section}.* are given, but --suite does not name {suite.name}. "
                "Add it, or leave them off."
            )


def run_suites(options: Any, parser: Parser) -> None:
    """Measure the suites that are asked for; print the headline of each."""
    wanted = wanted_suites(options.suite)
    roots = data_of(options.data, wanted)
    for folder in roots.values():
        if not is_there(folder):
            raise UsageError(f"--data: there is no folder {folder}.")
    made = parser.instantiate(options)
    of_suite = {name: made[suites.by_name(name).section] for name in wanted}

    from pretrain.training import make_fabric
    from transfer.evaluation.images import Labels
    from transfer.evaluation.run import SuiteRequest, evaluate_suites
    from transfer.evaluation.session import Session

    backbone = load(options.backbone, overrides(options), trust=options.trust)
    fabric = make_fabric(options.device, options.precision)
    data = dict.fromkeys(map(data_name, roots.values()))
    parts = ["evaluate", backbone.fingerprint(), *wanted, *data, options.preprocess]
    run = Run(options.out or Path("runs", "-".join(parts)))
    run.refuse_finished()
    labels = Labels(
        split=options.split, val_labels=options.val_labels, class_order=options.class_order
    )
    shared = ("preprocess", "precision", "split", "val_labels", "class_order", "max_corrupt")
    config = {
        "name": "evaluate",
        **{key: options[key] for key in shared},
        "loader": {"batch_size": options.batch_size, "workers": options.workers},
        **{name: {"data": roots[name], **plain(of_suite[name])} for name in wanted},
    }
    session = Session(
        fabric=fabric,
        folder=run.folder,
        by_pil=options.preprocess == "pil",
        batch_size=options.batch_size,
        workers=options.workers,
        max_corrupt=options.max_corrupt,
    )
    measured = {name: SuiteRequest(roots[name], of_suite[name]) for name in wanted}
    result = evaluate_suites(backbone, measured, run, session, config, labels)
    print(f"\n{backbone.name} ({backbone.fingerprint()}), {result.seconds / 60:.1f} min")
    for name, metrics in result.metrics.items():
        print(f"\n{suites.by_name(name).title} ({result.data[name]['name']})")
        for metric in suites.by_name(name).metrics:
            if metric.key in metrics:
                print(f"  {metric.title:<36} {metric.factor * metrics[metric.key]:8.2f}")
    print(f"""
  pictures {run.folder}/pictures
  all      {run.folder}/result.json
Beside another backbone? Run this for it too, then: python tools/report.py {run.folder.parent}""")


def score(options: Any) -> None:
    """Top-1, top-5, loss and every class."""
    options.data = options.data[0]

    from pretrain.backbone_evaluation import evaluate_backbone
    from pretrain.training import make_fabric

    backbone = load(options.backbone, overrides(options), trust=options.trust)
    fabric = make_fabric(options.device, options.precision)
    parts = ["evaluate", backbone.fingerprint(), data_name(options.data), options.split]
    name = "-".join(filter(None, [*parts, options.preprocess, options.class_order]))
    run = Run(options.out or Path("runs", name))
    sections = {"suite", *(suite.section for suite in suites.SUITES)}
    given = {key: value for key, value in vars(options).items() if key not in sections}
    config = {"name": "evaluate", **json.loads(json.dumps(given, default=str))}
    run.refuse(config)
    evaluation = evaluate_backbone(
        backbone,
        options.data,
        fabric,
        split=options.split,
        labels=options.val_labels,
        class_order=options.class_order,
        by_pil=options.preprocess == "pil",
        batch_size=options.batch_size,
        workers=options.workers,
        max_corrupt=options.max_corrupt,
    )
    if not fabric.is_global_zero:
        return
    scores, figures = evaluation.scores, io.StringIO()
    writer = csv.writer(figures, lineterminator="\n")
    writer.writerow(["class", "images", "top1", "top5"])
    accuracies = []
    for label, counts in zip(evaluation.classes, scores.per_class.tolist(), strict=True):
        if images := counts[0]:
            top1, top5 = (100 * hits / images for hits in counts[1:])
            accuracies.append((top1, images, label))
            writer.writerow([label, images, f"{top1:.4f}", f"{top5:.4f}"])
    run.start(config)
    write_text(run.folder / "per_class.csv", figures.getvalue())
    run.finish(
        Result(
            task="evaluate",
            metric="top1",
            metrics={
                "top1": scores.top1,
                "top5": scores.top5,
                "val_loss": scores.loss,
                "images_per_second": round(scores.images_per_second, 1),
                "images_left_out": evaluation.num_corrupt,
            },
            backbone=backbone.describe(),
            data={
                "name": data_name(options.data),
                "val": scores.images,
                "classes": len(accuracies),
                "notes": list(evaluation.notes),
            },
            seed=0,
            config=config,
            seconds=round(scores.images / scores.images_per_second, 1),
            environment=environment(fabric.device),
        )
    )
    accuracies.sort(key=lambda row: row[0])
    worst = "\n".join(f"    {n:<24} {top1:6.2f} %   of {m}" for top1, m, n in accuracies[:5])
    print(f"""
{backbone.name} ({backbone.fingerprint()}) on {options.data}, {scores.images:,} images
  classes    {evaluation.matching}
  top-1      {scores.top1:.3f} %
  top-5      {scores.top5:.3f} %
  loss       {scores.loss:.4f}
  speed      {scores.images_per_second:.1f} images/s on {fabric.device}
  worst classes
{worst}
  every class   {run.folder}/per_class.csv
  all           {run.folder}/result.json""")


if __name__ == "__main__":
    run_main(main, again="the same command")
