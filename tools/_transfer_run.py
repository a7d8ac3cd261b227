"""What the transfer tools do before they differ: options, backbone, device, the shape world."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic

from pretrain.progress import log
from pretrain.run import Run
from tools.command import SHAPE_WORLD, Config, add_stop_after, backbone_name, parse, stop_after


@dataclass(frozen=True)
class Begun(Generic[Config]):
    """Everything that a task's function takes, and whether it is to be called."""

    config: Config
    """With the shape world's folder where no data was given."""
    run: Run
    backbone: Any
    fabric: Any
    stop_after: int | None
    dry_run: bool


def begin(
    kind: type[Config],
    *,
    task: str,
    description: str,
    argv: list[str] | None,
    world: Mapping[str, Any],
) -> Begun[Config]:
    """Read the options, the backbone and the device; draw the shape world where it is needed.

    Args:
        kind: the task's configuration.
        task: as its folder under configs and its runs are called.
        description: the head of --help.
        argv: the arguments, or None for the command line's.
        world: see `draw_world`.
    """
    options = parse(
        kind,
        task=task,
        description=description,
        default=f"configs/{task}/demo.yaml",
        argv=argv,
        more=add_stop_after,
    )
    config: Any = options.config
    last_step, name = stop_after(options.rest), backbone_name(config.backbone)

    from pretrain.training import make_fabric
    from transfer import hub

    backbone = hub.resolve(name)
    fabric = make_fabric(options.device, config.precision, config.deterministic)
    if config.data is not None and config.name == "demo" and fabric.is_global_zero:
        log(
            f"note: configs/{task}/demo.yaml is made for the shape world; --config names another "
            f"recipe, --name CUSTOM says that this one is meant"
        )
    if config.data is None:
        with fabric.rank_zero_first():
            config = replace(config, data=str(draw_world(task, SHAPE_WORLD, world)))
    return Begun(config, options.run, backbone, fabric, last_step, options.dry_run)


def draw_world(task: str, root: Path, sizes: Mapping[str, Any]) -> Path:
    """The shape world of a task (or of pretraining) below `root`, drawn where it is not there yet.

    Args:
        task: classification, detection, captioning, or pretrain.
        root: for worlds of all kinds.
        sizes: arguments of the function of `pretrain.synthetic`: train, val, size and others.
    """
    from pretrain import synthetic

    draw: Any = {"detection": synthetic.detection, "captioning": synthetic.captions}
    return Path(draw.get(task, synthetic.classification)(root, **sizes))
