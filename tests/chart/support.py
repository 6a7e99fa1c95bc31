"""Runs helm and looks at what it renders."""

import functools
import os
import pathlib
import re
import subprocess

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/authservice"
TOOLS = ROOT / "target/chart"
VERSIONS = ("helm3", "helm4")
PROMTOOL = TOOLS / "prometheus/usr/bin/promtool"
# The longest that Helm allows.
LONG_NAME = "a-release-name-of-fifty-three-characters-as-long-as-x"
GENERATED = "encryption-key"


def value_files() -> list[pathlib.Path]:
    return sorted(CHART.glob("ci/*.yaml")) + sorted(CHART.glob("examples/*.yaml"))


def name_of(path: pathlib.Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def helm(version: str, *arguments, environment: dict | None = None, timeout: int = 60) -> subprocess.CompletedProcess:
    """Runs helm with a home of its own, so that nothing of this machine's configuration counts."""
    home = TOOLS / version / "home"
    own = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "HELM_CACHE_HOME": str(home),
        "HELM_CONFIG_HOME": str(home),
        "HELM_DATA_HOME": str(home),
    }
    command = [str(TOOLS / version / "helm"), *map(str, arguments)]
    return subprocess.run(command, env=own | (environment or {}), capture_output=True, text=True, timeout=timeout)


def template(version: str, *arguments, release: str = "authservice") -> str:
    done = helm(version, "template", release, CHART, "--namespace", "identity", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def render(version: str, path: pathlib.Path, release: str = "authservice") -> tuple[dict, ...]:
    """The objects that a file of values makes."""
    return objects(template(version, "--values", path, release=release))


def objects(text: str) -> tuple[dict, ...]:
    return tuple(item for item in yaml.safe_load_all(text) if item)


def of_kind(items, *kinds: str) -> list[dict]:
    return [item for item in items if item["kind"] in kinds]


def one(items, kind: str, name: str | None = None) -> dict:
    found = [item for item in of_kind(items, kind) if name in (None, item["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} of {kind} {name}"
    return found[0]


def hook_of(item: dict) -> str | None:
    return (item["metadata"].get("annotations") or {}).get("helm.sh/hook")


def pods(items) -> list[tuple[dict, dict]]:
    """Every object that makes pods, with the metadata and spec of its pods."""
    found = []
    for item in items:
        spec = item.get("spec", {})
        match item["kind"]:
            case "Deployment" | "Job":
                found.append((item, spec["template"]))
            case "CronJob":
                found.append((item, spec["jobTemplate"]["spec"]["template"]))
            case "Pod":
                found.append((item, item))
    return found


def containers(pod: dict) -> list[dict]:
    return pod["spec"].get("initContainers", []) + pod["spec"]["containers"]


def exposed_metrics() -> set[str]:
    """The metrics that docs/metrics.md lists; a test of the server holds the page against what it exposes."""
    names = re.findall(r"^\| `(?:authservice_)?([a-z_]+)` \|", (ROOT / "docs/metrics.md").read_text(), re.M)
    return {name if name.startswith("process_") else f"authservice_{name}" for name in names}


def metrics_in(expression: str) -> set[str]:
    """The metrics that an expression reads, a histogram by its own name."""
    names = re.findall(r"\b(?:authservice|process)_[a-z_]+\b", re.sub(r'"[^"]*"', "", expression))
    return {re.sub(r"_bucket$", "", name) for name in names}
