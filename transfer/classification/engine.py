"""Classification transfer, from a backbone to its scores in each mode. Reads top to bottom."""

import json
import signal
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
from lightning.fabric import Fabric

from pretrain.backbone import Backbone
from pretrain.errors import Stopped, UsageError
from pretrain.progress import log
from pretrain.run import Result, Run, environment, plain, write_text
from pretrain.training import BatchSampler, train_batching
from transfer.classification.config import ClassificationConfig
from transfer.classification.confusion import (
    confusion_matrix,
    draw_confusion,
    most_confused,
    top1,
)
from transfer.classification.finetuning import fine_tune
from transfer.classification.frozen import ModeResult, encode, knn, linear_probe
from transfer.classification.setup import ClassificationSetup, build

_TITLES = {"linear": "linear probe", "knn": "k-NN", "full": "full fine-tuning"}


def finetune(
    backbone: Backbone,
    config: ClassificationConfig,
    run: Run,
    fabric: Fabric,
    *,
    stop_after: int | None = None,
) -> Result:
    """Measure a backbone by a linear probe, by nearest neighbours, by fine-tuning, as asked for.

    Leaves RUN/modes/MODE.json as each mode ends, RUN/predictions.json, a confusion picture, with
    full fine-tuning RUN/classifier.pth and, last, the result. What is chosen (penalty, k) is never
    chosen on the scored images: see `folders.open_image_folders`.

    Args:
        backbone: what is measured.
        config: the recipe.
        run: the folder, new or of a run to be continued: finished modes are not computed again.
        fabric: device, precision and processes; each process makes the same call.
        stop_after: stop after this step of fine-tuning, resumable.

    Raises:
        UsageError: the configuration or the data cannot be used.
        Stopped: SIGINT or SIGTERM, or `stop_after`; the same call continues to the same bits.
    """
    # ---- set up
    setup = build(backbone, config)
    identity = plain(config), backbone.fingerprint()
    run.refuse(*identity)
    _refuse_other_data(setup, run)
    if "full" in config.modes:  # refuses before anything is encoded
        BatchSampler(len(setup.data.train), **train_batching(config, fabric))
    results: dict[str, ModeResult] = fabric.broadcast(
        {mode: read for mode in config.modes if (read := _read_mode(run, mode)) is not None}
    )
    frozen, started = None, time.monotonic()
    if any(mode not in results for mode in config.modes if mode != "full"):
        frozen = encode(setup, config, fabric)
    encoding = time.monotonic() - started
    if fabric.is_global_zero:
        run.start(*identity)
        write_text(run.folder / "data.txt", setup.data.digest() + "\n")
        for note in _notes(setup, config):
            log(f"note: {note}")
        for mode, before in results.items():
            log(f"{_TITLES[mode]}: done before, {before.metrics[f'{mode}_top1']:.2f} % top-1")
    fabric.barrier()

    # ---- measure, one mode after another
    for mode in config.modes:
        if mode in results:
            continue
        started = time.monotonic()
        try:
            if mode == "full":
                results[mode] = fine_tune(setup, config, run, fabric, stop_after)
            else:
                assert frozen is not None
                results[mode] = (linear_probe if mode == "linear" else knn)(frozen, config)
        except KeyboardInterrupt as error:  # fine-tuning stops between two steps by itself
            done = f"{len(results)} of {len(config.modes)} modes"
            raise Stopped(str(run.folder), done, signal.SIGINT) from error
        metrics = results[mode].metrics
        if mode != "full":  # whose clock goes on over a stop
            metrics[f"{mode}_seconds"] = round(time.monotonic() - started, 1)
        if fabric.is_global_zero:
            _write_mode(run, mode, results[mode])
            if mode != "full":
                tuned = "penalty" if mode == "linear" else "k"
                value = metrics[f"{mode}_{tuned}"]
                log(f"{_TITLES[mode]}: {metrics[f'{mode}_top1']:.2f} % top-1, {tuned} {value:g}")

    # ---- leave predictions, the picture and, last, the result
    result = None
    if fabric.is_global_zero:
        result = _finish(run, results, setup, config, fabric, backbone, encoding)
    return fabric.broadcast(result)  # type: ignore[return-value]


def _notes(setup: ClassificationSetup, config: ClassificationConfig) -> list[str]:
    data = setup.data
    shown = ", ".join(data.classes[:8]) + (", ..." if len(data.classes) > 8 else "")
    scored = f"{len(data.scored):,} of {data.scored_name} scored"
    counts = f"{len(data.train):,} training images; {scored}"
    if config.modes != ["full"]:
        counts += f"; what is tuned is chosen on {len(data.choose):,} ({data.chosen_on})"
    return [f"{len(data.classes)} classes: {shown}", counts, *data.notes]


def _mode_file(run: Run, mode: str) -> Path:
    return run.folder / "modes" / f"{mode}.json"


def _write_mode(run: Run, mode: str, result: ModeResult) -> None:
    content = {
        "metrics": result.metrics,
        "predicted": result.predictions.tolist(),
        "left_out": result.left_out,
    }
    write_text(_mode_file(run, mode), json.dumps(content))


def _read_mode(run: Run, mode: str) -> ModeResult | None:
    path = _mode_file(run, mode)
    if not path.exists():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    predictions = np.array(content["predicted"], np.int64)
    return ModeResult(content["metrics"], predictions, content["left_out"])


def _refuse_other_data(setup: ClassificationSetup, run: Run) -> None:
    path = run.folder / "data.txt"
    if path.exists() and path.read_text(encoding="utf-8").strip() != setup.data.digest():
        raise UsageError(
            f"{run.folder} was started on other images: files have come, gone or changed their "
            "class since. Give the same data, or another --out."
        )


def _finish(
    run: Run,
    results: dict[str, ModeResult],
    setup: ClassificationSetup,
    config: ClassificationConfig,
    fabric: Fabric,
    backbone: Backbone,
    encoding: float,
) -> Result:
    data, headline = setup.data, config.modes[0]
    labels = data.labels[data.scored]
    matrix = confusion_matrix(results[headline].predictions, labels, len(data.classes))
    metrics = {key: value for mode in config.modes for key, value in results[mode].metrics.items()}
    left_out = sorted({name for result in results.values() for name in result.left_out})
    # file below DIR -> its class, and what each mode takes it for; null: it could not be read
    rows = {
        data.names[index]: {"true": data.classes[data.labels[index]]}
        | {
            mode: data.classes[predicted] if (predicted := result.predictions[row]) >= 0 else None
            for mode, result in results.items()
        }
        for row, index in enumerate(data.scored)
    }
    write_text(run.folder / "predictions.json", json.dumps(rows, indent=1))
    title = (
        f"{_TITLES[headline]}, {backbone.name}: {top1(matrix):.1f} % right\n"
        f"{matrix.sum():,} images of {data.name}, {data.scored_name}"
    )
    draw_confusion(matrix, data.classes, title, run.picture("confusion.png"))
    result = Result(
        task="classification",
        metric=f"{headline}_top1",
        metrics={
            **metrics,
            "modes": config.modes,
            "scored": data.scored_name,
            "chosen_on": data.chosen_on,
            "confused": [asdict(pair) for pair in most_confused(matrix, data.classes)],
            "images_left_out": len(left_out),
            "left_out": left_out[:20],
        },
        backbone=backbone.describe(),
        data=setup.data_summary,
        seed=config.seed,
        config=plain(config),
        seconds=round(encoding + sum(metrics[f"{mode}_seconds"] for mode in config.modes), 1),
        environment={**environment(fabric.device), "processes": fabric.world_size},
    )
    run.finish(result)
    return result
