"""The chart as a package: lint, schema, documents, and a way through a registry."""

import json
import re
import signal
import socket
import subprocess
import time
import tomllib

import pytest
import yaml

import readme
from support import CHART, ROOT, TOOLS, VERSIONS, helm, name_of, objects, render, template, value_files

FILES = value_files()
BIN = TOOLS / "venv/bin"


def run(*command) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", VERSIONS)
def test_lint_finds_nothing(version):
    for path in FILES:
        done = helm(version, "lint", "--strict", CHART, "--values", path)
        assert done.returncode == 0, f"{name_of(path)}: {done.stdout}{done.stderr}"


def test_yaml_is_tidy():
    rules = {"line-length": {"max": 160}, "document-start": "disable", "comments": {"min-spaces-from-content": 1}}
    settings = json.dumps({"extends": "default", "rules": rules})
    run(BIN / "yamllint", "--strict", "-d", settings, CHART / "Chart.yaml", CHART / "values.yaml", CHART / "ci", CHART / "examples")


def test_the_schema_is_one():
    run(BIN / "check-jsonschema", "--check-metaschema", CHART / "values.schema.json")


def test_the_defaults_and_the_files_fit_the_schema():
    run(BIN / "check-jsonschema", "--schemafile", CHART / "values.schema.json", CHART / "values.yaml", *FILES)


def test_the_schema_and_the_values_have_the_same_keys():
    def paths(schema, prefix=()):
        for key, inner in schema.get("properties", {}).items():
            yield (*prefix, key)
            yield from paths(inner, (*prefix, key))

    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def has(path):
        value = values
        for key in path:
            if key not in value:
                return False
            value = value[key]
        return True

    schema = json.loads((CHART / "values.schema.json").read_text())
    # A probe may have timings that the chart leaves to Kubernetes. The other way is checked by the test above.
    optional = {"initialDelaySeconds", "successThreshold"}
    assert [path for path in paths(schema) if path[-1] not in optional and not has(path)] == []


def test_every_value_is_explained():
    text = (CHART / "values.yaml").read_text()
    comments, values = readme.commented(text), yaml.safe_load(text)

    def unexplained(values, path=()):
        for key, value in values.items():
            here = (*path, key)
            if here in comments:
                continue
            if isinstance(value, dict) and value:
                yield from unexplained(value, here)
            else:
                yield here

    assert list(unexplained(values)) == []


def test_the_readme_has_the_values():
    assert readme.readme() == (CHART / "README.md").read_text(), "run python3 tests/chart/readme.py"


def test_the_version_of_the_server_is_the_image_that_is_deployed():
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert chart["appVersion"] == version
    assert f"authservice:{version}" in chart["annotations"]["artifacthub.io/images"]


@pytest.fixture
def registry(tmp_path):
    """A registry on loopback."""
    program = TOOLS / "registry/usr/bin/docker-registry"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    settings = {"version": 0.1, "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}}, "http": {"addr": address}}
    (tmp_path / "registry.yml").write_text(yaml.safe_dump(settings))
    process = subprocess.Popen([program, "serve", tmp_path / "registry.yml"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(tuple([address.split(":")[0], int(address.split(":")[1])])) == 0:
                    break
            assert process.poll() is None, "the registry ended"
            time.sleep(0.1)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_pulled_renders_as_what_was_pushed(version, registry, tmp_path):
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    packed = tmp_path / f"authservice-{chart['version']}.tgz"
    pulled = tmp_path / "pulled" / packed.name
    pulled.parent.mkdir()

    for step in (
        ["package", CHART, "--destination", tmp_path],
        ["push", packed, f"oci://{registry}/charts", "--plain-http"],
        [
            "pull",
            f"oci://{registry}/charts/authservice",
            "--version",
            chart["version"],
            "--plain-http",
            "--destination",
            pulled.parent,
        ],
    ):
        done = helm(version, *step)
        assert done.returncode == 0, f"{step[0]}: {done.stderr}"

    files = subprocess.run(["tar", "tzf", pulled], capture_output=True, text=True, check=True).stdout
    assert re.search(r"^authservice/README.md$", files, re.M) and "authservice/ci/" not in files
    values = CHART / "ci/argocd.yaml"
    done = helm(version, "template", "authservice", pulled, "--namespace", "identity", "--values", values)
    assert objects(done.stdout) == render(version, values)


def test_renderers_without_a_cluster_make_the_same_bytes_twice():
    values = CHART / "ci/argocd.yaml"

    assert template("helm4", "--values", values) == template("helm4", "--values", values)
