"""An image in a shard, for code that takes images by their paths."""

from typing import NamedTuple

from pretrain.shards.reader import ShardReader


class ShardedImage(NamedTuple):
    """In the place of a path: its bytes and its name."""

    reader: ShardReader
    number: int

    @property
    def name(self) -> str:
        """Of the file that it was."""
        return self.path.rpartition("/")[2]

    @property
    def path(self) -> str:
        """What it had in its split: CLASS/NAME.JPEG."""
        return self.reader.index.name(self.number)

    def __str__(self) -> str:
        return f"{self.reader.index.path.with_suffix('')}/{self.path}"

    def read_bytes(self) -> bytes:
        """Its file's content; UsageError where it cannot be read, see `ShardReader.read`."""
        return self.reader.read(self.number)
