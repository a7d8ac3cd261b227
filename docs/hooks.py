"""What mkdocs builds beside the guides: the README, the packages, and the files that pages link to.

    README.md                  the site's home
    api/pretrain.backbone.md   named in mkdocs.yml alone: the docstrings of that module
    tree/configs/x.yaml.md     what README or guides link to outside docs/: a file, a folder's files

So every link works on GitHub as it is written, and in the site without a network.
"""

import re
from pathlib import Path
from posixpath import dirname, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
LINK = re.compile(r"(?<=\]\()([^)#\s]+)")
# two pictures, of which the theme shows the one of its colours
PICTURE = re.compile(
    r'<picture>\s*<source [^>]*srcset="(?P<dark>[^"]+)">\s*'
    r'<img src="(?P<light>[^"]+)" (?P<size>[^>]*?) alt="(?P<alt>[^"]+)">\s*</picture>'
)
IMAGES = r"![\g<alt>](\g<light>#only-light){ \g<size> } ![\g<alt>](\g<dark>#only-dark){ \g<size> }"


def site_path(path: Path) -> str:
    """Where a file or folder of the tree is in the site."""
    if path == ROOT / "README.md":
        return "index.md"
    if path.is_relative_to(DOCS) and path.is_file():
        return path.relative_to(DOCS).as_posix()
    return f"tree/{path.relative_to(ROOT).as_posix()}.md"


def linked(source: Path, target: str) -> Path | None:
    """The file or folder that a link in a file means; None where it is another site or nothing."""
    path = (source.parent / target).resolve()
    return path if path.exists() and path.is_relative_to(ROOT) else None


def show(path: Path) -> str:
    """A page with the text of a file, or the names of a folder's files."""
    name, head = path.relative_to(ROOT).as_posix(), "---\nsearch: {exclude: true}\n---\n"
    if path.is_file():
        return f"{head}# `{name}`\n\n~~~~~~ {path.suffix[1:]}\n{path.read_text('utf-8')}\n~~~~~~\n"
    page = dirname(site_path(path))
    return f"{head}# `{name}`\n\n" + "\n".join(
        f"- [`{file.relative_to(path).as_posix()}`]({relpath(site_path(file), page)})"
        for file in files_of(path)
    )


def files_of(folder: Path) -> list[Path]:
    """The files below a folder."""
    return sorted(path for path in folder.rglob("*.*") if path.is_file())


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are no files of docs/."""
    files.append(File.generated(config, "index.md", abs_src_path=str(ROOT / "README.md")))
    for name in re.findall(r"api/([\w.]+)\.md", str(config.nav)):
        files.append(File.generated(config, f"api/{name}.md", content=f"::: {name}\n"))
    for source in [ROOT / "README.md", *DOCS.glob("*.md")]:
        for target in LINK.findall(source.read_text("utf-8")):
            path = linked(source, target)
            below = files_of(path) if path and path.is_dir() else []
            for file in [path, *below] if path else []:
                if files.get_file_from_path(site_path(file)) is None:
                    page = File.generated(config, site_path(file), content=show(file))
                    files.append(page)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of the README and of guides to where their targets are in the site."""
    source = Path(page.file.abs_src_path or ROOT / "tree")
    if source.suffix != ".md":
        return markdown

    def move(match: re.Match[str]) -> str:
        path = linked(source, match[1])
        return match[1] if path is None else relpath(site_path(path), dirname(page.file.src_uri))

    return LINK.sub(move, PICTURE.sub(IMAGES, markdown))
