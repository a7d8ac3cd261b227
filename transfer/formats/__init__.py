"""Other libraries' checkpoints: `read` takes any of them in, `write` writes their formats.

- files: what kind of file it is, read without code and within its own size
- distributed: folders of torch.distributed.checkpoint
- layouts: where the weights are in it, and what it says of itself
- architectures: which network names and shapes belong to
- sources: how a network is fed, where the file does not say so
- assumptions: what neither names nor shapes say, settled, asked for or assumed
- parsing: all of that to a backbone, verified by strict loading
- sidecar: the metadata that travels with an export
- writing: other libraries' formats, compared there before a file gets its name
"""

from transfer.formats.reading import is_ours, locate, read
from transfer.formats.sources import Overrides
from transfer.formats.writing import write

__all__ = ["Overrides", "is_ours", "locate", "read", "write"]
