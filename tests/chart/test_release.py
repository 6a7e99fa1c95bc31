"""Releases: a real helm, of both versions, against a stand-in for the API server (miniapi.py)."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from support import CHART, VERSIONS, helm

NAMESPACE = "identity"
KEY = "secrets/authservice-encryption-key"
CLAIM = "persistentvolumeclaims/authservice-data"
DEPLOYMENT = "deployments/authservice"
POSTGRES = ["--set", "database.postgres.host=db", "--set", "database.postgres.password=sesame"]
GROUPS = {"deployments": "apis/apps/v1", "jobs": "apis/batch/v1"}


class Cluster:
    def __init__(self, version: str, url: str, folder: Path):
        self.version, self.url = version, url
        self.kubeconfig = folder / "kubeconfig"
        here = {
            "clusters": [{"name": "x", "cluster": {"server": url}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        }
        self.kubeconfig.write_text(
            yaml.safe_dump(
                {"apiVersion": "v1", "kind": "Config", "current-context": "x", "users": [{"name": "x", "user": {}}]} | here
            )
        )

    def helm(self, *arguments):
        environment = {"KUBECONFIG": str(self.kubeconfig)}
        return helm(self.version, "--namespace", NAMESPACE, *arguments, environment=environment, timeout=120)

    def do(self, *arguments):
        done = self.helm(*arguments)
        assert done.returncode == 0, f"helm {arguments}: {done.stderr}"

    def install(self, *values):
        self.do(
            "install",
            "authservice",
            CHART,
            "--create-namespace",
            "--wait",
            "--timeout",
            "20s",
            "--set",
            "issuer=https://auth.example.com",
            *values,
        )

    def upgrade(self, *values):
        return self.helm(
            "upgrade", "authservice", CHART, "--wait", "--timeout", "20s", "--set", "issuer=https://auth.example.com", *values
        )

    def ask(self, method: str, what: str):
        kind = what.split("/")[0]
        request = urllib.request.Request(f"{self.url}/{GROUPS.get(kind, 'api/v1')}/namespaces/{NAMESPACE}/{what}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            assert error.code == 404
            return None

    def get(self, what: str):
        return self.ask("GET", what)

    def key(self) -> str:
        return self.get(KEY)["data"]["encryption-key"]


@pytest.fixture(params=VERSIONS)
def cluster(request, tmp_path):
    server = subprocess.Popen([sys.executable, Path(__file__).with_name("miniapi.py")], stdout=subprocess.PIPE, text=True)
    try:
        yield Cluster(request.param, server.stdout.readline().strip(), tmp_path)
    finally:
        server.kill()
        server.wait()


def test_the_key_outlives_upgrade_rollback_and_uninstall(cluster):
    cluster.install()
    key, first = cluster.key(), cluster.get(DEPLOYMENT)
    cluster.do("test", "authservice", "--timeout", "20s")

    assert cluster.upgrade("--set", "config.log.level=debug").returncode == 0
    assert cluster.key() == key
    assert sum_of(cluster.get(DEPLOYMENT)) != sum_of(first)

    cluster.do("rollback", "authservice", "1", "--wait", "--timeout", "20s")
    assert cluster.key() == key
    assert sum_of(cluster.get(DEPLOYMENT)) == sum_of(first)

    cluster.do("uninstall", "authservice", "--wait")
    assert cluster.get(DEPLOYMENT) is None
    assert cluster.key() == key and cluster.get(CLAIM)

    cluster.install()
    assert cluster.key() == key


def sum_of(deployment: dict) -> str:
    return deployment["spec"]["template"]["metadata"]["annotations"]["checksum/config"]


def test_from_sqlite_to_postgresql_and_back(cluster):
    cluster.install()
    key = cluster.key()

    done = cluster.upgrade(*POSTGRES, "--set", "replicaCount=2")
    assert done.returncode == 0, done.stderr
    spec = cluster.get(DEPLOYMENT)["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (2, "RollingUpdate")
    assert cluster.key() == key and cluster.get(CLAIM), "what was in the file is still there"

    done = cluster.upgrade()
    assert done.returncode == 0, done.stderr
    spec = cluster.get(DEPLOYMENT)["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_a_key_that_is_lost_is_not_replaced(cluster):
    cluster.install()
    before = cluster.get(DEPLOYMENT)
    assert cluster.ask("DELETE", KEY)

    done = cluster.upgrade("--set", "config.log.level=debug")

    assert done.returncode != 0 and "keys.masterKey: the Secret authservice-encryption-key is not there" in done.stderr
    assert cluster.get(KEY) is None
    assert cluster.get(DEPLOYMENT) == before


def test_migrations_by_hook_bring_what_they_need_and_leave_nothing(cluster):
    hook = [*POSTGRES, "--set", "migrations.mode=hook"]

    cluster.install(*hook)

    for what in ("jobs", "configmaps", "secrets", "serviceaccounts"):
        assert cluster.get(f"{what}/authservice-migrate") is None
    before = cluster.get(DEPLOYMENT)
    failed = cluster.upgrade(*hook, "--set", "config.log.level=debug", "--set", "podAnnotations.fake/outcome=fail")
    assert failed.returncode != 0
    assert cluster.get(DEPLOYMENT) == before, "a failed migration touches no pod"
    assert cluster.upgrade(*hook, "--set", "config.log.level=debug").returncode == 0, "and the next one starts anew"
    assert sum_of(cluster.get(DEPLOYMENT)) != sum_of(before)


def test_a_first_install_whose_migration_failed_says_how_to_go_on(cluster):
    hook = [*POSTGRES, "--set", "migrations.mode=hook"]
    values = ["--timeout", "20s", "--set", "issuer=https://auth.example.com", *hook]
    assert cluster.helm("install", "authservice", CHART, *values, "--set", "podAnnotations.fake/outcome=fail").returncode != 0

    stuck = cluster.upgrade(*hook)

    assert stuck.returncode != 0 and "helm uninstall it" in stuck.stderr
    cluster.do("uninstall", "authservice")
    cluster.install(*hook)


def test_a_renderer_that_makes_another_key_is_refused_by_the_cluster(cluster, tmp_path):
    """What an Argo CD without existingSecret would do: render without the cluster, then apply."""
    cluster.install()
    key = cluster.key()
    assert cluster.get(KEY)["immutable"] is True

    rendered = cluster.helm(
        "template", "authservice", CHART, "--set", "issuer=https://auth.example.com", "--show-only", "templates/secret-keys.yaml"
    )
    other = yaml.safe_load(rendered.stdout)
    assert other["data"]["encryption-key"] != key
    request = urllib.request.Request(
        f"{cluster.url}/api/v1/namespaces/{NAMESPACE}/{KEY}",
        json.dumps(other).encode(),
        {"Content-Type": "application/json"},
        method="PUT",
    )

    with pytest.raises(urllib.error.HTTPError, match="422"):
        urllib.request.urlopen(request, timeout=10)
    assert cluster.key() == key
