"""The real binary takes what the chart hands it: configuration, environment, arguments, probes."""

import base64
import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.request

import pytest

from support import CHART, GENERATED, ROOT, containers, name_of, of_kind, one, pods, render, value_files

BINARY = pathlib.Path(os.environ.get("AUTHSERVICE_BIN", ROOT / "target/debug/authservice"))
SECRETS = {
    "encryption/current": "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=",
    "encryption/previous": "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n",
    "database/secret": "postgresql://app:secret@auth-db-rw.identity:5432/app",
}


class Machine:
    """A folder that stands for the container's /etc/authservice and /var/lib/authservice."""

    def __init__(self, folder: pathlib.Path, items):
        self.folder = folder
        for path, text in SECRETS.items():
            file = folder / "etc" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            file.chmod(0o440)  # as kubelet mounts it
        for secret in of_kind(items, "Secret"):
            if GENERATED in secret["data"]:
                (folder / "etc/encryption/current").unlink()
                (folder / "etc/encryption/current").write_bytes(base64.b64decode(secret["data"][GENERATED]))
        (folder / "var").mkdir()
        (folder / "etc/config").mkdir()
        config = one(items, "ConfigMap", one(items, "Deployment")["metadata"]["name"])["data"]["authservice.toml"]
        (folder / "etc/config/authservice.toml").write_text(self.here(config))

    def here(self, text: str) -> str:
        return text.replace("/etc/authservice", str(self.folder / "etc")).replace("/var/lib/authservice", str(self.folder / "var"))

    def start(self, container: dict, *arguments: str, **more: str) -> subprocess.Popen:
        environment = {variable["name"]: self.here(variable["value"]) for variable in container.get("env", [])}
        command = [BINARY, *(arguments or container["args"])]
        # Nothing of this machine's environment, and a folder in which nothing can be written: the root is read-only.
        return subprocess.Popen(
            command, env=environment | more, cwd="/proc", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, container: dict, *arguments: str, **more: str) -> str:
        process = self.start(container, *arguments, **more)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
        return output


@pytest.mark.parametrize("path", value_files(), ids=name_of)
def test_every_container_has_a_valid_configuration(path, tmp_path):
    items = render("helm4", path)
    machine = Machine(tmp_path, items)

    for _, pod in pods(items):
        for container in containers(pod):
            if container["name"] != "wait":  # the user's
                assert machine.run(container, "config", "check") == "the configuration is valid\n"


def test_a_pod_of_the_chart_serves(tmp_path):
    """The init container, then the server, as rendered for SQLite; what probes and `helm test` ask; and the end of a pod."""
    items = render("helm4", CHART / "ci/sqlite.yaml")
    machine = Machine(tmp_path, items)
    pod = one(items, "Deployment")["spec"]["template"]
    migrate, server = containers(pod)
    with socket.socket() as free, socket.socket() as other:
        for one_of in (free, other):
            one_of.bind(("127.0.0.1", 0))
        port, admin = free.getsockname()[1], other.getsockname()[1]

    assert "applied" in machine.run(migrate)
    # The image sets SERVICE_HOST.
    ports = {"AUTHSERVICE__SERVER__PORT": str(port), "AUTHSERVICE__ADMIN__PORT": str(admin)}
    process = machine.start(server, SERVICE_HOST="192.0.2.1", AUTHSERVICE__SERVER__DRAIN_SECONDS="0", **ports)
    try:
        wait_for(f"http://127.0.0.1:{port}{server['readinessProbe']['httpGet']['path']}", process)
        assert server["livenessProbe"]["httpGet"]["port"] == "admin"
        get(f"http://127.0.0.1:{admin}{server['livenessProbe']['httpGet']['path']}")
        assert b"\nauthservice_ready 1\n" in get(f"http://127.0.0.1:{admin}/metrics")
        test = one(items, "Pod")["spec"]["containers"][0]
        machine.run(test, *[argument.replace("//authservice:9998", f"//127.0.0.1:{port}") for argument in test["args"]])
        assert "signing" in machine.run(server, "keys", "list")
    finally:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    assert [path.name for path in (tmp_path / "etc").rglob("*") if path.is_file()].count(
        "encryption.key"
    ) == 0, "the key is the Secret's"


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read()


def wait_for(url: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        try:
            get(url)
            return
        except OSError:
            time.sleep(0.1)
    process.kill()
    pytest.fail(f"not ready: {process.communicate()[0]}")


def test_every_command_of_the_chart_exists():
    for _, pod in pods(render("helm4", CHART / "ci/everything.yaml")):
        for container in containers(pod):
            done = subprocess.run([BINARY, *container["args"], "--help"], capture_output=True, text=True)
            assert done.returncode == 0, f"{container['args']}: {done.stderr}"
