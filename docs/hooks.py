"""What the site takes from outside of docs/: README as its first page, and the other documents of the checkout at their own paths.

Links of README and of the pages are written for the checkout; here they are turned to where the site has those files.
"""

import pathlib

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = pathlib.Path(__file__).parent.parent
FIRST = "index.md"
OTHERS = (
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LICENSE",
    "benchmarks/README.md",
    "benchmarks/results/*.png",
    "tflite_models/README.md",
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds them."""
    found = {path.relative_to(ROOT).as_posix(): path for pattern in OTHERS for path in sorted(ROOT.glob(pattern))}
    for uri, path in {FIRST: ROOT / "README.md", **found}.items():
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_) -> str:
    """Turns the links of a page."""
    if page.file.src_uri == FIRST:
        return markdown.replace("](docs/", "](")
    is_ours = not page.file.generated_by and "/" not in page.file.src_uri
    return markdown.replace("](../", "](") if is_ours else markdown
