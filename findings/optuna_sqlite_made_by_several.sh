#!/usr/bin/env bash
# Package:   optuna 5.0.0, RDBStorage on a new SQLite file (SQLAlchemy 2.1.9)
# Behaviour: create_study(storage="sqlite:///new.db", study_name=..., load_if_exists=True) is what
#            every process of a sweep calls. Where several call it at once and the file is new, they
#            make its tables without a lock: all but one or two die with OperationalError or
#            IntegrityError (table ... already exists, UNIQUE constraint failed).
# Seen:      four processes that begin together, eight times: 18 of the 32 die.
# Hurts:     a job array of a cluster, or `sweep.py & sweep.py & sweep.py &`, begins its processes
#            together: some are gone in the first second, behind 60 lines of SQL. load_if_exists
#            reads like the answer to that, the second start works, and whoever does not look runs
#            the sweep on half of the machines.
# Way out:   make the storage once before the processes, or make it under a lock of a file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check optuna==5.0.0 numpy==2.4.6 SQLAlchemy==2.1.9

cat > one.py <<'PYTHON'
import os
import sys
import time

import optuna
import optuna.storages

optuna.logging.set_verbosity(optuna.logging.CRITICAL)
database, ready, go = sys.argv[1:]
open(ready, "w").close()
while not os.path.exists(go):
    time.sleep(0.001)
optuna.create_study(storage=f"sqlite:///{database}", study_name="sweep", load_if_exists=True)
PYTHON
cat > see.py <<'PYTHON'
import os
import subprocess
import sys
import time
from collections import Counter

died = Counter()
for attempt in range(8):
    names = [f"ready-{attempt}-{number}" for number in range(4)]
    command = [sys.executable, "one.py", f"{attempt}.db"]
    processes = [
        subprocess.Popen([*command, name, f"go-{attempt}"], stderr=subprocess.PIPE, text=True)
        for name in names
    ]
    while not all(map(os.path.exists, names)):
        time.sleep(0.01)
    open(f"go-{attempt}", "w").close()
    for process in processes:
        said = process.communicate()[1]
        if process.returncode:
            lines = [line for line in said.splitlines() if "Error" in line]
            died[lines[0] if lines else said[-80:]] += 1
    # they only came too early: the same call works now
    again = subprocess.run([*command, names[0], f"go-{attempt}"])
    assert again.returncode == 0
print(f"{died.total()} of 32 processes died:")
for line, count in died.most_common():
    print(f"{count:4d}  {line[:150]}")
assert died.total() >= 3, "the behaviour has changed"
PYTHON
env/bin/python see.py
