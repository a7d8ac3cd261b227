"""Classification transfer, from a backbone to its scores in each mode. Reads top to bottom."""

import json
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor

from pretrain.backbone import Backbone
from pretrain.errors import Stopped, UsageError
from pretrain.progress import bar, log
from pretrain.run import Result, Run, environment, plain, write_text
from transfer.classification.config import ClassificationConfig
from transfer.classification.confusion import (
    confusion_matrix,
    draw_confusion,
    mean_per_class,
    most_confused,
    top1,
)
from transfer.classification.finetuning import fine_tune
from transfer.classification.folders import Indices
from transfer.classification.knn import find_neighbours, vote_classes
from transfer.classification.probe import SoftmaxRegression
from transfer.classification.setup import (
    ClassificationSetup,
    Frozen,
    build,
    freeze,
    training_batches,
)

Found = tuple[dict[str, Any], Indices, list[str]]
"""Metrics of a mode, its predictions for the scored images (-1: left out), files left out."""

_WORDS = {"linear": "linear probe", "knn": "k-NN", "full": "full fine-tuning"}


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
    begun = plain(config), backbone.fingerprint()
    run.refuse(*begun)
    _refuse_other_data(setup, run)
    if "full" in config.modes:
        training_batches(setup.data, config, fabric)  # refuses before anything is encoded
    held = {mode: _kept(run, mode) for mode in config.modes}
    done: dict[str, Found] = {mode: found for mode, found in held.items() if found is not None}
    done = fabric.broadcast(done)
    frozen, started = None, time.monotonic()
    if any(mode not in done for mode in config.modes if mode != "full"):
        frozen = freeze(setup, config, fabric)
    encoding = time.monotonic() - started
    if fabric.is_global_zero:
        run.start(*begun)
        write_text(run.folder / "data.txt", setup.data.digest() + "\n")
        for note in _notes(setup, config):
            log(f"note: {note}")
        for mode in done:
            log(f"{_WORDS[mode]}: done before, {done[mode][0][f'{mode}_top1']:.2f} % top-1")
    fabric.barrier()

    # ---- measure, one mode after another
    for mode in config.modes:
        if mode in done:
            continue
        started = time.monotonic()
        try:
            if mode == "full":
                done[mode] = fine_tune(setup, config, run, fabric, stop_after)
            else:
                assert frozen is not None
                measure = linear_probe if mode == "linear" else neighbours
                done[mode] = measure(frozen, config)
        except KeyboardInterrupt as error:  # fine-tuning stops between two steps by itself
            where = f"{len(done)} of {len(config.modes)} modes"
            raise Stopped(str(run.folder), where, signal.SIGINT) from error
        if mode != "full":  # whose clock goes on over a stop
            done[mode][0][f"{mode}_seconds"] = round(time.monotonic() - started, 1)
        if fabric.is_global_zero:
            _keep(run, mode, done[mode])
            if mode != "full":
                log(_said(mode, done[mode][0]))

    # ---- leave predictions, the picture and, last, the result
    result = None
    if fabric.is_global_zero:
        result = _finish(run, done, setup, config, fabric, backbone, encoding)
    return fabric.broadcast(result)  # type: ignore[return-value]


def linear_probe(frozen: Frozen, config: ClassificationConfig) -> Found:
    """The penalty that is best on `choose`, then the probe at that penalty on `train`."""
    data, options = frozen.data, config.linear
    device = torch.device("cpu") if frozen.device.type == "mps" else frozen.device
    classes = len(data.classes)

    def problem(numbers: Indices) -> SoftmaxRegression:
        features, labels, _ = frozen.part(numbers)
        return SoftmaxRegression(features, labels, classes, options.penalty, device)

    fitted = problem(data.fit)
    features, labels, _ = frozen.part(data.choose)
    path, best, unsolved = {}, None, []
    penalties = sorted(set(options.penalties), reverse=True)
    with bar("linear probe", len(penalties) + 1, "fits") as advance:
        for probe in fitted.solve_path(penalties, options.tolerance, options.max_iterations):
            right = _percent(probe.predict(features.to(device)).cpu(), labels)
            path[probe.penalty] = right
            unsolved += [] if probe.converged else [probe.penalty]
            if (
                best is None or right > path[best.penalty]
            ):  # of equals the stronger, which was first
                best = probe
            advance(1, f"penalty {probe.penalty:g}: {right:.1f} %")
        assert best is not None
        if data.fit is not data.train:
            again = problem(data.train)
            best = again.solve(best.penalty, options.tolerance, options.max_iterations, best)
            advance(1)
    if unsolved or not best.converged:
        where = ", ".join(f"{value:g}" for value in unsolved or [best.penalty])
        log(
            f"note: the probe has not converged at penalty {where} in {options.max_iterations} "
            "iterations: give more by --linear.max_iterations"
        )
    features, labels, numbers = frozen.part(data.scored)
    matrix, said = _scored(frozen, numbers, best.predict(features.to(device)).cpu())
    metrics = {
        "linear_top1": top1(matrix),
        "linear_mean_per_class": mean_per_class(matrix),
        "linear_penalty": best.penalty,
        "linear_path": {f"{value:g}": round(right, 2) for value, right in sorted(path.items())},
        "linear_converged": best.converged and not unsolved,
        "linear_iterations": best.iterations,
        "linear_objective": best.objective,
    }
    return metrics, said, _left_out(frozen)


def neighbours(frozen: Frozen, config: ClassificationConfig) -> Found:
    """The k that is best on `choose` with neighbours of `fit`, then that k with all of `train`."""
    data, options = frozen.data, config.knn
    classes = len(data.classes)

    def vote(bank: Indices, queries: Indices, ks: list[int]) -> tuple[dict[int, Tensor], Tensor]:
        features, labels, _ = frozen.part(bank)
        asked, truth, _ = frozen.part(queries)
        similarities, rows = find_neighbours(features, asked, max(ks))
        how = options.vote, options.temperature
        return vote_classes(similarities, labels[rows], classes, ks, *how), truth

    usable = int((frozen.features.row_of[data.fit] >= 0).sum())
    ks = sorted({k for k in options.ks if k <= usable})
    if skipped := sorted({k for k in options.ks if k > usable}):
        words = ", ".join(map(str, skipped))
        log(f"note: k = {words} skipped: there are {usable:,} neighbours while k is chosen")
    if not ks:
        raise UsageError(f"no k of knn.ks is at most {usable}, the number of readable images")
    with bar("nearest neighbours", 2, "searches") as advance:
        winners, truth = vote(data.fit, data.choose, ks)
        path = {k: _percent(won, truth) for k, won in winners.items()}
        best = max(ks, key=lambda k: (path[k], k))
        advance(1)
        winners, _ = vote(data.train, data.scored, [best])
        advance(1)
    matrix, said = _scored(frozen, frozen.part(data.scored)[2], winners[best])
    metrics = {
        "knn_top1": top1(matrix),
        "knn_mean_per_class": mean_per_class(matrix),
        "knn_k": best,
        "knn_path": {str(k): round(right, 2) for k, right in path.items()},
        "knn_skipped": skipped,
    }
    return metrics, said, _left_out(frozen)


def _percent(said: Tensor, truth: Tensor) -> float:
    return 100 * float((said == truth).double().mean())


def _scored(frozen: Frozen, numbers: Indices, said: Tensor) -> tuple[Any, Indices]:
    """The confusion matrix, and predictions for all scored images: -1 where one is broken."""
    data = frozen.data
    everything = np.full(len(data.paths), -1, np.int64)
    everything[numbers] = said.numpy()
    predicted = everything[data.scored]
    return confusion_matrix(predicted, data.labels[data.scored], len(data.classes)), predicted


def _left_out(frozen: Frozen) -> list[str]:
    return sorted(frozen.data.names[number] for number in frozen.features.corrupt)


def _notes(setup: ClassificationSetup, config: ClassificationConfig) -> list[str]:
    data = setup.data
    shown = ", ".join(data.classes[:8]) + (", ..." if len(data.classes) > 8 else "")
    scored = f"{len(data.scored):,} of {data.scored_name} scored"
    counts = f"{len(data.train):,} training images; {scored}"
    if config.modes != ["full"]:
        counts += f"; what is tuned is chosen on {len(data.choose):,} ({data.chosen_on})"
    return [f"{len(data.classes)} classes: {shown}", counts, *data.notes]


def _said(mode: str, metrics: dict[str, Any]) -> str:
    key = "linear_penalty" if mode == "linear" else "knn_k"
    what = "penalty" if mode == "linear" else "k"
    return f"{_WORDS[mode]}: {metrics[f'{mode}_top1']:.2f} % top-1, {what} {metrics[key]:g}"


def _mode_file(run: Run, mode: str) -> Path:
    return run.folder / "modes" / f"{mode}.json"


def _keep(run: Run, mode: str, found: Found) -> None:
    metrics, predicted, left_out = found
    content = {"metrics": metrics, "predicted": predicted.tolist(), "left_out": left_out}
    write_text(_mode_file(run, mode), json.dumps(content))


def _kept(run: Run, mode: str) -> Found | None:
    path = _mode_file(run, mode)
    if not path.exists():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    return content["metrics"], np.array(content["predicted"], np.int64), content["left_out"]


def _refuse_other_data(setup: ClassificationSetup, run: Run) -> None:
    path = run.folder / "data.txt"
    if path.exists() and path.read_text(encoding="utf-8").strip() != setup.data.digest():
        raise UsageError(
            f"{run.folder} was started on other images: files have come, gone or changed their "
            "class since. Give the same data, or another --out."
        )


def _finish(
    run: Run,
    done: dict[str, Found],
    setup: ClassificationSetup,
    config: ClassificationConfig,
    fabric: Fabric,
    backbone: Backbone,
    encoding: float,
) -> Result:
    data, headline = setup.data, config.modes[0]
    truth = data.labels[data.scored]
    matrix = confusion_matrix(done[headline][1], truth, len(data.classes))
    metrics: dict[str, Any] = {}
    for mode in config.modes:
        metrics |= done[mode][0]
    left_out = sorted({name for _, _, names in done.values() for name in names})
    write_text(run.folder / "predictions.json", json.dumps(_predictions(done, setup), indent=1))
    where = f"{matrix.sum():,} images of {data.name}, {data.scored_name}"
    title = f"{_WORDS[headline]}, {backbone.name}: {top1(matrix):.1f} % right\n{where}"
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
        data={
            "name": data.name,
            "train": len(data.train),
            "scored": len(data.scored),
            "classes": len(data.classes),
        },
        seed=config.seed,
        config=plain(config),
        seconds=round(encoding + sum(metrics[f"{mode}_seconds"] for mode in config.modes), 1),
        environment={**environment(fabric.device), "processes": fabric.world_size},
    )
    run.finish(result)
    return result


def _predictions(
    done: dict[str, Found], setup: ClassificationSetup
) -> dict[str, dict[str, str | None]]:
    """File below DIR -> its class, and what each mode takes it for; null: it could not be read."""
    data = setup.data
    found: dict[str, dict[str, str | None]] = {}
    for place, number in enumerate(data.scored):
        row: dict[str, str | None] = {"true": data.classes[data.labels[number]]}
        for mode, (_, predicted, _) in done.items():
            said = int(predicted[place])
            row[mode] = data.classes[said] if said >= 0 else None
        found[data.names[number]] = row
    return found
