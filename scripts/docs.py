"""Gathers the pages of the book: those of docs/SUMMARY.md, below TARGET and under the paths that they have in the repository, so that
a link which works there works in the book.

What a page links to and is no page (a source file, an example, settings) is copied with .txt behind its name, which any browser shows.
A link to a page or a file that is not there is left as it is: the check of links names it.

    docs.py TARGET
"""

import pathlib
import re
import shutil
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
SUMMARY = ROOT / "docs/SUMMARY.md"
LINK = re.compile(r"(?<=\]\()([^)\s#]+)")
FENCED = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)


def target_of(page: pathlib.Path, link: str) -> pathlib.Path | None:
    """The file of this repository that a link of a page leads to."""
    if ":" in link:
        return None
    file = (page.parent / link).resolve()
    return file if file.is_file() and file.is_relative_to(ROOT) else None


def main() -> None:
    stage = pathlib.Path(sys.argv[1]).resolve()
    shutil.rmtree(stage, ignore_errors=True)

    def copy(file: pathlib.Path, suffix: str = "", text: str | None = None) -> None:
        copied = stage / (str(file.relative_to(ROOT)) + suffix)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_bytes(file.read_bytes() if text is None else text.encode())

    summary = SUMMARY.read_text()
    pages = [file for link in LINK.findall(summary) if (file := target_of(SUMMARY, link))]

    for page in pages:

        def shown(match: re.Match, page: pathlib.Path = page) -> str:
            file = target_of(page, match[1])
            if file is None or file.suffix == ".md":
                return match[1]
            suffix = "" if file.suffix in (".svg", ".png") else ".txt"
            copy(file, suffix)
            return match[1] + suffix

        parts = FENCED.split(page.read_text())
        parts[::2] = [LINK.sub(shown, part) for part in parts[::2]]
        copy(page, text="".join(parts))

    # mdBook wants its list at the top, with paths from there.
    from_root = lambda match: str(file.relative_to(ROOT)) if (file := target_of(SUMMARY, match[1])) else match[1]
    copy(ROOT / "SUMMARY.md", text=LINK.sub(from_root, summary))


main()
