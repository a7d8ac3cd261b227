"""Levels of a network, and hooks that change the features of one of them in a training pass.

Level 0 is the image itself; the others are modules whose outputs are features of the whole image.
timm's `feature_info` names them, from fine to coarse: act1, layer1 to layer4 of a ResNet, the
stages of a ConvNeXt or Swin, every block of a ViT. An output is a map (N, C, H, W) or
(N, H, W, C), or a sequence of tokens (N, T, C), of which the first may be no part of the image.

The hooks stay for good, since torch.compile does not see hooks that are added after its first
graph (torch._dynamo.config.skip_nnmodule_hook_guards), and do nothing but inside `LevelChange`. A
compiled network has one graph for each level that is changed, one for none and one for evaluation;
what differs from step to step are tensors. From torch._dynamo.config.recompile_limit (8) graphs on
it runs uncompiled, with the same results.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pretrain.errors import UsageError
from pretrain.mixing.mixed import Mixed, warn_of_plain_pass
from pretrain.mixing.network import evaluating, has_channels_last, token_grid

IMAGE = "image"


@dataclass(frozen=True)
class Grid:
    """The cells of a level, and where its features have them."""

    rows: int
    columns: int
    layout: Literal["NCHW", "NHWC", "NLC"]
    prefix: int = 0
    """Tokens in front of those of the image."""

    def place(self, mask: Tensor) -> Tensor:
        """A mask of cells (M, 1, rows, columns) as one that broadcasts over the features."""
        if self.layout == "NCHW":
            return mask
        if self.layout == "NHWC":
            return mask.movedim(1, 3)
        return functional.pad(mask.flatten(2).movedim(1, 2), (0, 0, self.prefix, 0))


class FeatureLevels:
    """The levels of a network, with hooks on all of them.

    To be made once, before the network is compiled or wrapped for several processes. A copy of the
    network, such as an average of its weights, has hooks of its own that nothing sets to work.
    """

    def __init__(self, network: nn.Module, modules: Sequence[str] = ()) -> None:
        """Install the hooks.

        Args:
            network: of timm, or any other with `modules`.
            modules: names of the modules that are levels; () takes timm's.

        Raises:
            UsageError: the network has no such modules, or computes its features twice.
        """
        info: Any = getattr(network, "feature_info", ())
        channels = {level["module"]: level["num_chs"] for level in info}
        found = dict(network.named_modules())
        # of timm's names some are no modules (MViT), one is the whole network (TResNet)
        names = [name for name in modules or channels if name and name in found]
        if not names or (modules and len(names) < len(modules)):
            listed = ", ".join(modules or channels) or "none"
            raise UsageError(
                f"the levels of {type(network).__name__} are said to be {listed}, but its modules "
                f"are {', '.join(name for name, _ in network.named_children())}, and those inside: "
                "its features cannot be mixed. Give another --model.arch or --mixing.method, or in "
                "your own code FeatureLevels(network, names of modules)."
            )
        if any(getattr(module, "grad_checkpointing", False) for module in found.values()):
            raise UsageError(
                "gradient checkpointing runs parts of the network again, unmixed: leave it off "
                "with methods that mix features"
            )
        self.network = network
        self.names = (IMAGE, *names)
        """By their number."""
        self._channels = channels
        self._level: str | None = None
        self._change: Callable[[Tensor], Tensor] | None = None
        self.waiting = 0
        """The id of what is to be entered by `forward`, or 0."""
        self._runs = 0
        self._shapes: dict[str, list[torch.Size | None]] | None = None
        self._known: dict[torch.Size, dict[str, list[torch.Size | None]]] = {}
        for name in self.names[1:]:
            found[name].register_forward_hook(partial(self._visit, name))

    @property
    def stem(self) -> tuple[str, ...]:
        """The levels before the stages: act1 of a ResNet."""
        return self.names[1:-4] if len(self.names) == 6 else ()

    @property
    def stages(self) -> tuple[str, ...]:
        """The last four levels, as of a ResNet; of a long row of blocks, the ends of its quarters.

        Networks of fewer levels have fewer.
        """
        levels = self.names[1:]
        if len(levels) > 5:
            return tuple(levels[len(levels) * part // 4 - 1] for part in (1, 2, 3, 4))
        return levels[-4:]

    def named(self, at: Sequence[str | int]) -> tuple[str, ...]:
        """The names of levels that are given by name or number.

        Raises:
            UsageError: the network has no such level.
        """
        numbers: dict[Any, str] = dict(enumerate(self.names))
        names = tuple(numbers.get(level, str(level)) for level in at)
        for name in names:
            if name not in self.names:
                listed = ", ".join(f"{number} {known}" for number, known in numbers.items())
                raise UsageError(
                    f"mixing.args.at has {name!r}; the levels of this {self._title} are {listed}"
                )
        return names

    def shape(self, level: str, images: Tensor) -> torch.Size:
        """Of the features of one image as large as `images` (N, C, H, W).

        Found once for each size of the images, in a pass of the plain network in evaluation mode.

        Raises:
            UsageError: the level gives no features that could be mixed.
        """
        size = images.shape[1:]
        if size not in self._known:
            dtype = next(self.network.parameters()).dtype
            self._shapes = {}
            with torch.no_grad(), evaluating(self.network):
                # not what is compiled: no graph for one image
                self.network.forward(torch.zeros_like(images[:1], dtype=dtype))
            self._known[size], self._shapes = self._shapes, None
        known = self._known[size]
        usable = [IMAGE, *(name for name, seen in known.items() if len(seen) == 1 and seen[0])]
        if level not in usable:
            raise UsageError(
                f"features of {level} cannot be mixed: this {self._title} "
                + _fault(known.get(level, []))
                + f". Give mixing.args.at levels of {', '.join(usable)}"
            )
        shape = known[level][0]
        assert shape is not None
        return shape

    def grid(self, level: str, images: Tensor) -> Grid:
        """The cells of a level; see `shape`.

        Raises:
            UsageError: its features have no places in the image.
        """
        shape = self.shape(level, images)
        if len(shape) == 4:
            if has_channels_last(self.network, shape, self._channels.get(level)):
                return Grid(shape[1], shape[2], "NHWC")
            return Grid(shape[2], shape[3], "NCHW")
        if len(shape) == 3:
            for prefix in (getattr(self.network, "num_prefix_tokens", 0), 0):
                if cells := token_grid(shape[1] - prefix, *images.shape[-2:]):
                    return Grid(*cells, "NLC", prefix)
        raise UsageError(
            f"features of {level} have shape {tuple(shape)}, which has no rows and columns of "
            f"{images.shape[-2]} x {images.shape[-1]} pixels. Give mixing.args.at other levels."
        )

    def begin(self, level: str, change: Callable[[Tensor], Tensor]) -> None:
        """From now on, the features of a level are changed.

        Raises:
            UsageError: those of another pass still are.
        """
        if self._change is not None:
            raise UsageError(
                f"features of {self._level} are being mixed in another pass of this network: run "
                "one pass after the other"
            )
        self._level, self._change, self._runs, self.waiting = level, change, 0, 0

    def end(self) -> int:
        """No longer; how often they were."""
        self._level = self._change = None
        return self._runs

    @property
    def _title(self) -> str:
        return type(self.network).__name__

    def _visit(self, name: str, module: nn.Module, inputs: Any, features: Any) -> Any:
        """The hook of a level."""
        if self._shapes is not None:
            shape = features.shape if isinstance(features, Tensor) else None
            self._shapes.setdefault(name, []).append(shape)
        if module.training and self.waiting:
            self.waiting = 0
            warn_of_plain_pass()
        if self._level != name or self._change is None:
            return None
        self._runs += 1
        return self._change(features)


@dataclass(frozen=True)
class LevelChange:
    """InNetwork: in the pass inside, `change` is applied to the features of a level."""

    levels: FeatureLevels
    level: str
    change: Callable[[Tensor], Tensor]
    """(N, ...) to (M, ...). An object whose tensors are its attributes: graphs take them as
    inputs."""

    def __post_init__(self) -> None:
        """A pass is to come."""
        self.levels.waiting = id(self)

    def __del__(self) -> None:
        """No longer: nobody has the batch, which was only looked at."""
        if self.levels.waiting == id(self):
            self.levels.waiting = 0

    def __enter__(self) -> None:
        """Set the level's hook to work."""
        self.levels.begin(self.level, self.change)

    def __exit__(self, failure: Any, *rest: object) -> None:
        """Let it rest; UsageError where it did not run once: the labels would not be those."""
        runs = self.levels.end()
        if failure is None and runs != 1:
            raise UsageError(
                f"features of {self.level} were mixed {runs} times in a pass, and not once: the "
                "network was changed, compiled or copied after its levels were hooked. Build it "
                "first, then FeatureLevels(network), then compile and wrap it."
            )

    def targets(self, mixed: Mixed) -> Tensor:
        """Known before."""
        return mixed.targets


def _fault(seen: list[torch.Size | None]) -> str:
    """Why features that were seen so cannot be mixed."""
    if not seen:
        return "does not run it, or it was replaced (as sync_batch_norm does to BatchNorm layers)"
    return "gives no single tensor there" if None in seen else f"runs it {len(seen)} times"
