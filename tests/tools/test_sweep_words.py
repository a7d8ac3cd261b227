"""What the page of a sweep says: numbers and units, one and many."""

import pytest

from pretrain.errors import UsageError
from tests.tools.test_sweep import TINY, TWO_ARMS, made, opened
from tools.support.sweep.page import to_html, to_markdown


def short(folder, states: str, **changes) -> dict:
    """A sweep of one epoch."""
    result = made(TINY | {"rungs": [], **changes}, states, folder)
    result["stops"] = [1]
    return result


def test_one_is_no_plural(tmp_path):
    one = short(tmp_path, "c", trials=1, finals=[], arms={"none": TWO_ARMS["none"]})
    page = to_html(one)
    assert "1 arm of 1 trial · top1 in % after 1 epoch ·" in page
    lost = to_html(short(tmp_path, "d", trials=1, finals=[]))
    assert "1 of 1 trial diverged (0); it counts as the worst" in lost
    some = to_html(short(tmp_path, "dd", trials=2, finals=[]))
    assert "2 of 2 trials diverged (0, 1); each counts as the worst" in some


def test_one_trial_is_not_chosen(tmp_path):
    assert "flatters" in to_markdown(made(TINY | {"finals": [1, 2]}, "cp", tmp_path))
    one = TINY | {"trials": 1, "rungs": [], "finals": [1, 2]}
    assert "flatters" not in to_markdown(made(one, "c", tmp_path))


def test_percent_stands_behind_a_space_and_a_loss_has_none(tmp_path):
    table = to_markdown(made(TINY | {"keep": 0.125, "rungs": [1]}, "cp", tmp_path))
    assert "the better 12.5 % go on" in table
    assert "(top1 in %, of the last epoch)" in table
    loss = to_markdown(made(TINY | {"metric": "val_loss"}, "cp", tmp_path))
    assert "(val_loss, of the last epoch)" in loss


@pytest.mark.parametrize(("seeds", "said"), [(2, "too few"), (3, "no spread")])
def test_a_test_that_cannot_be_made_says_why(seeds, said, tmp_path):
    table = to_markdown(made(TINY | {"finals": [*range(1, 1 + seeds)]}, "cc", tmp_path))
    assert table.count(f" {said} |") == 1
    few = "(95 %, n = 2 pairs of seeds), no difference can be shown by fewer than 3 pairs."
    assert (few in table) == (seeds == 2)
    assert ("an interval without 0" in table) == (seeds == 3)


def test_a_range_that_is_none_is_named_with_its_option(tmp_path):
    wrong = {"optimizer.lr": {"low": -1.0, "high": 1.0, "log": True}}
    arms = {"none": TWO_ARMS["none"] | {"space": wrong}}
    for changes, place in (({"space": wrong}, "space"), ({"arms": arms}, "arms.none.space")):
        with pytest.raises(UsageError, match=rf"sweep\.yaml: {place}\.optimizer\.lr: low is -1\.0"):
            made(TINY | changes, "c", tmp_path)


def test_one_epoch_has_no_room_for_a_rung(tmp_path):
    options = TINY["options"] | {"epochs": 1}
    sweep = opened(tmp_path, TINY | {"options": options, "rungs": [1]})
    with pytest.raises(UsageError, match="but a trial has 1 epoch; every rung"):
        sweep.check()


def test_the_time_of_the_finals_counts(tmp_path):
    result = made(TINY | {"finals": [1, 2, 3]}, "cp", tmp_path)  # two arms of 2 + 3, 5 s each
    assert "· 50 s of computing ·" in to_html(result)
