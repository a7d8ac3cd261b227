#!/usr/bin/env bash
# Package:   rliable 1.2.0, library.get_interval_estimates (arch 7.2.0 draws the bootstrap)
# Behaviour: the 95 % interval is a percentile bootstrap over runs. Three runs have 10 resamples that
#            differ, whose spread is too small by the root of 2/3, and nothing makes up for the few
#            (Student's t would): the interval holds the truth four times of five, not 19 of 20.
#            More tasks do not help, though the bootstrap is stratified by them.
# Seen:      normal scores of one method, 400 times: three runs of one task 76 %, of ten tasks 85 %;
#            five runs of one task 84 %. Student's t interval over the means of the runs: 94 or 95 %.
# Hurts:     the package is made for evaluations of few runs. Bars of three seeds that do not touch
#            are read as a difference at 5 %; each bar misses its own truth one time of five.
# Way out:   Student's t over runs (scipy.stats), paired where runs share a seed; or ten runs and more.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
# with pandas 3, arch 7.2.0 (the newest that rliable allows) cannot be imported
"$folder/env/bin/pip" install -q --disable-pip-version-check \
    rliable==1.2.0 arch==7.2.0 numpy==2.4.6 scipy==1.17.1 pandas==2.3.3
"$folder/env/bin/python" - <<'EOF'
import numpy as np
from rliable import library, metrics
from scipy import stats

rng, times = np.random.default_rng(0), 400


def mean(scores):
    return np.array([metrics.aggregate_mean(scores)])


def holds(runs, tasks):
    """How often the intervals of rliable and of Student hold the true mean, which is 0."""
    found = np.zeros(2)
    for _ in range(times):
        scores = rng.normal(size=(runs, tasks))
        _, intervals = library.get_interval_estimates({"one": scores}, mean, reps=1000)
        low, high = intervals["one"].ravel()
        means = scores.mean(axis=1)
        half = stats.t.ppf(0.975, runs - 1) * stats.sem(means)
        found += low <= 0 <= high, abs(means.mean()) <= half
    return found / times


shares = {case: holds(*case) for case in ((3, 1), (3, 10), (5, 1))}
for (runs, tasks), (bootstrap, student) in shares.items():
    print(f"{runs} runs of {tasks:2} tasks: rliable {bootstrap:.0%}, Student {student:.0%}")
assert all(bootstrap < 0.88 < 0.92 < student for bootstrap, student in shares.values())
EOF
