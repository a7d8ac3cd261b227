"""Raw pickles: plain values and arrays come back, everything else is refused."""

import builtins
import os
import pickle
import resource
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from pretrain import safe_pickle, torch_file
from pretrain.cache import file_sha256
from pretrain.errors import UsageError

CONTENT = {
    "name": "batch 1",
    "labels": [3, 1, 2],
    "data": np.arange(24, dtype=np.uint8).reshape(2, 12),
    "weights": OrderedDict(conv1=np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "scalar": np.float64(0.25),
    "raw": b"\x00\xff",
    "nothing": None,
}


def equal(one, two) -> bool:
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(equal(one[key], two[key]) for key in one)
    return np.array_equal(one, two) and getattr(one, "dtype", None) == getattr(two, "dtype", None)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_plain_values_and_arrays_come_back(protocol, tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(CONTENT, protocol))
    assert equal(safe_pickle.load(path), pickle.loads(path.read_bytes()))


def test_a_pickle_of_python_2(tmp_path):
    """Byte strings (SHORT_BINSTRING) and numpy.core, as the CIFAR files hold them."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR(K\x01K\x01K\x03\x86"
        b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x03\x01\x02\xfftb"
    )
    path = tmp_path / "python2.pkl"
    path.write_bytes(b"\x80\x02}(U\x04dataq\x01" + array + b"U\x06labelsq\x02](K\x05K\x06eu.")
    content = safe_pickle.load(path)
    assert content["data"].tolist() == [[1, 2, 255]]
    assert content["labels"] == [5, 6]
    assert set(safe_pickle.load(path, encoding="bytes")) == {b"data", b"labels"}


class Call:
    def __init__(self, function, *arguments):
        self.parts = (function, arguments)

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (Call(print, "code was run"), r"(__builtin__|builtins)\.print"),
        (Call(eval, "1"), r"(__builtin__|builtins)\.eval"),
        ({"a": [Call(getattr, {}, "clear")]}, r"(__builtin__|builtins)\.getattr"),
        (torch.zeros(1), "torch"),
        (np.array([object], dtype=object), "object"),
        (Call(np.dtype, "O"), "object"),
        (Call(np.dtype, "V8"), r"\|V8"),
        (Call(np.fromfile, "x"), "fromfile"),
    ],
)
def test_what_needs_code_is_refused_by_name(content, named, tmp_path, capsys):
    path = tmp_path / "trap.pkl"
    for protocol in (0, 2, 4):
        path.write_bytes(pickle.dumps(content, protocol))
        with pytest.raises(UsageError, match=rf"{named}.*can run code"):
            safe_pickle.load(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"not a pickle",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x0f.",  # BINBYTES8 of 2**60 bytes
        b"\x80\x02T\xff\xff\xff\x7fab.",  # BINSTRING of 2 GiB
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x0f.",  # FRAME of 2**60 bytes
        b"\x80\x02\x8a\xff" + b"1" * 10,  # LONG1 cut short
        b"\x80\x02cos\nsystem\n(X\x02\x00\x00\x00lstR.",
        b"\x80\x63.",
        b"(((((((",
        b"\x80\x02h\x05.",
    ],
    ids=range(10),
)
def test_torn_and_lying_streams(stream, tmp_path):
    path = tmp_path / "torn.pkl"
    path.write_bytes(stream)
    before = peak_kib()
    with pytest.raises(UsageError, match=r"torn\.pkl"):
        safe_pickle.load(path)
    assert peak_kib() - before < 100_000


@pytest.mark.parametrize(
    "stream",
    [
        b"\x80\x02]r\xff\xff\xff\x7f.",  # LONG_BINPUT: place 2**31 of the memo
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(J\xff\xff\xff\x7ftU\x01btR.",
    ],
    ids=["memo", "shape"],
)
def test_what_is_announced_is_not_reserved(stream, tmp_path):
    path = tmp_path / "announced.pkl"
    path.write_bytes(stream)
    before = peak_kib()
    assert len(safe_pickle.load(path)) == 0
    assert peak_kib() - before < 100_000


def peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_every_cut_of_a_good_file_is_refused(tmp_path):
    whole = pickle.dumps(CONTENT, 2)
    path = tmp_path / "cut.pkl"
    for length in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(UsageError, match="cut short"):
            safe_pickle.load(path)


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(UsageError, match="there is no file"):
        safe_pickle.load(tmp_path / "none.pkl")
    with pytest.raises(UsageError, match="is a folder"):
        safe_pickle.load(tmp_path)
    for read in (safe_pickle.load, torch_file.read, file_sha256):
        with pytest.raises(UsageError, match=f"^{os.devnull} is a pipe or a device"):
            read(Path(os.devnull))


def test_the_list_names_nothing_that_opens_or_runs():
    allowed = {function for function in safe_pickle._ALLOWED.values()}
    assert not allowed & {getattr(builtins, name) for name in ("eval", "exec", "open", "getattr")}
    assert np.ndarray not in allowed
