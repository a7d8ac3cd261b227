"""The jar as a second opinion on METEOR."""

import stat

import pytest

from pretrain.errors import UsageError
from tests.transfer.scores.reference import why_not
from transfer.captioning.scores import References, score
from transfer.captioning.scores.meteor.jar import MeteorJar
from transfer.captioning.scores.summary import corpus_scores

with_java = pytest.mark.skipif(why_not() is not None, reason=f"the jar: {why_not()}")


@with_java
def test_the_jar_says_the_same(own, meteor):
    wanted, said, scored = own
    by_jar, here = (
        References(wanted, meteor=backend).sufficient_stats(list(said), list(said.values()))
        for backend in (MeteorJar(), meteor)
    )
    assert by_jar.meteor.tolist() == here.meteor.tolist()
    assert corpus_scores(by_jar)["METEOR"] == pytest.approx(scored["corpus"]["METEOR"], abs=1e-9)


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A function that puts a shell script in Java's place; the METEOR folder to go with it."""

    def put(script: str):
        java = tmp_path / "bin" / "java"
        java.parent.mkdir(exist_ok=True)
        java.write_text(f"#!/bin/sh\n{script}\n")
        java.chmod(java.stat().st_mode | stat.S_IEXEC)
        monkeypatch.setenv("PATH", f"{java.parent}:/usr/bin:/bin")
        (tmp_path / "meteor-1.5.jar").touch()
        return tmp_path

    return put


def test_a_jar_that_hangs_is_ended(program):
    jar = MeteorJar(program("exec sleep 30"), timeout=0.3)
    with pytest.raises(
        UsageError, match=r"took longer than 0\.3 seconds for 1 lines and was ended"
    ):
        score({1: ["a"]}, {1: "a"}, meteor=jar)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo no memory >&2; exit 3", "answered 0 of 1 lines and ended with code 3; .* no memory"),
        ("exit 0", "answered 0 of 1 lines and ended with code 0; it said: nothing"),
        ("cat >/dev/null; echo 1 2 3; exit 3", "answered 1 of 1 lines and ended with code 3"),
        ("cat >/dev/null; echo 1 2 3", "gave no counts but '1 2 3'"),
        ("cat >/dev/null; echo Error", "gave no counts but 'Error'"),
    ],
)
def test_a_jar_that_does_not_answer(script, words, program):
    with pytest.raises(UsageError, match=words):
        score({1: ["a"]}, {1: "a"}, meteor=MeteorJar(program(script)))


def test_where_there_is_no_java_or_no_jar(tmp_path, program, monkeypatch):
    folder = program("exit 0")
    (folder / "meteor-1.5.jar").unlink()
    with pytest.raises(UsageError, match=r"no meteor-1\.5\.jar in .* pip install"):
        MeteorJar(folder)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(UsageError, match="there is no Java"):
        MeteorJar(folder)
