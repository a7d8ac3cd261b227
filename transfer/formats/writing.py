"""Out through the border: written beside its place, proved, and only then given its name."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from pretrain.models import register
from pretrain.run import write_text
from transfer.formats import passports, to_detectron2, to_onnx, to_timm
from transfer.formats.files import sha256
from transfer.formats.proof import Proof, Unproved
from transfer.formats.to_detectron2 import Head

Format = Literal["detectron2", "torchvision", "timm", "safetensors", "onnx", "backbone"]
FORMATS: tuple[Format, ...] = get_args(Format)
SUFFIX: dict[Format, str] = {
    "detectron2": ".pkl",
    "torchvision": ".pth",
    "timm": "",
    "safetensors": ".safetensors",
    "onnx": ".onnx",
    "backbone": ".pth",
}


@dataclass(frozen=True)
class Written:
    """What an export left."""

    files: tuple[Path, ...]
    proofs: tuple[Proof, ...]
    notes: tuple[str, ...] = field(default=())


def write(
    backbone: Backbone,
    to: Format,
    path: str | Path,
    *,
    heads: Sequence[Head] | None = None,
    python: str | None = None,
    unproved: bool = False,
) -> Written:
    """Write a backbone in another library's format and prove it there, or write nothing.

    Args:
        backbone: the network.
        to: the format.
        path: the file (for timm: the folder). It must not exist.
        heads: for detectron2: a YAML for each; None writes all that are possible.
        python: for detectron2: the interpreter of the environment where it is installed.
        unproved: write without a proof where the other library is missing and no test of ours has
            proved the mapping of this architecture.

    Raises:
        UsageError: the format cannot hold this network, or the proof does not hold.
    """
    path = Path(path)
    check(backbone, to, path, heads)
    with _beside(path) as draft:
        match to:
            case "detectron2":
                return _detectron2(backbone, path, draft, heads, python, unproved)
            case "timm":
                to_timm.write_timm(backbone, draft)
                proof = to_timm.prove_timm(backbone, draft)
                _hold(proof)
                weights = sha256(draft / "model.safetensors")
                passport = passports.issue(backbone, [proof.plain()], sha256=weights)
                to_timm.add_passport(draft, passport)
                os.replace(draft, path)
                return Written((path,), (proof,))
            case "torchvision":
                file = draft / path.name
                to_timm.write_torchvision(backbone, file)
                proof = to_timm.prove_torchvision(backbone, file)
                _hold(proof)
                return _with_companion(backbone, file, path, proof)
            case "safetensors":
                file = draft / path.name
                to_timm.write_safetensors(backbone, file, passports.issue(backbone, None))
                proof = to_timm.prove_safetensors(backbone, file)
                _hold(proof)
                to_timm.write_safetensors(
                    backbone, file, passports.issue(backbone, [proof.plain()])
                )
                os.replace(file, path)
                return Written((path,), (proof,))
            case "onnx":
                return _onnx(backbone, path, draft, unproved)
            case "backbone":
                file = draft / path.name
                backbone.save(file)
                again = Backbone.load(file).fingerprint()
                if again != backbone.fingerprint():
                    raise UsageError(f"{path} would read back as {again}; nothing was written.")
                os.replace(file, path)
                return Written((path,), (), ("read back: the same fingerprint",))


def check(backbone: Backbone, to: Format, path: Path, heads: Sequence[Head] | None = None) -> None:
    """Refuse what cannot be written, before anything is."""
    register()
    if to not in FORMATS:
        raise UsageError(f"--to has {to!r}; it must be of {', '.join(FORMATS)}.")
    if path.exists():
        raise UsageError(f"{path} exists. Give another --out, or remove it.")
    wanted = SUFFIX[to]
    if wanted and path.suffix != wanted:
        raise UsageError(f"--out is {path}; a file for {to} ends in {wanted}.")
    if to == "timm" and path.suffix in set(SUFFIX.values()) - {""}:
        raise UsageError(f"--out is {path}; timm's layout is a folder: give a name without ending.")
    match to:
        case "detectron2":
            to_detectron2.heads_of(backbone, heads)
        case "timm":
            to_timm.refuse_ours(backbone)
        case "torchvision":
            to_timm.torchvision_network(backbone, device="meta")
        case _:
            pass


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A draft folder next to `path`, gone afterwards whatever happens."""
    made = [folder for folder in path.parents if not folder.exists()]
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.mkdir(parents=True)
        yield draft
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        for folder in made:  # innermost first: what this call made and left empty
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _hold(*proofs: Proof) -> None:
    if not all(proof.holds for proof in proofs):
        raise Unproved(list(proofs))


def _with_companion(backbone: Backbone, file: Path, path: Path, proof: Proof) -> Written:
    """A bare file and FILE.json, which says what it is as long as its hash fits."""
    companion = path.with_suffix(".json")
    if companion.exists():
        raise UsageError(f"{companion} exists. Give another --out, or remove it.")
    passport = passports.issue(backbone, [proof.plain()], sha256=sha256(file))
    write_text(companion, passports.text(passport))
    os.replace(file, path)
    return Written((path, companion), (proof,))


def _onnx(backbone: Backbone, path: Path, draft: Path, unproved: bool) -> Written:
    file = draft / path.name
    to_onnx.write_onnx(backbone, file)
    proof = to_onnx.prove_onnx(backbone, file)
    if proof is None and not unproved:
        raise UsageError(
            "onnxruntime is missing, so the graph cannot be proved: pip install onnxruntime, or "
            "give --unproved."
        )
    if proof is not None:
        _hold(proof)
    os.replace(file, path)
    notes = () if proof else ("UNPROVED: onnxruntime is missing",)
    return Written((path,), (proof,) if proof else (), notes)


def _detectron2(
    backbone: Backbone,
    path: Path,
    draft: Path,
    heads: Sequence[Head] | None,
    python: str | None,
    unproved: bool,
) -> Written:
    chosen = to_detectron2.heads_of(backbone, heads)
    finals = {head: path.with_name(f"{path.stem}-{head}.yaml") for head in chosen}
    for final in finals.values():
        if final.exists():
            raise UsageError(f"{final} exists. Give another --out, or remove it.")
    weights = draft / path.name
    configs = {head: draft / final.name for head, final in finals.items()}

    def put(proof: list[dict[str, object]] | str, notes: str) -> None:
        to_detectron2.write_weights(backbone, weights, passports.issue(backbone, proof))
        for head, config in configs.items():
            to_detectron2.write_config(backbone, head, config, path.absolute(), notes)

    put("none yet", "")
    proofs = to_detectron2.prove(backbone, weights, configs, python)
    arch = backbone.spec.arch
    if proofs is not None:
        _hold(*proofs)
        note = f"Proved against {proofs[0].target.rpartition(',')[0]}."
        put([proof.plain() for proof in proofs], note)
    elif arch in to_detectron2.PROVED:
        note = f"mapping proved against detectron2 {to_detectron2.PROVED_COMMIT}"
        put(note, note[0].upper() + note[1:] + ".")
    elif unproved:
        note = "UNPROVED: detectron2 is missing, and no test has proved this architecture"
        put(note, note + ".")
    else:
        raise UsageError(
            f"detectron2 cannot be imported, and no test of this project has proved {arch} "
            "against it. Give --python, the interpreter of an environment that has it, or "
            "--unproved."
        )
    os.replace(weights, path)
    for head, config in configs.items():
        os.replace(config, finals[head])
    return Written((path, *finals.values()), tuple(proofs or ()), () if proofs else (note,))
