"""Virtual environments for the packages that are measured: pinned, each in its own folder."""

import site
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def make_environment(
    folder: Path, requirements: Sequence[str], borrow: bool = False, alone: Sequence[str] = ()
) -> Path:
    """The Python of an environment with these packages; made where it is missing.

    Args:
        folder: where it lies, or will.
        requirements: PyPI names with versions.
        borrow: what it lacks (torch) is taken from the environment that runs this.
        alone: these without what they ask for.

    Raises:
        subprocess.CalledProcessError: pip found no way; its last line is the reason.
    """
    python, done = folder / "bin" / "python", folder / "installed.txt"
    wanted = "\n".join([*requirements, *alone])
    if done.is_file() and done.read_text(encoding="utf-8") == wanted:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    if borrow:
        (packages,) = folder.glob("lib/python*/site-packages")
        (packages / "borrowed.pth").write_text("\n".join(site.getsitepackages()), "utf-8")
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    print(f"installing {', '.join([*requirements, *alone])}", file=sys.stderr)
    subprocess.run([*command, *requirements], check=True, capture_output=True, text=True)
    if alone:
        command += ["--no-deps"]
        subprocess.run([*command, *alone], check=True, capture_output=True, text=True)
    done.write_text(wanted, encoding="utf-8")
    return python


def reason(error: subprocess.CalledProcessError) -> str:
    """What the program that failed said last."""
    lines = [line for line in (error.stderr or "").splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"exit status {error.returncode}"
