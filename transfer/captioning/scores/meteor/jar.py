"""METEOR by its jar: a second opinion, for those who have Java."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pretrain.errors import UsageError
from transfer.captioning.scores.arrays import Ints
from transfer.captioning.scores.meteor.data import HOW_TO_GET_IT, JAR, find_folder
from transfer.captioning.scores.meteor.score import COLUMNS
from transfer.captioning.scores.tokenizer import TokenIds


class MeteorJar:
    """The jar of an installed pycocoevalcap, or of a METEOR folder.

    Args:
        folder: holds meteor-1.5.jar and data/paraphrase-en.gz.
        timeout: seconds that one scoring may take; loading the table alone takes some ten.

    Raises:
        UsageError: no Java, or no jar.
    """

    def __init__(self, folder: Path | None = None, timeout: float = 600) -> None:
        if (java := shutil.which("java")) is None:
            raise UsageError(
                "there is no Java (no program java); METEOR works without the jar too."
            )
        folder = folder or find_folder()
        if folder is None or not (folder / JAR).exists():
            raise UsageError(f"there is no {JAR} in {folder}. {HOW_TO_GET_IT}")
        self._folder, self._timeout = folder, timeout
        self._command = [java, "-Xmx2G", "-Dfile.encoding=UTF-8", "-jar", JAR, "-", "-", "-stdio"]

    def prepare(self, captions: TokenIds, names: Sequence[str], sizes: Ints) -> "JarReferences":
        """Keep the references; the jar reads them at every scoring."""
        texts = iter(_texts(captions, names))
        return JarReferences(self, [[next(texts) for _ in range(size)] for size in sizes])

    def ask(self, lines: Sequence[str]) -> list[str]:
        """The jar's answer to each line of its -stdio protocol.

        Raises:
            UsageError: it takes longer than the time-out, or ends otherwise than it should.
        """
        text = "".join(f"{line}\n" for line in lines)
        try:
            done = subprocess.run(
                [*self._command, "-l", "en", "-norm"],
                input=text.encode("utf-8", "surrogatepass"),
                capture_output=True,
                cwd=self._folder,
                timeout=self._timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise UsageError(
                f"METEOR's jar took longer than {self._timeout:g} seconds for {len(lines)} lines "
                "and was ended. Give it more time, or leave the jar out."
            ) from error
        answers = done.stdout.decode("utf-8", "replace").split("\n")[:-1]
        if done.returncode or len(answers) < len(lines):
            *_, message = "nothing", *done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise UsageError(
                f"METEOR's jar answered {len(answers)} of {len(lines)} lines and ended with code "
                f"{done.returncode}; it said: {message}"
            )
        return answers


class JarReferences:
    """References as text, for the jar."""

    def __init__(self, jar: MeteorJar, references: list[list[str]]) -> None:
        self._jar, self._references = jar, references

    def sufficient_stats(self, captions: TokenIds, names: Sequence[str], image: Ints) -> Ints:
        """(C, 23) the jar's counts of each caption beside the reference that suits it best."""
        texts = [text.replace("|||", "").replace("  ", " ") for text in _texts(captions, names)]
        lines = [
            " ||| ".join(["SCORE", *self._references[number], text])
            for text, number in zip(texts, image.tolist(), strict=True)
        ]
        answers = self._jar.ask(lines)
        try:
            rows = np.array([[float(word) for word in line.split()] for line in answers])
            return rows.reshape(len(lines), COLUMNS).astype(np.int64)
        except ValueError as error:
            raise UsageError(f"METEOR's jar gave no counts but {answers[0]!r:.80}") from error


def _texts(captions: TokenIds, names: Sequence[str]) -> list[str]:
    words = iter(captions.words.tolist())
    return [" ".join(names[next(words)] for _ in range(count)) for count in captions.counts]
