"""One run of several suites: every mistake of a user first, then part by part, one result."""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from pretrain.backbone import Backbone
from pretrain.data_digest import Digest
from pretrain.errors import UsageError, shorten
from pretrain.progress import log
from pretrain.run import CHANGEABLE, Result, Run, environment
from transfer.evaluation import suites
from transfer.evaluation.images import Labels
from transfer.evaluation.session import Session
from transfer.stores import data_name, refuse_store


@dataclass(frozen=True)
class SuiteRequest:
    """A suite that is asked for."""

    root: str | Path
    """Its data."""
    options: Any
    """A dataclass of transfer/evaluation/config.py."""


def evaluate_suites(
    backbone: Backbone,
    wanted: Mapping[str, SuiteRequest],
    run: Run,
    session: Session,
    config: dict[str, Any],
    labels: Labels,
) -> Result:
    """Open all data, then measure what is not kept, then write the result.

    Args:
        backbone: with its classifier, where a suite wants it.
        wanted: by name of the suite.
        run: the folder; an unfinished run of the same backbone, data and options goes on.
        session: device and loading.
        config: of the run, for config.yaml; a section for each suite.
        labels: how folders of labelled images are read.

    Raises:
        UsageError: whatever a user can mistake, before anything is measured.
    """
    if session.fabric.world_size > 1:
        raise UsageError(
            f"--suite runs in one process, and there are {session.fabric.world_size}. Start it "
            "without torchrun; several suites can run beside each other, each with its own --out."
        )
    started = time.monotonic()
    if bad := [name for name, value in backbone.weights.items() if not value.isfinite().all()]:
        raise UsageError(
            f"weights of the backbone are infinite or nan: {shorten(bad)}. Nothing can be measured "
            "with it; give a file from before its training diverged."
        )
    for name, one in wanted.items():
        if not suites.by_name(name).takes_shards:
            refuse_store(one.root, f"{name} wants {suites.by_name(name).data}")
    modules = {name: import_module(suites.by_name(name).module) for name in wanted}
    data = {
        name: modules[name].open_data(backbone, one.root, one.options, labels)
        for name, one in wanted.items()
    }
    digests = {name: one.files.digest for name, one in data.items()}
    digest = _joined(digests)
    run.start(config, backbone.fingerprint(), digest)
    session = replace(session, key=_key(config, backbone.fingerprint(), digest["digest"]))
    logged = [record.get("seconds") for record in run.read_log()]
    earlier = sum(seconds for seconds in logged if isinstance(seconds, int | float))
    metrics = dict[str, dict[str, Any]]()
    for number, (name, one) in enumerate(wanted.items(), 1):
        for note in data[name].summary.get("notes", ()):
            log(f"note: {name}: {note}")
        begun = time.monotonic()
        metrics[name] = modules[name].evaluate(backbone, data[name], one.options, session.of(name))
        seconds = round(time.monotonic() - begun, 1)
        run.log({"epoch": number, "suite": name, "seconds": seconds})
        log(f"{name}: {suites.headline(name, metrics[name])} ({seconds:.0f} s)")
    first = next(iter(wanted))
    # a suite may measure what its data allows
    headline = next(one for one in suites.by_name(first).metrics if one.key in metrics[first])
    result = Result(
        task="evaluate",
        metric=f"{first}.{headline.key}",
        metrics=metrics,
        backbone=backbone.describe(),
        data={"name": ", ".join(dict.fromkeys(data_name(one.root) for one in wanted.values()))}
        | {name: one.summary | one.files.summary for name, one in data.items()},
        seed=0,
        config=config,
        seconds=round(earlier + time.monotonic() - started, 1),
        environment=environment(session.device),
    )
    run.finish(result)
    return result


def _key(config: Mapping[str, Any], *facts: str) -> str:
    """Of a run: 16 hexadecimal digits over what its values depend on, wherever the data lies."""

    def without_place(section: Any) -> Any:
        is_suite = isinstance(section, dict)
        return {key: section[key] for key in section.keys() - {"data"}} if is_suite else section

    fixed = {key: without_place(one) for key, one in config.items() if key not in CHANGEABLE}
    return hashlib.sha256(json.dumps([fixed, *facts], sort_keys=True).encode()).hexdigest()[:16]


def _joined(digests: Mapping[str, Digest]) -> Digest:
    """Of all data: that of a single suite, or one over several."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    text = "|".join(f"{name} {digest['digest']}" for name, digest in sorted(digests.items()))
    return Digest(digest=hashlib.sha256(text.encode()).hexdigest()[:16])
