"""Short pieces of text to numbers, millions at a time, on their bytes."""

import numpy as np

from transfer.captioning.scores.arrays import Ints

_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))
_FIRST_BYTES = np.array([(1 << 8 * length) - 1 for length in range(9)], np.uint64)
LONGEST = 16  # bytes behind the last piece that a text must have


class Pieces(dict[str, int]):
    """From a piece of text to its number; `__missing__` numbers a new one.

    Beside the dictionary stands a table for pieces of up to 16 bytes: the bytes as two integers, in
    the slot that a hash of them names, and the number. A piece whose slot another one has taken is
    looked up in the dictionary.
    """

    def __init__(self, slot_bits: int = 17) -> None:
        super().__init__()
        self._slot_bits = slot_bits
        self._keys = np.zeros((2, 1 << slot_bits), np.uint64)
        self._numbers = np.full(1 << slot_bits, -1)

    def __missing__(self, piece: str) -> int:
        self[piece] = number = len(self)
        return number

    def find(self, text: bytes, starts: Ints, lengths: Ints) -> Ints:
        """The numbers of the pieces text[start : start + length].

        Pieces hold no zero bytes; behind the last one `text` goes on for LONGEST bytes.
        """
        eights = np.ndarray((len(text) - 7,), "<u8", text, strides=(1,))
        low = eights[starts] & _FIRST_BYTES[np.minimum(lengths, 8)]
        high = np.zeros_like(low)
        longer = np.flatnonzero(lengths > 8)
        rest = np.minimum(lengths[longer] - 8, 8)
        high[longer] = eights[starts[longer] + 8] & _FIRST_BYTES[rest]
        mixed = (low * _MIX[0]) ^ (high * _MIX[1])
        slots = (mixed >> np.uint64(64 - self._slot_bits)).astype(np.int64)

        def look(places: Ints) -> Ints:
            slot = slots[places]
            same = (self._keys[0][slot] == low[places]) & (self._keys[1][slot] == high[places])
            return np.where(same, self._numbers[slot], -1)

        def piece(place: int) -> str:
            start = int(starts[place])
            return text[start : start + int(lengths[place])].decode("utf-8", "surrogatepass")

        numbers = look(np.arange(len(starts)))
        numbers[lengths > LONGEST] = -1
        new = np.flatnonzero((numbers < 0) & (lengths <= LONGEST) & (self._numbers[slots] < 0))
        if len(new):
            first = np.full(1 << self._slot_bits, -1)
            first[slots[new[::-1]]] = new[::-1]  # of each free slot, the first piece that wants it
            settlers = np.sort(first[first >= 0])
            self._numbers[slots[settlers]] = [self[piece(place)] for place in settlers.tolist()]
            self._keys[0][slots[settlers]] = low[settlers]
            self._keys[1][slots[settlers]] = high[settlers]
            numbers[new] = look(new)
        for place in np.flatnonzero(numbers < 0).tolist():
            numbers[place] = self[piece(place)]
        return numbers
