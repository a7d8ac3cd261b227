"""A sweep: its budget is exact, and neither a kill nor the number of processes changes a bit."""

import itertools
import json
import math
import os
import re
import shutil
import signal
import sys
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from subprocess import DEVNULL

import numpy as np
import pytest
import yaml

pytest.importorskip("optuna", reason="needs cutmix-transfer[sweep]")

from optuna.trial import create_trial

from pretrain.errors import Stopped, UsageError
from pretrain.progress import log
from pretrain.reading import read_json
from pretrain.run import Run
from tests.conftest import ROOT
from tests.forked import Forked, call, start, until
from tests.tools import sweep_worker
from tools.support.prove_resume import state
from tools.support.sweep.collect import collect
from tools.support.sweep.config import Sweep, read_sweep
from tools.support.sweep.launch import admit
from tools.support.sweep.page import to_html, to_markdown
from tools.support.sweep.points import distributions, draw
from tools.support.sweep.result import Summary, expected_best, notes
from tools.support.sweep.rungs import budget, decide, kept, split
from tools.support.sweep.study import Job, Studies
from tools.support.sweep.worker import work

WORKER = ROOT / "tests" / "tools" / "sweep_worker.py"
LR = {"low": 0.001, "high": 1.0, "log": True}
TWO_ARMS = {
    "none": {"options": {"mixing.method": "none"}},
    "cutmix": {
        "options": {"mixing.method": "cutmix"},
        "space": {"mixing.probability": {"choices": [0.5, 1.0]}},
    },
}
TINY = {
    "name": "tiny",
    "config": "configs/pretrain/quick.yaml",
    "options": {
        "epochs": 2,
        "model.arch": "test_resnet",
        "model.args": {},
        "optimizer.ema": 0.9,
        "batch_size": 20,
        "checkpoints.every_steps": 1,
    },
    "trials": 2,
    "rungs": [1],
    "finals": [1],
    "space": {"optimizer.lr": LR},
    "arms": TWO_ARMS,
}
FAKE = TINY | {"trials": 7, "brackets": 2, "finals": [1, 2], "rungs": [1, 2], "seed": 16}
FAKE["options"] = TINY["options"] | {"epochs": 3}


def write(folder: Path, content: dict) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def opened(folder: Path, content: dict, data: Path | str = "data") -> Sweep:
    config = read_sweep(write(folder, content))
    return Sweep(config=config, recipe=ROOT / config.config, data=str(data), out=folder / "out")


def facts(out: Path, sweep: Sweep, studies) -> dict:
    """What a sweep has come to, but for times."""
    result = collect(sweep, studies)
    for arm in result["arms"].values():
        for trial in (*arm["trials"], *arm["finals"]):
            del trial["seconds"]
    return result["arms"]


# ---- what is committed


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "sweeps").glob("*.yaml")), ids=str)
def test_every_sweep_could_be_trained(path, tmp_path):
    config = read_sweep(path)
    assert config.name == path.stem
    Sweep(config=config, recipe=ROOT / config.config, data="data", out=tmp_path).check()


def test_the_tables_in_the_docs_are_those_of_the_committed_result():
    text = (ROOT / "docs" / "sweep.md").read_text(encoding="utf-8")
    inside = text.split("<!-- sweep -->")[1].split("<!-- /sweep -->")[0]
    result = read_json(ROOT / "docs" / "results" / "sweep_cifar10" / "result.json")
    assert inside.strip() == to_markdown(result).strip()
    for arm in Summary(result).arms:  # with two processes, one of them killed
        assert [trial["number"] for trial in arm.trials] == list(range(8))
        assert arm.epochs == arm.budget == 8 * 2 + 4 * 4
        assert [*arm.finals] == [1, 2, 3]


# ---- who goes on


def brute_force(scores: np.ndarray, stops: list[int], keep: float) -> tuple[list[int], int]:
    """Places of the complete trials, and the epochs that all were trained for."""
    alive, spent, before = list(range(len(scores))), 0, 0
    for place, stop in enumerate(stops):
        spent += len(alive) * (stop - before)
        before = stop
        if place < len(stops) - 1:
            order = np.argsort(-scores[alive, place], kind="stable")
            alive = sorted(alive[i] for i in order[: max(1, int(len(alive) * keep))])
    return sorted(alive), spent


@pytest.mark.parametrize("trial", range(40))
def test_who_goes_on_and_what_is_spent_do_not_depend_on_who_is_first(trial):
    draws = np.random.default_rng(trial)
    n, stops, keep = int(draws.integers(1, 13)), [1, 3, 4], float(draws.choice([0.25, 0.5, 0.75]))
    scores = draws.integers(0, 6, (n, len(stops))).astype(float)  # ties among them
    scores[draws.random(n) < 0.2] = -math.inf
    known, spent = [{} for _ in range(n)], 0
    while (decision := decide(known, stops, keep)).due:
        some = draws.permutation(list(decision.due))[: int(draws.integers(1, n + 1))]
        for place in some:
            stop = decision.due[place]
            spent += stop - max(known[place], default=0)
            known[place][stop] = scores[place, stops.index(stop)]
    complete, wanted = brute_force(scores, stops, keep)
    assert sorted(decision.complete) == complete
    assert sorted((*decision.complete, *decision.pruned)) == list(range(n))
    assert spent == wanted == budget(n, 1, stops, keep)


def test_brackets_and_shares():
    assert [list(one) for one in split(8, 3)] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert budget(8, 3, [1, 3], 0.5) == 8 + 2 * 3  # one of each goes on
    assert kept(100, 0.29) == 29
    assert [kept(n, 0.5) for n in (1, 2, 3, 5)] == [1, 1, 1, 2]


@pytest.mark.parametrize("less", [False, True])
def test_the_expected_best_against_all_draws(less):
    values = [3.0, 1.0, 4.0, 1.0, 5.0]
    best = min if less else max
    wanted = [
        np.mean([best(draw) for draw in itertools.product(values, repeat=k)]) for k in range(1, 6)
    ]
    assert expected_best(values, less) == pytest.approx(wanted)


# ---- what is tried


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe"])
def test_arms_share_their_points_and_a_point_does_not_depend_on_those_behind(sampler, tmp_path):
    sweep = opened(tmp_path, TINY | {"sampler": sampler, "trials": 16})
    one, other = draw(sweep, "none", [], 16), draw(sweep, "cutmix", [], 16)
    rates = [point["optimizer.lr"] for point in one]
    assert rates == [point["optimizer.lr"] for point in other]
    assert all(0.001 <= rate <= 1 for rate in rates)
    assert len({*rates}) == 16
    assert {point["mixing.probability"] for point in other} == {0.5, 1.0}
    assert draw(sweep, "none", [], 5) == one[:5]
    if sampler == "qmc":  # one in each sixteenth of the logarithm
        places = sorted(int((math.log10(rate) + 3) / 3 * 16) for rate in rates)
        assert places == list(range(16))


def test_another_seed_tries_something_else(tmp_path):
    points = [draw(opened(tmp_path, TINY | {"seed": seed}), "none", [], 4) for seed in (0, 2)]
    assert points[0] != points[1]


def test_an_option_of_whole_numbers_that_the_recipe_leaves_out_gets_them(tmp_path):
    space = {
        "dataset.per_class": {"low": 2, "high": 9},
        "optimizer.clip_norm": {"low": 1, "high": 3},
    }
    points = draw(opened(tmp_path, TINY | {"space": space}), "none", [], 4)
    assert all(isinstance(point["dataset.per_class"], int) for point in points)
    assert all(point["optimizer.clip_norm"] % 1 for point in points)


# ---- the file


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trails": 3}, r"trails is no key; it must be one of trials, "),
        ({"trials": 0}, r"trials is 0; it must lie in \[1, 10000\]"),
        ({"trials": "many"}, r"trials: expected `int`, got 'many'"),
        ({"keep": 1.0}, r"keep is 1.0; it must lie in \(0, 1\)"),
        ({"brackets": 3}, r"brackets is 3; it must lie in \[1, 2\]"),
        ({"rungs": [2]}, r"rungs has 2, but a trial has 2 epochs"),
        ({"rungs": [1, 1]}, r"rungs is \[1, 1\]; it must be epochs, each above the last"),
        ({"finals": [0]}, r"finals has 0, the seed that the trials have"),
        ({"sampler": "grid"}, r"sampler: .*'grid'"),
        ({"metric": "best"}, r"metric: .*'best'"),
        ({"arms": {}}, r"arms is empty"),
        ({"arms": {"logs": {}}}, r"'logs' names a folder"),
        ({"arms": {"a/b": {}}}, r"'a/b' names a folder"),
        ({"arms": {"a": {"space": {}, "opts": 1}}}, r"arms.a.opts is no key; .*options"),
        ({"arms": {"a": None}}, r"arms"),
        ({"space": {}}, r"arm none has no space"),
        ({"space": {"optimizer.lr": {"low": 1, "hihg": 2}}}, r"hihg is no key; .*high"),
        ({"space": {"optimizer.lr": {"low": 1}}}, r"it must be \{low: A, high: B\}"),
        ({"space": {"optimizer.lr": {"low": 2, "high": 1}}}, r"low must be below high"),
        ({"space": {"optimizer.lr": {"low": 0, "high": 1, "log": True}}}, r"must be above 0"),
        ({"space": {"optimizer.lr": {"choices": [1, 1]}}}, r"values, each once"),
        (
            {"space": {"optimizer.rate": {"low": 0.1, "high": 1}}},
            r"no option --optimizer.rate; the nearest is",
        ),
        ({"space": {"mixing.alpha": {"low": -1, "high": 1}}}, r"mixing.alpha is -1"),
        ({"space": {"epochs": {"choices": [1, 2]}}}, r"space has epochs, which is the budget"),
        ({"arms": {"a": {"options": {"epochs": 9}}}}, r"arm a has epochs, which is the budget"),
        ({"options": {"seed": 3}}, r"options has seed, which is the sweep's own"),
        ({"options": {"duration": "10 steps"}}, r"options has duration, .* give epochs"),
        ({"config": "configs/none.yaml"}, r"config: there is no file .*none.yaml"),
        ({"arms": {"a": {"options": {"config": "x.yaml"}}}}, r"arm a has config, which is"),
        ({"options": {"help": 1}}, r"options has help, which is no option"),
        (
            {"options": {"dataset.train": date(2026, 1, 2)}},
            r"dataset.train is .*write it in quotes",
        ),
        ({"space": {"optimizer.lr": {"low": "1e-3", "high": 1}}}, r"low is '1e-3', .* 1.0e-3"),
        ({"arms": {False: {}}}, r"arms: a key: expected `str`, got `bool`. Write it in quotes"),
        ({"arms": {"data.json": {}}}, r"'data.json' names a folder"),
    ],
    ids=str,
)
def test_a_wrong_file_is_one_message(change, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        opened(tmp_path, TINY | change).check()


def test_a_folder_takes_one_sweep(tmp_path):
    sweep = opened(tmp_path, TINY)
    first = admit(sweep, None)
    assert admit(sweep, None) == first
    changed = TINY | {"trials": 4, "space": {"optimizer.lr": LR | {"high": 0.5}}}
    with pytest.raises(UsageError) as error:
        admit(opened(tmp_path, changed), None)
    assert "trials: 2 there, 4 here" in str(error.value)
    assert "optimizer.lr.high: 1.0 there, 0.5 here" in str(error.value)
    other = TINY | {"options": TINY["options"] | {"batch_size": 10}}
    with pytest.raises(UsageError, match=r"none, batch_size: 20 there, 10 here"):
        admit(opened(tmp_path, other), None)
    with pytest.raises(UsageError, match=r"storage: 'sqlite in OUT' there, .*\*\*\*@host/db' here"):
        admit(sweep, "postgresql://me:secret@host/db")
    with pytest.raises(UsageError, match="is no address of a database"):
        admit(sweep, "somewhere")
    faster = TINY | {"options": TINY["options"] | {"loader.workers": 1}}
    assert admit(opened(tmp_path, faster), None) == first  # no bit depends on it
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(UsageError, match=r"sqlite:////none/x.db cannot be used: unable to open"):
        admit(sweep, "sqlite:////none/x.db")
    assert admit(sweep, None) != first  # which that is not in the way of
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "optuna.db").touch()
    admit(sweep, None)  # as after a kill in its first moment
    (tmp_path / "out" / "sweep.yaml").unlink()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds notes.txt and no sweep"):
        admit(sweep, None)


# ---- sweeps


def run_fake(folder: Path, content: dict, data: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pretrain.engine.pretrain", sweep_worker.fake)
        patch.setattr(sweep_worker, "PAUSE", 0.0)
        sweep, studies = sweep_worker.open_sweep(write(folder, content), data, folder / "out")
        lines = list[str]()
        work(sweep, studies, "cpu", lines.append)
    return sweep, studies, lines


def fresh(folder: Path, data: Path):
    return sweep_worker.open_sweep(write(folder, TINY), data, folder / "out")


@pytest.fixture(scope="module")
def calm(worlds, tmp_path_factory):
    """A sweep by TPE that nobody disturbs: (content of its file, sweep, studies, lines)."""
    content = FAKE | {"sampler": "tpe"}
    folder = tmp_path_factory.mktemp("calm")
    return content, *run_fake(folder, content, worlds["classification"])


def test_the_budget_is_exact_and_what_diverged_has_used_its_share(calm):
    _, sweep, studies, lines = calm
    result = collect(sweep, studies)
    for arm in Summary(result).arms:
        lost = [t for t in arm.trials if t["state"] == "diverged"]
        assert len(arm.trials) == 7
        assert arm.budget == 7 + 3 + 2  # of 4 and 3, 2 and 1 go on, then 1 and 1
        assert arm.epochs == arm.budget - len(lost)  # each of them ended in its first epoch
        for bracket, size in ((0, 4), (1, 3)):
            own = [t for t in arm.trials if t["bracket"] == bracket]
            assert len(own) == size
            ranked = sorted(own, key=lambda t: (-t["scores"].get("1", -math.inf), t["number"]))
            going = [t["number"] for t in own if len(t["scores"]) > 1]
            assert sorted(going) == sorted(t["number"] for t in ranked[: size // 2])
        assert [*arm.finals] == [1, 2]
        assert len({*arm.finals.values()}) == 2  # each with its seed
        best = max(t["scores"]["3"] for t in arm.trials if t["state"] == "complete")
        assert arm.winner["scores"]["3"] == best
    lost = [t for arm in Summary(result).arms for t in arm.trials if t["state"] == "diverged"]
    assert lost  # else the seed shows nothing
    assert all("it has diverged" in t["diverged"] for t in lost)
    assert sum("diverged" in line for line in lines) == len(lost)
    assert any("trials diverged" in line for line in notes(Summary(result)))
    again = []
    work(sweep, studies, "cpu", again.append)
    assert not again  # nothing is left


def test_of_losses_the_least_goes_on_and_wins(worlds, tmp_path):
    arms, space = {"none": TWO_ARMS["none"]}, {"optimizer.lr": LR | {"low": 0.005, "high": 0.7}}
    content = FAKE | {"arms": arms, "space": space, "metric": "val_loss", "trials": 4}
    content |= {"brackets": 1, "rungs": [1], "finals": []}
    sweep, studies, _ = run_fake(tmp_path, content, worlds["classification"])
    (arm,) = Summary(collect(sweep, studies)).arms
    ranked = sorted(arm.trials, key=lambda t: t["scores"]["1"])
    whole = [t for t in arm.trials if t["state"] == "complete"]
    assert sorted(t["number"] for t in whole) == sorted(t["number"] for t in ranked[:2])
    least = min(whole, key=lambda t: t["scores"]["3"])
    assert studies.winner(studies.trials("none")).number == arm.winner["number"] == least["number"]


def test_what_another_has_settled_stays(calm):
    """A process may report a run that another has finished and reported meanwhile."""
    _, sweep, studies, _ = calm
    wanted, trial = facts(sweep.out, sweep, studies), studies.trials("none")[0]
    studies.report(Job("none", 0, trial.params, 1, 3), {1: 0.5}, 9.0, "diverged")
    assert facts(sweep.out, sweep, studies) == wanted


def test_tpe_learns_from_the_bracket_before(calm):
    _, sweep, studies, _ = calm
    one, other = (
        [t["point"]["optimizer.lr"] for t in arm["trials"]]
        for arm in collect(sweep, studies)["arms"].values()
    )
    assert one[:4] == other[:4]  # as random
    assert one[4:] != other[4:]


def test_tpe_looks_for_the_least_loss_and_the_largest_accuracy(tmp_path):
    drawn = {}
    for metric in ("val_loss", "top1"):
        sweep = opened(tmp_path, FAKE | {"sampler": "tpe", "metric": metric})
        space = distributions(sweep, "none")
        before = [
            create_trial(params={"optimizer.lr": lr}, distributions=space, value=lr)
            for lr in np.geomspace(0.001, 1.0, 20).tolist()
        ]
        points = draw(sweep, "none", before, 8)
        drawn[metric] = np.median([point["optimizer.lr"] for point in points])
    assert drawn["val_loss"] < 0.01 < 0.1 < drawn["top1"]


def test_processes_that_are_killed_lose_and_repeat_nothing(calm, worlds, tmp_path):
    """Three at once, two of them killed."""
    content, sweep, studies, _ = calm
    data, wanted = worlds["classification"], facts(sweep.out, sweep, studies)
    path, out = write(tmp_path, content), tmp_path / "out"
    words = [sys.executable, str(WORKER), str(path), str(data), str(out), "fake"]
    outputs = [(tmp_path / f"said{n}").open("w+") for n in range(3)]
    processes = [
        Forked(words, stdout=said, stderr=said, start_new_session=True) for said in outputs
    ]
    for process, many in zip(processes, (3, 10), strict=False):
        until(lambda many=many: len(list(out.glob("*/*/log.jsonl"))) >= many)
        process.kill()
    assert processes[2].wait(timeout=100) == 0, (tmp_path / "said2").read_text()
    sweep, studies = sweep_worker.open_sweep(path, data, out)
    assert studies.finished
    assert facts(out, sweep, studies) == wanted


def test_a_killed_worker_s_trial_goes_on_to_the_same_bits(worlds, tmp_path, no_pictures):
    """Real trainings: two processes, one killed in the middle of its trial."""
    content = TINY | {"arms": {"cutmix": TWO_ARMS["cutmix"]}}
    data, path = worlds["classification"], write(tmp_path, content)
    calm, out = tmp_path / "calm", tmp_path / "out"
    sweep, studies = sweep_worker.open_sweep(path, data, calm)
    work(sweep, studies, "cpu", log)
    wanted = facts(calm, sweep, studies)
    words = [sys.executable, str(WORKER), str(path), str(data), str(out)]
    first, other = (
        Forked(words, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True) for _ in range(2)
    )
    until(lambda: any(out.glob("*/*/checkpoints/last.pth")))
    first.kill()
    assert other.wait(timeout=100) == 0
    sweep, studies = sweep_worker.open_sweep(path, data, out)
    assert facts(out, sweep, studies) == wanted
    names = sorted(one.parent.relative_to(calm) for one in calm.glob("*/*/config.yaml"))
    assert len(names) == 2 + 1
    assert names == sorted(one.parent.relative_to(out) for one in out.glob("*/*/config.yaml"))
    for name in names:
        left, right = state(calm / name), state(out / name)
        assert left.keys() == right.keys()
        differing = [key for key, value in left.items() if not equal(value, right[key])]
        assert not differing, name


def equal(one, two) -> bool:
    return bool((one == two).all()) if hasattr(one, "all") else one == two


def test_other_data_is_refused(worlds, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(worlds["classification"], data)
    content = TINY | {"trials": 1, "finals": [], "arms": {"none": TWO_ARMS["none"]}}
    sweep, studies, _ = run_fake(tmp_path, content, data)
    next(data.glob("train/*/*.jpg")).write_bytes(b"another")
    with pytest.raises(UsageError, match="the data has changed since"):
        work(sweep, studies, "cpu", log)


def test_arms_of_other_images_go_on(worlds, tmp_path):
    arms = {name: {"options": {"dataset.per_class": n}} for name, n in (("few", 2), ("more", 3))}
    content = TINY | {"arms": arms, "finals": [], "trials": 1}
    sweep, studies, _ = run_fake(tmp_path, content, worlds["classification"])
    work(sweep, studies, "cpu", log)
    seen = read_json(sweep.out / "data.json")
    assert seen["few"]["digest"] != seen["more"]["digest"]
    seen["more"] |= {"digest": "0" * 16, "images": seen["few"]["images"]}
    (sweep.out / "data.json").write_text(json.dumps(seen))
    with pytest.raises(UsageError, match=r"the data has changed since .* \(arm more, images: "):
        work(sweep, studies, "cpu", log)


def test_a_folder_that_nobody_can_lock_ends_the_sweep(worlds, tmp_path):
    sweep, studies = fresh(tmp_path, worlds["classification"])
    (sweep.out / "none").mkdir()
    (sweep.out / "none" / "trial-000").touch()
    with pytest.raises(UsageError, match="trial-000"):
        work(sweep, studies, "cpu", log)


def test_a_stop_in_the_last_epoch_is_none_of_the_training_but_of_the_sweep(
    worlds, tmp_path, monkeypatch
):
    """Which has ended then; the next one does not begin."""
    sweep, studies = fresh(tmp_path, worlds["classification"])
    lines = list[str]()
    monkeypatch.setattr("pretrain.engine.pretrain", sweep_worker.fake)
    with pytest.raises(Stopped):
        work(sweep, studies, "cpu", lines.append, lambda: bool(lines))
    assert len(lines) == 1


def test_the_storage_lies_in_out_whatever_its_name(tmp_path):
    sweep = opened(tmp_path, TINY)
    sweep = replace(sweep, out=tmp_path / "a b?c={1}#%41")
    storage = admit(sweep, None)
    Studies(sweep, storage.url, storage.name)
    assert [one.name for one in tmp_path.iterdir() if one.is_dir()] == [sweep.out.name]
    assert (sweep.out / "optuna.db").stat().st_size
    assert len([*tmp_path.iterdir()]) == 2  # with the sweep's file


def test_a_trial_that_cannot_be_trained_ends_the_sweep(worlds, tmp_path):
    content = TINY | {"arms": {"one": {"options": {"model.arch": "resnet_of_nobody"}}}}
    with pytest.raises(UsageError, match="resnet_of_nobody"):
        run_fake(tmp_path, content, worlds["classification"])


def test_a_sweep_of_which_everything_diverges_ends(worlds, tmp_path):
    content = TINY | {"space": {"optimizer.lr": {"low": 0.9, "high": 1.0}}}
    sweep, studies, lines = run_fake(tmp_path, content, worlds["classification"])
    assert len(lines) == 4
    assert studies.finished
    assert all(arm.winner is None for arm in Summary(collect(sweep, studies)).arms)


# ---- the page


def made(content: dict, states: str, folder: Path) -> dict:
    """The content of result.json; of each arm's trials p, c, d: pruned, complete, diverged."""
    sweep = opened(folder, content)
    names = {"p": "pruned", "c": "complete", "d": "diverged"}
    arms = {}
    for place, arm in enumerate(sweep.config.arms):
        trials = []
        for number, point in enumerate(draw(sweep, arm, [], len(states))):
            state, score = states[number], 40.0 + number + place
            scores = {"d": {}, "p": {"1": score}, "c": {"1": score, "2": score + 9}}[state]
            trials.append({
                "number": number, "point": point, "state": names[state], "scores": scores,
                "seconds": 5.0, "diverged": "so it has" if state == "d" else None, "bracket": 0,
            })  # fmt: skip
        finals = [
            trials[0] | {"number": number, "seed": seed, "scores": {"2": 50.0 + number + place}}
            for number, seed in enumerate(content["finals"] if "c" in states else [])
        ]
        finals = [one | {"state": "complete"} for one in finals]
        arms[arm] = {"trials": trials, "finals": finals}
    return json.loads(json.dumps({
        "format": "sweep/1", "name": sweep.config.name, "created": "2026-01-02T03:04:05+00:00",
        "metric": sweep.config.metric, "less": sweep.config.metric == "val_loss",
        "stops": sweep.stops, "sweep": asdict(sweep.config), "data": {}, "environment": {},
        "arms": arms,
    }))  # fmt: skip


CHOICES = {
    "optimizer.name": {"choices": ["sgd", "adamw"]},
    "channels_last": {"choices": [True, False]},
    "optimizer.clip_norm": {"choices": [None, 1.0]},
    "mixing.side": {"choices": [0.5]},
}
CASES = {
    "usual": (TINY | {"finals": [1, 2, 3]}, "cppdcp"),
    "one trial": (TINY | {"trials": 1, "rungs": [], "finals": []}, "c"),
    "one arm": (TINY | {"arms": {"none": TWO_ARMS["none"]}, "metric": "val_loss"}, "pc"),
    "all diverged": (TINY, "dd"),
    "choices alone": (TINY | {"space": {}, "arms": {"a": {"space": CHOICES}}}, "cpc"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_page_of_any_sweep_needs_no_network(name, tmp_path):
    content, states = CASES[name]
    result = made(content, states, tmp_path)
    page, table = to_html(result), to_markdown(result)
    assert not re.search(r"(?:src|href)=\"(?!#)|https?://|url\(|@import|<script", page)
    assert page.count("<svg") == len(result["arms"]) + (name != "all diverged")
    assert not re.search(r"\b(nan|inf)\b", page)
    for arm in result["arms"]:
        assert f">{arm}</th>" in page
        assert f"| {arm} |" in table
        picture = page.split(f"Trials of {arm}</title>")[1].split("</svg>")[0]
        lines = re.findall(r'<polyline class="trial (\w+)[^"]*?( winner)?"', picture)
        assert len(lines) == len(states)
        assert [kind for kind, _ in lines].count("lost") == states.count("d")
        assert [kind for kind, _ in lines].count("pruned") == states.count("p")
        assert sum(bool(best) for _, best in lines) == ("c" in states)
    said = notes(Summary(result))
    if name == "usual":
        assert "none: 1 of 6 trials diverged (3)" in " ".join(said)
        assert any(line.startswith("cutmix - none: +1.00 ± 0.00") for line in said)
        assert "| none | 4 |" in table  # the better of 0 and 4
    if name == "one arm":  # the smaller loss
        assert "| none | 1 |" in table
    if name == "all diverged":
        assert "none has no winner: no trial came to its end." in said


def test_a_difference_is_over_equal_seeds(tmp_path):
    result = made(TINY | {"finals": [1, 2, 3]}, "c", tmp_path)
    arms = result["arms"]
    for (arm, missing), values in {("none", 1): (0, 10, 30), ("cutmix", 3): (5, 12, 0)}.items():
        for final, value in zip(arms[arm]["finals"], values, strict=True):
            final["scores"] = {"2": float(value)}
            final["state"] = "diverged" if final["seed"] == missing else "complete"
    none, cutmix = Summary(result).arms
    assert (cutmix.difference(none).mean, cutmix.difference(none).n) == (2.0, 1)  # of seed 2


def test_a_winner_at_the_edge_is_said(tmp_path):
    result = made(TINY, "c", tmp_path)
    for rate, is_edge in ((0.001, True), (0.0013, True), (0.002, False), (0.9, True)):
        for arm in result["arms"].values():
            arm["trials"][0]["point"]["optimizer.lr"] = rate
        said = [line for line in notes(Summary(result)) if "at the edge of its range" in line]
        assert len(said) == 2 * is_edge


# ---- the tool


def test_a_mistake_is_one_message(tmp_path):
    done = call("sweep", write(tmp_path, TINY | {"trails": 3}), "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith("error: sweep ")
    assert "trails is no key" in done.stderr
    assert "Traceback" not in done.stderr
    assert call("sweep").returncode == 2
    assert not (tmp_path / "out").exists()


def test_the_tool_stops_and_goes_on(full, worlds, tmp_path):
    if not full:
        pytest.skip("processes that import torch: 20 s (--full)")
    out, path = tmp_path / "out", write(tmp_path, TINY)
    words = [path, "--data", worlds["classification"], "--out", out, "--jobs", 2]
    with (tmp_path / "said").open("w+") as said:
        process = start("sweep", *words, stdout=said, stderr=said)
        until(lambda: any(out.glob("*/*/checkpoints/last.pth")))
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == 130, (tmp_path / "said").read_text()
    assert "the same command goes on" in (tmp_path / "said").read_text()
    assert not (out / "result.json").exists()
    done = call("sweep", *words)
    assert done.returncode == 0, done.stderr
    result = json.loads((out / "result.json").read_text())
    assert [len(arm["trials"]) for arm in result["arms"].values()] == [2, 2]
    assert result["environment"]["versions"]["torch"]
    assert (out / "sweep.md").read_text() == to_markdown(result)
    assert (out / "index.html").read_text() == to_html(result)
    assert all(Run(path.parent).finished for path in out.glob("*/final-*/config.yaml"))
    assert call("sweep", *words).returncode == 0  # nothing is left to do
