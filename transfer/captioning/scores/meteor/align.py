"""Which of the possible matches of two sentences METEOR takes.

Each word may be in one match at most. Preferred are, in this order, many matched words, few chunks
(runs of matches that lie side by side in both sentences), and small distances of what is matched
(Denkowski and Lavie, WMT 2011, section 2.1). Matches that nothing competes with stand; for the
others a beam of 40 partial alignments goes through the second sentence.

Equally good alignments are common, so the order of the search decides, and these traits of METEOR
1.5 with it: words matched otherwise than exactly count half, rounded down for each side of a match,
so that one word by stem, synonym or paraphrase counts nothing; a chunk is counted when it ends; the
distance of a match is added to the alignment it extends, and so to the alternatives tried after it,
not to the one it makes.
"""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, NamedTuple

_BEAM = 40
# an alignment's rank, smaller is better: matched words, then chunks, then distance
_CHUNK = 1 << 30
_WORD = 1 << 60


class Match(NamedTuple):
    """A possible match of words of sentence one with words of sentence two."""

    start_two: int
    start_one: int
    end_two: int
    end_one: int
    words_one: int
    """Its words as bits."""
    words_two: int
    gain: int
    """How many words it counts for."""
    definite: bool
    """Nothing else touches its words."""


# rank, used words of sentence one and two (as bits), ends of the open chunk in both (-1 for none),
# the first free position of sentence two, and the matches taken (a linked list)
_Path = list[Any]
_RANK, _USED_ONE, _USED_TWO, _END_ONE, _END_TWO, _NEXT, _TAKEN = range(7)
_by_rank = itemgetter(_RANK)


def align(matches: Sequence[Match]) -> list[int]:
    """The indices of the matches that are taken.

    `matches` are sorted by `start_two`; where they begin together, in the order they were found.
    """
    used_one = used_two = 0
    for match in matches:
        if match.definite:
            used_one |= match.words_one
            used_two |= match.words_two
    paths: list[_Path] = [[0, used_one, used_two, -1, -1, 0, None]]
    first, before = 0, -1
    while first < len(matches):
        position = matches[first].start_two
        last = first + 1
        while last < len(matches) and matches[last].start_two == position:
            last += 1
        _pass_over(paths, before + 1, position)
        following: list[_Path] = []
        for path in paths:
            if path[_NEXT] > position:
                following.append(path)
            elif matches[first].definite:
                following.append(_extend(path, matches[first], first))
            else:
                for index in range(first, last):
                    match = matches[index]
                    if not (path[_USED_ONE] & match[4] or path[_USED_TWO] & match[5]):
                        following.append(_extend(path, match, index))
                        path[_RANK] += abs(match[0] - match[1])
                _close_chunk(path)
                following.append(path)
        following.sort(key=_by_rank)
        paths = following[:_BEAM]
        first, before = last, position
    _pass_over(paths, before + 1, max(path[_NEXT] for path in paths))
    for path in paths:
        _close_chunk(path)
    taken, link = [], min(paths, key=_by_rank)[_TAKEN]
    while link is not None:
        index, link = link
        taken.append(index)
    return taken


def _pass_over(paths: list[_Path], begin: int, end: int) -> None:
    """Positions where no match begins: chunks that stop there end."""
    for position in range(begin, end):
        if all(path[_END_ONE] < 0 for path in paths):
            return
        for path in paths:
            if path[_NEXT] <= position:
                _close_chunk(path)
        paths.sort(key=_by_rank)


def _extend(path: _Path, match: Match, index: int) -> _Path:
    start_two, start_one, end_two, end_one, words_one, words_two, gain, _ = match
    rank = path[_RANK] - gain * _WORD
    if path[_END_ONE] >= 0 and (path[_END_ONE] != start_one or path[_END_TWO] != start_two):
        rank += _CHUNK
    used_one, used_two = path[_USED_ONE] | words_one, path[_USED_TWO] | words_two
    return [rank, used_one, used_two, end_one, end_two, end_two, (index, path[_TAKEN])]


def _close_chunk(path: _Path) -> None:
    """End the open chunk, if there is one."""
    if path[_END_ONE] >= 0:
        path[_RANK] += _CHUNK
        path[_END_ONE] = path[_END_TWO] = -1
