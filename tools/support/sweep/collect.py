"""result.json of a sweep that has ended, from Optuna's storage and the runs' folders."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from optuna.trial import FrozenTrial

from pretrain.run import Result, Run
from tools.support.sweep.config import Sweep
from tools.support.sweep.result import FORMAT
from tools.support.sweep.rungs import split
from tools.support.sweep.study import FINALS, Job, Studies


def collect(sweep: Sweep, studies: Studies) -> dict[str, Any]:
    """The content of result.json: plain values."""
    config, arms, first = sweep.config, dict[str, Any](), dict[str, Any]()
    brackets = split(config.trials, config.brackets)
    for arm in config.arms:
        trials = [_describe(trial) for trial in studies.trials(arm)]
        for trial in trials:
            number = trial["number"]
            trial["bracket"] = next(i for i, one in enumerate(brackets) if number in one)
        finals = [_describe(trial) for trial in studies.trials(f"{arm}/{FINALS}")]
        for trial in finals:
            trial["seed"] = config.finals[trial["number"]]
        arms[arm] = {"trials": trials, "finals": finals}
        for trial in trials:
            job = Job(arm, trial["number"], {}, config.seed, sweep.epochs)
            run = Run(sweep.out / job.folder)
            if not first and run.finished:
                result = Result.read(run.folder / "result.json")
                first = {"data": result.data, "environment": result.environment}
    return {
        "format": FORMAT,
        "name": config.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "metric": config.metric,
        "less": studies.less,
        "stops": list(sweep.stops),
        "sweep": _plain(asdict(config)),
        "data": first.get("data", {}),
        "environment": first.get("environment", {}),
        "arms": arms,
    }


def _describe(trial: FrozenTrial) -> dict[str, Any]:
    diverged = trial.user_attrs.get("diverged")
    state = "diverged" if diverged is not None else trial.state.name.lower()
    return {
        "number": trial.number,
        "point": trial.params,
        "state": state,
        "scores": {str(key): value for key, value in sorted(trial.intermediate_values.items())},
        "seconds": trial.user_attrs.get("seconds", 0.0),
        "diverged": diverged,
    }


def _plain(value: Any) -> Any:
    """Lists for tuples, as a file gives them back."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value
