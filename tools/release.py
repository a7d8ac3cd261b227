"""Make a release of a backbone: checked, compared in timm, with a model card and a list entry.

python tools/release.py --backbone runs/pretrain-x --name cutmix-resnet50-ours --licence MIT

    --results runs           with the transfer table of these runs in its card
    --to DIR                 copied to DIR/NAME as well
    --push hf:owner/name     and to Hugging Face
"""

import os
import re
import sys
from pathlib import Path
from typing import Any

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.errors import UsageError, first_line
from tools.support.backbone_options import add_overrides, load, overrides
from tools.support.command import Parser, backbone_name, run_main


def main(argv: list[str] | None = None) -> None:
    """Check, write, and hand over where asked."""
    options = _options(argv)
    name, out = options.name, options.out / options.name
    source = backbone_name(options.backbone)
    repository = _repository(options.push)

    from transfer import hub
    from transfer.release import Release, make, unknown
    from transfer.report import read_results

    if name in hub.released():
        raise UsageError(f"--name {name} is in our list already (python tools/download.py --list).")
    folders = [out] if options.to is None else [out, options.to / name]
    for folder in folders:
        if os.path.lexists(folder):
            raise UsageError(f"{folder} exists. Remove it, or give another --name or --out.")
    backbone = load(source, overrides(options), trust=options.trust)
    missing = unknown(backbone.provenance)
    if missing and not options.allow_unknown:
        raise UsageError(
            f"{source} does not say of itself: {', '.join(missing)}. A release should; with "
            "--allow-unknown the card says that they are unknown."
        )
    results: Any = []
    if options.results is not None:
        results, complaints = read_results(options.results)
        for complaint in complaints:
            print(f"left out: {complaint}", file=sys.stderr)
    release = Release(
        backbone=backbone,
        name=name,
        licence=options.licence,
        results=results,
        url=options.url,
        repository=repository,
        public=options.public,
    )
    make(release, *folders)
    print(f"{backbone.name} ({backbone.fingerprint()})")
    for file in sorted(out.iterdir()):
        print(f"  {file}   {file.stat().st_size:,} bytes")
    if options.to is not None:
        print(f"copied to {folders[1]}")
    if repository is not None:
        push(out, repository)
        print(f"pushed to https://huggingface.co/{repository}")
    print(f"Its entry for transfer/released.yaml: {out}/entry.yaml")
    if options.url is None and repository is None:
        print("The entry has no address yet: --url is missing, where backbone.pth will be served.")


def push(folder: Path, repository: str) -> None:
    """Send the folder to a Hugging Face repository, made if need be; the token is the user's own.

    Raises:
        UsageError: the server refused, or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        api.create_repo(repository, exist_ok=True)
        api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message=f"Release {folder.name}"
        )
    except (HfHubHTTPError, OSError) as error:
        raise UsageError(
            f"--push hf:{repository}: {first_line(error)} The release is complete in {folder}; to "
            f"try again: hf upload {repository} {folder}"
        ) from error


def _repository(push: str | None) -> str | None:
    """owner/name of --push; that a token is there is seen before anything is written."""
    if push is None:
        return None
    found = re.fullmatch(r"hf:([\w.-]+/[\w.-]+)", push)
    if found is None:
        raise UsageError(f"--push is {push!r}; it must be hf:owner/name.")

    from huggingface_hub import get_token

    if get_token() is None:
        raise UsageError(
            "--push needs a token of Hugging Face with the right to write: hf auth login, or set "
            "HF_TOKEN. Without --push the release is written to a folder."
        )
    return found.group(1)


def _options(argv: list[str] | None) -> Any:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--backbone", metavar="NAME_OR_FILE", help="What is released.")
    add("--name", help="Its name in our list: letters, digits, . _ and -.")
    add("--licence", help="Of the weights, such as MIT or CC-BY-4.0.")
    add("--results", type=Path, metavar="RUNS", help="Runs whose transfer table the card shows.")
    add("--url", help="Where backbone.pth will be served, for the entry.")
    add("--out", type=Path, default=Path("releases"), help="Its parent folder.")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--to", type=Path, metavar="DIR", help="Copy the release to DIR/NAME.")
    where.add_argument("--push", metavar="hf:OWNER/NAME", help="Send it to Hugging Face.")
    public = "A name of this machine or its user, or a path, that may be told (repeatable)."
    add("--public", metavar="WORD", action="append", default=[], help=public)
    add("--allow-unknown", action="store_true", help="Release it though its origin has gaps.")
    add_overrides(parser)
    options: Any = parser.parse(argv)
    if options.name is None:
        raise UsageError("--name is missing; give letters, digits, ., _ and -.")
    if options.licence is None:
        raise UsageError("--licence is missing; give that of the weights, such as MIT.")
    return options


if __name__ == "__main__":
    run_main(main)
