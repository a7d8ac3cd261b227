"""What a sweep has found so far, in Optuna's storage: parameters, scores, states.

An arm has two studies, ID/ARM of its trials and ID/ARM/finals of its winner's further seeds. Points
are drawn here, written as trials that wait, and from then on nothing but scores is added by those
who train; who goes on, ends or is complete follows from the scores, and is written by whoever sees
it. So a process may be killed between any two writes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from pretrain.errors import UsageError, first_line
from pretrain.files import lock
from tools.support.sweep.config import Sweep
from tools.support.sweep.points import Point, distributions, draw, waiting
from tools.support.sweep.rungs import Decision, Scores, decide, split

_PATIENCE = 120  # seconds that a writer waits for others of an SQLite file
FINALS = "finals"


@dataclass(frozen=True)
class Job:
    """A training that is due."""

    study: str
    """ARM, or ARM/finals."""
    number: int
    point: Mapping[str, Any]
    seed: int
    epochs: int
    """It goes on to the end of this one."""

    @property
    def arm(self) -> str:
        """Whose."""
        return self.study.partition("/")[0]

    @property
    def folder(self) -> Path:
        """Of the run, below the sweep's."""
        is_final = self.study.endswith(f"/{FINALS}")
        return Path(self.arm) / (
            f"final-seed{self.seed}" if is_final else f"trial-{self.number:03}"
        )

    @property
    def title(self) -> str:
        """For a line of text."""
        return f"{self.arm} {self.folder.name.replace('-', ' ', 1)}"


def scores_of(trial: FrozenTrial, stops: Sequence[int], less: bool) -> Scores:
    """Epoch -> score, larger for better; one that diverged has the worst at every stop ahead."""
    sign = -1 if less else 1
    scores = {epoch: sign * value for epoch, value in trial.intermediate_values.items()}
    lost = dict.fromkeys(stops, -math.inf) if "diverged" in trial.user_attrs else {}
    return {**lost, **scores}


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """A UsageError where the storage cannot be reached or used."""
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError) as error:
        cause = error.__cause__ or error
        raise UsageError(
            f"the storage {shown(url)} cannot be used: {first_line(cause)}. Name another by "  # type: ignore[arg-type]
            "--storage, or mend that; the same command goes on."
        ) from error
    except RuntimeError as error:  # of another version of Optuna
        if "optuna storage upgrade" not in str(error):
            raise
        raise UsageError(
            f"the storage {shown(url)} is of another version of Optuna. Run: optuna storage "
            "upgrade --storage URL"
        ) from error


def shown(url: str) -> str:
    """The address of a storage without its password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError as error:
        raise UsageError(
            "--storage is no address of a database; it must be such as "
            "postgresql://user@host/name, mysql://user@host/name or sqlite:///FILE"
        ) from error


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """The storage, its tables made where there are none: by one process at a time.

    Raises:
        UsageError: it cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    arguments = {"timeout": _PATIENCE} if url.startswith("sqlite") else {}
    with storage_errors(url):
        return optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": arguments})


class Studies:
    """The studies of a sweep."""

    def __init__(self, sweep: Sweep, url: str, name: str) -> None:
        """Open them, or make them.

        Args:
            sweep: whose.
            url: of the storage.
            name: of this sweep among all in the storage.

        Raises:
            UsageError: the storage cannot be used.
        """
        self.sweep, self.url = sweep, url
        self.less = sweep.config.metric == "val_loss"
        studies = [name for arm in sweep.config.arms for name in (arm, f"{arm}/{FINALS}")]
        # tables that two processes make at once are an error
        with storage_errors(url), self._alone():
            self.storage = open_storage(url)
            self.studies = {
                study: optuna.create_study(
                    storage=self.storage,
                    study_name=f"{name}/{study}",
                    direction="minimize" if self.less else "maximize",
                    load_if_exists=True,
                )
                for study in studies
            }
        self._spaces: dict[str, dict[str, BaseDistribution]] = {}

    def trials(self, study: str) -> list[FrozenTrial]:
        """Those of ARM or ARM/finals, by number."""
        return self.studies[study].get_trials(deepcopy=False)

    def due(self) -> list[Job]:
        """What is to be trained now, once all that follows from the scores is written.

        Nothing is due while others train what the rest waits for; see `finished`.
        """
        with storage_errors(self.url):
            jobs = [job for arm in self.sweep.config.arms for job in self._due_of_arm(arm)]
        # all arms side by side
        return sorted(jobs, key=lambda job: (job.study.endswith(FINALS), job.number))

    def is_due(self, job: Job) -> bool:
        """Whether nobody has done a job since it was found to be due."""
        with storage_errors(self.url):
            trial = self.trials(job.study)[job.number]
        return job.epochs not in trial.intermediate_values and "diverged" not in trial.user_attrs

    @property
    def finished(self) -> bool:
        """Whether every trial and every final has ended; `due` writes that."""
        config = self.sweep.config
        for arm in config.arms:
            trials, finals = self.trials(arm), self.trials(f"{arm}/{FINALS}")
            if len(trials) < config.trials or not _all_finished([*trials, *finals]):
                return False
            if len(finals) < len(config.finals) and self.winner(trials) is not None:
                return False
        return True

    def winner(self, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
        """The best of those trained in full, the earlier of equal ones; None where all diverged."""
        sign = -1 if self.less else 1
        whole = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        return min(whole, key=lambda one: (-sign * _value(one), one.number), default=None)

    def begin(self, job: Job) -> None:
        """Say, for whoever looks, that it is being trained."""
        with storage_errors(self.url), suppress(optuna.exceptions.UpdateFinishedTrialError):
            trial = self.trials(job.study)[job.number]
            self.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)

    def report(
        self, job: Job, scores: Mapping[int, float], seconds: float, diverged: str | None
    ) -> None:
        """Write what a training has come to; the score of its last epoch comes last.

        Args:
            job: that was trained.
            scores: epoch -> value of the metric.
            seconds: that it took.
            diverged: what was wrong with the loss.
        """
        # of a run that is finished another may report, and have settled the trial meanwhile
        with storage_errors(self.url), suppress(optuna.exceptions.UpdateFinishedTrialError):
            trial = self.trials(job.study)[job.number]
            number, before = trial._trial_id, trial.user_attrs.get("seconds", 0.0)
            self.storage.set_trial_user_attr(number, "seconds", round(before + seconds, 2))
            for epoch in sorted(scores.keys() - trial.intermediate_values.keys()):
                self.storage.set_trial_intermediate_value(number, epoch, scores[epoch])
            if diverged is not None:
                self.storage.set_trial_user_attr(number, "diverged", diverged)

    def _due_of_arm(self, arm: str) -> list[Job]:
        config, stops, trials = self.sweep.config, self.sweep.stops, self.trials(arm)
        for bracket in split(config.trials, config.brackets):
            if len(trials) < bracket.stop:
                points = draw(self.sweep, arm, trials[: bracket.start], len(bracket))
                trials = self._add(arm, arm, points, bracket.start)
            own = [trials[number] for number in bracket]
            if jobs := self._settle(arm, own, stops, [config.seed] * len(own)):
                return jobs
            trials = self.trials(arm)
        winner = self.winner(trials)
        if winner is None or not config.finals:
            return []
        finals = self.trials(f"{arm}/{FINALS}")
        if len(finals) < len(config.finals):
            finals = self._add(f"{arm}/{FINALS}", arm, [winner.params] * len(config.finals))
        return self._settle(f"{arm}/{FINALS}", finals, stops[-1:], config.finals)

    def _settle(
        self, study: str, trials: Sequence[FrozenTrial], stops: Sequence[int], seeds: Sequence[int]
    ) -> list[Job]:
        """Write who has ended, and return what is due."""
        scores = [scores_of(trial, stops, self.less) for trial in trials]
        decision: Decision = decide(scores, stops, self.sweep.config.keep)
        for place in (*decision.pruned, *decision.complete):
            trial = trials[place]
            is_whole = place in decision.complete and "diverged" not in trial.user_attrs
            if not trial.state.is_finished():
                state = TrialState.COMPLETE if is_whole else TrialState.PRUNED
                values = [trial.intermediate_values[stops[-1]]] if is_whole else None
                with suppress(optuna.exceptions.UpdateFinishedTrialError):  # another was faster
                    self.storage.set_trial_state_values(trial._trial_id, state, values)
        return [
            Job(study, trials[place].number, trials[place].params, seeds[place], epochs)
            for place, epochs in decision.due.items()
        ]

    def _add(
        self, study: str, arm: str, points: Sequence[Point], start: int = 0
    ) -> list[FrozenTrial]:
        """Write the trials that are not there yet; alone, so that none is there twice."""
        space = self._spaces.setdefault(arm, distributions(self.sweep, arm))
        with self._alone():
            for point in points[len(self.trials(study)) - start :]:
                self.studies[study].add_trial(waiting(space, point))
        return self.trials(study)

    def _alone(self) -> Any:
        busy = f"another process prepares trials in {self.sweep.out}"
        return lock(self.sweep.out / ".sweep.lock", busy, wait=True)


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None
    return trial.value


def _all_finished(trials: Sequence[FrozenTrial]) -> bool:
    return all(trial.state.is_finished() for trial in trials)
