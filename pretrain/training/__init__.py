"""What every training loop needs: seeds, batches, optimizers, resuming, devices."""

from pretrain.training.checkpoint import save_epoch
from pretrain.training.devices import (
    Device,
    admit,
    from_rank_zero,
    make_fabric,
    refuse_single_values,
    share_buffers,
)
from pretrain.training.loader import (
    BatchSampler,
    BatchSource,
    InMemoryLoader,
    Loader,
    Samples,
    scoring_batching,
    train_batching,
)
from pretrain.training.optimizer import check_optimizer, make_lr_scheduler, make_optimizer
from pretrain.training.seeds import derive, generator, seed_ambient
from pretrain.training.train_loop import (
    MicroBatch,
    TrainLoop,
    TrainState,
    epochs_above_chance,
    make_train_state,
    micro_batches,
    optimizer_step,
)

__all__ = [
    "BatchSampler",
    "BatchSource",
    "Device",
    "InMemoryLoader",
    "Loader",
    "MicroBatch",
    "Samples",
    "TrainLoop",
    "TrainState",
    "admit",
    "check_optimizer",
    "derive",
    "epochs_above_chance",
    "from_rank_zero",
    "generator",
    "make_fabric",
    "make_lr_scheduler",
    "make_optimizer",
    "make_train_state",
    "micro_batches",
    "optimizer_step",
    "refuse_single_values",
    "save_epoch",
    "scoring_batching",
    "seed_ambient",
    "share_buffers",
    "train_batching",
]
