"""tools/pretrain.py, and beside it what each process has scored: $STATES/RANK.pth."""
# ruff: noqa: E402

import os
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch

from pretrain import engine
from pretrain.training import devices
from tools.pretrain import main
from tools.support.command import run_main

evaluate_networks = engine.evaluate_networks


def evaluate(networks, *rest):
    scores = evaluate_networks(networks, *rest)
    states = {name: network.state_dict() for name, network in networks.items()}
    top1 = {name: found.top1 for name, found in scores.items()}
    torch.save((states, top1), Path(os.environ["STATES"], f"{os.environ['RANK']}.pth"))
    return scores


devices._NFS_SECONDS = 1
engine.evaluate_networks = evaluate
run_main(main)
