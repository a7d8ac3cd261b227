"""Which of the possible matches of two sentences METEOR takes.

Each word may be in one match at most. Wanted are, in this order, many matched words, few chunks (runs of matches that lie side by side in both sentences), and small distances of
what is matched (Denkowski and Lavie, WMT 2011, section 2.1). Matches that nothing competes with
stand; for the others a beam of 40 partial alignments goes through the second sentence.

Equally good alignments are common, so the order of the search decides, and these traits of METEOR
1.5 with it: words matched otherwise than exactly count half, rounded down for each side of a match,
so that one word by stem, synonym or paraphrase counts nothing; a chunk is counted when it ends; the
distance of a match is added to the alignment it extends, and so to the alternatives tried after it,
not to the one it makes.
"""

from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple

_BEAM = 40
# an alignment's rank, smaller is better: matched words, then chunks, then distance
_CHUNK = 1 << 30
_WORD = 1 << 60


class Match(NamedTuple):
    """Words `start_one` to `start_one + length_one` with those of the other sentence."""

    start_one: int
    length_one: int
    start_two: int
    length_two: int
    gain: int
    """How many words it counts for."""
    definite: bool
    """Nothing else touches its words."""


# rank, used words of sentence one and two (as bits), ends of the open chunk in both (-1 for none),
# the first free place of sentence two, and the matches taken (a linked list)
_Path = list
_RANK, _USED_ONE, _USED_TWO, _END_ONE, _END_TWO, _NEXT, _TAKEN = range(7)


def align(matches: Sequence[Match], length_two: int) -> list[int]:
    """The places of the matches that are taken.

    Args:
        matches: sorted by `start_two`; where they begin together, in the order they were found.
        length_two: words of the second sentence.
    """
    used_one = used_two = 0
    for match in matches:
        if match.definite:
            used_one |= _bits(match.start_one, match.length_one)
            used_two |= _bits(match.start_two, match.length_two)
    paths: list[_Path] = [[0, used_one, used_two, -1, -1, 0, None]]
    first, open_chunk = 0, False
    for place in range(length_two):
        last = first
        while last < len(matches) and matches[last].start_two == place:
            last += 1
        if first == last and not open_chunk and all(path[_NEXT] <= place for path in paths):
            continue  # nothing begins here and nothing ends
        following: list[_Path] = []
        for path in paths:
            if path[_NEXT] > place:
                following.append(path)
            elif last > first and matches[first].definite:
                following.append(_extended(path, matches[first], first, 0, 0))
            else:
                for number in range(first, last):
                    match = matches[number]
                    one = _bits(match.start_one, match.length_one)
                    two = _bits(match.start_two, match.length_two)
                    if not (path[_USED_ONE] & one or path[_USED_TWO] & two):
                        following.append(_extended(path, match, number, one, two))
                        path[_RANK] += abs(match.start_one - match.start_two)
                _close(path)
                following.append(path)
        following.sort(key=itemgetter(_RANK))
        paths = following[:_BEAM]
        open_chunk = any(path[_END_ONE] >= 0 for path in paths)
        first = last
    for path in paths:
        _close(path)
    paths.sort(key=itemgetter(_RANK))
    taken, link = [], paths[0][_TAKEN]
    while link is not None:
        number, link = link
        taken.append(number)
    return taken


def _extended(path: _Path, match: Match, number: int, one: int, two: int) -> _Path:
    rank = path[_RANK] - match.gain * _WORD
    is_open = path[_END_ONE] >= 0
    goes_on = path[_END_ONE] == match.start_one and path[_END_TWO] == match.start_two
    if is_open and not goes_on:
        rank += _CHUNK
    end_two = match.start_two + match.length_two
    return [
        rank,
        path[_USED_ONE] | one,
        path[_USED_TWO] | two,
        match.start_one + match.length_one,
        end_two,
        end_two,
        (number, path[_TAKEN]),
    ]


def _close(path: _Path) -> None:
    """End the chunk that is open, if one is."""
    if path[_END_ONE] >= 0:
        path[_RANK] += _CHUNK
        path[_END_ONE] = path[_END_TWO] = -1


def _bits(start: int, length: int) -> int:
    return ((1 << length) - 1) << start
