#!/usr/bin/env bash
# Package:   torch 2.11.0, its launcher torchrun (torch.distributed.run)
# Behaviour: SIGTERM to torchrun is handed on to its processes, which then have 30 seconds, whatever
#            time the scheduler gives: what is still saving is killed by SIGKILL, and no option of
#            torchrun says otherwise. Where all of them end in order, with exit code 0, torchrun
#            itself ends with 1 and a traceback (SignalException).
# Seen:      two processes that take 2 seconds to save and leave by sys.exit(0): both have saved,
#            torchrun's exit code is 1. Two that take 40 seconds:
#            "forcefully exiting via 9" after 30, nothing saved, the same exit code 1.
# Hurts:     sbatch --signal=TERM@90 and Kubernetes' terminationGracePeriodSeconds seem to give time
#            for a checkpoint, and a large one on a network disk takes more than half a minute: it is
#            lost, or half of a file that is not renamed into place. And a script cannot tell the
#            two cases by the exit code: jobs that requeue on 0 or on a code of their own never do.
# Way out:   save within steps too, under a temporary name that is renamed; signal the processes and
#            not torchrun (pkill of its children), which then ends with 0; or ask what was saved,
#            not the exit code.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check torch==2.11.0 numpy==2.4.6

cat > train.py <<'PYTHON'
import os
import signal
import sys
import time
from pathlib import Path

asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
Path("up", os.environ["RANK"]).touch()
while not asked:
    time.sleep(0.05)
time.sleep(float(sys.argv[1]))  # a checkpoint
Path("saved", os.environ["RANK"]).touch()
sys.exit(0)
PYTHON

stop() {  # SECONDS_TO_SAVE WHOM -> torchrun's exit code
    rm -rf up saved && mkdir up saved
    env/bin/python -m torch.distributed.run --standalone --nproc_per_node 2 train.py "$1" 2> log &
    local launcher=$!
    until [ "$(ls up | wc -l)" = 2 ]; do sleep 0.1; done
    if [ "$2" = launcher ]; then kill -TERM $launcher; else pkill -TERM -P $launcher; fi
    code=0
    wait $launcher || code=$?
    saved=$(ls saved | wc -l)
    echo "$1 s to save, SIGTERM to the $2: exit code $code, $saved of 2 saved," \
        "$(grep -c 'forcefully exiting via 9' log || true) killed"
}
stop 2 launcher
[ "$code" = 1 ] && [ "$saved" = 2 ]
grep -q "SignalException" log
stop 40 launcher
[ "$code" = 1 ] && [ "$saved" = 0 ]
[ "$(grep -c 'forcefully exiting via 9' log)" = 2 ]
stop 40 processes
[ "$code" = 0 ] && [ "$saved" = 2 ]
