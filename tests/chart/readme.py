"""Keeps the table of values in the chart's README equal to values.yaml: readme.py writes it, readme.py --check compares.

The comment above a value is its description. A value is a row when it has a comment and no value below it has one.
"""

import json
import pathlib
import re
import sys

import yaml

CHART = pathlib.Path(__file__).resolve().parents[2] / "helm/authservice"
BEGIN, END = "<!-- values: written by tests/chart/readme.py -->\n", "<!-- end of values -->\n"


def commented(text: str) -> dict[tuple, str]:
    """The comment of each key, by its path."""
    found, path, comment = {}, [], []
    for line in text.splitlines():
        if match := re.match(r" *# ?(.*)", line):
            comment.append(match[1])
        elif match := re.match(r"( *)([A-Za-z_]\w*):", line):
            path = path[: len(match[1]) // 2] + [match[2]]
            if comment:
                found[tuple(path)] = " ".join(comment)
            comment = []
        elif not line.strip():
            comment = []
    return found


def table() -> str:
    text = (CHART / "values.yaml").read_text()
    comments, values = commented(text), yaml.safe_load(text)
    rows = ["| value | default | meaning |", "|---|---|---|"]
    for path, comment in comments.items():
        value = values
        for key in path:
            value = value[key]
        # What stands above a group of values that have comments themselves is told by the first of them.
        inner = [other for other in comments if other[: len(path)] == path and other != path]
        if inner and path not in KEPT:
            continue
        default = json.dumps(value, ensure_ascii=False)
        rows.append(f"| `{'.'.join(path)}` | `{default}` | {comment} |".replace("||", "\\|\\|"))
    return "\n".join(rows) + "\n"


# Maps of which a single entry has a comment.
KEPT = {("config",)}


def readme() -> str:
    text = (CHART / "README.md").read_text()
    before, rest = text.split(BEGIN)
    return before + BEGIN + "\n" + table() + "\n" + END + rest.split(END)[1]


if __name__ == "__main__":
    written = readme()
    if "--check" not in sys.argv:
        (CHART / "README.md").write_text(written)
    elif written != (CHART / "README.md").read_text():
        sys.exit("helm/authservice/README.md is not what values.yaml says: run python3 tests/chart/readme.py")
