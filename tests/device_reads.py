"""Counts how often a step waits for its device, on a machine that has none.

What lies on the device is followed from tensor to tensor by its memory: what was moved there (`.to`
with a device, a `device=`), and all that is computed from it. A value of it that Python asks for
would stop the host until the device has computed all before it.
"""

import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
# a value as a Python number (also of bool() and float()), and shapes that depend on values
_WAITING = {
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten.unique_dim,
    aten._unique2,
    aten.unique_consecutive,
    aten.bincount,
    aten.repeat_interleave,
    aten.equal,
    aten.is_nonzero,
}
_TO_HOST = {Tensor.cpu, Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.__contains__}


class DeviceReads:
    """What was read from the device, each with the line that did so."""

    def __init__(self) -> None:
        self.places: list[str] = []
        self._memory: dict[int, Any] = {}  # kept, so that no address is met twice

    def __len__(self) -> int:
        return len(self.places)

    def put(self, value: Any) -> None:
        """These tensors lie on the device."""
        for leaf in tree_leaves(value):
            if isinstance(leaf, Tensor) and leaf.layout is torch.strided:
                storage = leaf.untyped_storage()
                self._memory[storage._cdata] = storage

    def holds(self, value: Any) -> bool:
        """Whether any of these tensors lies on the device."""
        return any(
            leaf.untyped_storage()._cdata in self._memory
            for leaf in tree_leaves(value)
            if isinstance(leaf, Tensor) and leaf.layout is torch.strided
        )

    def note(self, what: str) -> None:
        """A value was read."""
        frames = [f for f in traceback.extract_stack() if "/pretrain/" in f.filename]
        frames = [f for f in frames if "/tests/" not in f.filename] or traceback.extract_stack()[
            -9:
        ]
        self.places.append(f"{what} at {frames[-1].filename}:{frames[-1].lineno}")


class _Functions(TorchFunctionMode):
    def __init__(self, reads: DeviceReads) -> None:
        super().__init__()
        self.reads = reads

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, reads = kwargs or {}, self.reads
        if func in _TO_HOST and reads.holds(args[0]):
            reads.note(func.__name__)
        to_device = any(isinstance(a, torch.device) for a in (*args[1:], *kwargs.values()))
        if func is Tensor.to and "cpu" in args[1:] and reads.holds(args[0]):
            reads.note("to")
        result = func(*args, **kwargs)
        if to_device:
            result = result.clone() if func is Tensor.to and result is args[0] else result
            reads.put(result)
        return result


class _Operators(TorchDispatchMode):
    def __init__(self, reads: DeviceReads) -> None:
        super().__init__()
        self.reads = reads

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, reads = kwargs or {}, self.reads
        if is_there := reads.holds((args, kwargs)):
            indices = args[1] if func.overloadpacket in (aten.index, aten.index_put_) else ()
            by_mask = any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices)
            if func.overloadpacket in _WAITING or by_mask:
                reads.note(str(func))
        result = func(*args, **kwargs)
        if is_there:
            reads.put(result)
        return result


@contextmanager
def counted(reads: DeviceReads, *modules: nn.Module) -> Iterator[DeviceReads]:
    """Count within this block; parameters and buffers of the modules lie on the device."""
    for module in modules:
        reads.put([*module.parameters(), *module.buffers()])
    with ExitStack() as stack:
        stack.enter_context(_Operators(reads))
        stack.enter_context(_Functions(reads))
        yield reads
