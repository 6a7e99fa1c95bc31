"""The chart on the cluster that scripts/cluster.sh starts."""

import base64
import json
import os
import secrets
import signal
import subprocess
import time
from pathlib import Path

import pytest

from release import API, ISSUER, RESTRICTED, apply, kubectl, wait_for
from support import ROOT, name_of, objects, one, pods, render, template, value_files

QUICK_START = (ROOT / "docs/quick-start.md").read_text()
both = pytest.mark.parametrize("release", ["helm3", "helm4"], indirect=True)


def shell(chapter: str) -> list[str]:
    """The lines of the commands in a chapter of the quick start."""
    (text,) = [part for part in QUICK_START.split("\n## ") if part.startswith(chapter + "\n")]
    blocks = [block.removeprefix("sh\n") for block in text.split("\n```")[1::2] if block.startswith("sh\n")]
    return [line for block in blocks for line in block.splitlines()]


# --- install


@both
def test_the_quick_start_leads_to_a_verified_token(release, tmp_path):
    """docs/quick-start.md as it stands, but for what the nodes and this machine have already: the image, a Python with PyJWT."""
    release.volume()
    config = json.loads(kubectl("config", "view", "--raw", "--output", "json").stdout)
    config["contexts"][0]["context"]["namespace"] = release.namespace
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    helm_folder = ROOT / "target/chart" / release.version
    environment = os.environ | {
        "KUBECONFIG": str(tmp_path / "kubeconfig"),
        "PATH": f"{helm_folder}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
    }

    def run(commands: str, seconds: int = 240) -> subprocess.CompletedProcess:
        return subprocess.run(["bash", "-euo", "pipefail", "-c", commands], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds)

    began = time.monotonic()
    *install, forward = [line for line in shell("Or on Kubernetes") if not line.startswith(("docker ", "kind "))]
    installed = run("\n".join(install))
    assert installed.returncode == 0, f"{installed.stderr}\n{release.story()}"
    with subprocess.Popen(["bash", "-c", f"exec {forward}"], env=environment, stdout=subprocess.PIPE, text=True) as forwarding:
        try:
            assert "Forwarding from 127.0.0.1:9998" in forwarding.stdout.readline()
            python = str(ROOT / "target/verifiers/venv/bin/python")
            steps = [line.replace("venv/bin/python", python) for line in shell("The first token") if not line.startswith("python3 -m venv ")]
            verified = run("\n".join(steps))
        finally:
            forwarding.kill()
    assert verified.returncode == 0 and "'iss': 'http://localhost:9998'" in verified.stdout, verified
    print(f"from helm install to a verified token in {time.monotonic() - began:.0f} s")


@both
def test_three_values_are_enough(release):
    """Issuer, host and Secret of the database, in a restricted namespace."""
    root = {"name": "root", "image": "authservice:0.1.0"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "root"}, "spec": {"containers": [root]}}
    refused = release.kubectl("apply", "--filename", "-", stdin=json.dumps(pod), check=False)
    assert 'violates PodSecurity "restricted' in refused.stderr, "the namespace is not restricted"

    release.install(*release.postgres())

    assert release.deployment()["status"]["readyReplicas"] == 1
    release.helm("test", "authservice", "--timeout", "60s")
    release.register()
    token = release.sign_in()["access_token"]
    status, me = release.ask("GET", f"{API}/users/me", token=token)
    assert (status, me["email"]) == (200, "alice@example.com")
    status, discovery = release.ask("GET", "/.well-known/openid-configuration")
    assert discovery["issuer"] == ISSUER


@both
def test_sqlite_outlives_its_pod_upgrade_and_uninstall(release):
    release.volume()
    release.install()
    release.helm("test", "authservice", "--timeout", "60s")
    release.register()

    release.upgrade("config.log.level=debug")
    release.sign_in()
    release.helm("uninstall", "authservice", "--wait")
    assert not release.pods()
    release.install()
    release.sign_in()


def test_migrations_by_hook(release):
    values = [*release.postgres(), "migrations.mode=hook"]
    release.install(*values)
    assert not release.get("jobs")["items"]
    release.upgrade(*values, "config.log.level=debug")
    release.register()


def test_the_service_account_may_do_nothing(release):
    release.install(*release.postgres())

    def rights(account: str) -> str:
        return release.kubectl("auth", "can-i", "--list", f"--as=system:serviceaccount:{release.namespace}:{account}").stdout

    # What everybody may who is signed in: ask about himself, and read the API's own description.
    assert rights("authservice") == rights("nobody-at-all")
    assert "secrets" not in rights("authservice")
    pod = release.pods()[0]
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert "serviceAccountToken" not in json.dumps(pod["spec"]["volumes"])


@pytest.mark.parametrize("path", value_files(), ids=name_of)
def test_the_api_server_takes_every_object_strictly(path):
    """With its own schemas and admission, and the CRDs of the Gateway API and the Prometheus operator; CloudNativePG's is not here."""
    known = [item for item in render("helm4", path) if not item["apiVersion"].startswith("postgresql.cnpg.io")]
    # Admission looks a pod's account up.
    accounts = {pod["spec"]["serviceAccountName"] for _, pod in pods(known)}
    apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "identity", "labels": RESTRICTED}},
        *({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "identity"}} for name in accounts),
    )
    text = "\n---\n".join(map(json.dumps, known))
    done = kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename", "-", stdin=text)
    assert len(done.stdout.splitlines()) == len(known)
    assert "Warning" not in done.stderr, done.stderr


# --- upgrade and rollback


@both
def test_upgrade_and_rollback_keep_the_key_and_the_users(release):
    values = release.postgres()
    release.install(*values)
    release.register()
    key, token = release.key(), release.sign_in()["access_token"]

    release.upgrade(*values, "image.tag=next", "config.log.level=debug")
    assert release.pods()[0]["spec"]["containers"][0]["image"].endswith(":next")
    release.helm("rollback", "authservice", "1", "--wait", "--timeout", "120s")

    assert release.pods()[0]["spec"]["containers"][0]["image"].endswith(":0.1.0")
    assert release.key() == key
    assert release.ask("GET", f"{API}/users/me", token=token)[0] == 200


@both
def test_who_scales_by_hand_gives_no_replicas(release):
    values = [*release.postgres(), "replicaCount=null"]
    release.install(*values)
    release.kubectl("scale", "deployment/authservice", "--replicas", "3")
    release.upgrade(*values, "config.log.level=debug")
    assert release.deployment()["spec"]["replicas"] == 3


@both
def test_a_replica_count_that_somebody_changed(release):
    values = release.postgres()
    release.install(*values)
    release.kubectl("scale", "deployment/authservice", "--replicas", "2")
    done = release.upgrade(*values, "config.log.level=debug", check=False)
    if release.version == "helm3":
        assert done.returncode == 0 and release.deployment()["spec"]["replicas"] == 1
    else:
        assert done.returncode != 0 and ".spec.replicas" in done.stderr
        assert release.deployment()["spec"]["replicas"] == 2


@both
def test_from_sqlite_to_postgresql_and_back(release):
    release.volume()
    release.install()
    release.register()
    key = release.key()

    release.upgrade(*release.postgres(), "replicaCount=2")
    assert release.deployment()["status"]["readyReplicas"] == 2
    assert release.deployment()["spec"]["strategy"]["type"] == "RollingUpdate"
    assert release.key() == key
    release.register()  # the new database is empty

    release.upgrade()
    assert release.deployment()["spec"]["strategy"] == {"type": "Recreate"}
    release.sign_in()


@both
def test_a_bad_image_is_rolled_back_and_nobody_notices(release):
    values = release.postgres()
    release.install(*values)
    release.register()
    option = "--atomic" if release.version == "helm3" else "--rollback-on-failure"

    with release.load() as load:
        done = release.upgrade(*values, "image.tag=never-built", options=(option, "--timeout", "20s"), check=False)

    assert done.returncode != 0
    assert release.deployment()["spec"]["template"]["spec"]["containers"][0]["image"].endswith(":0.1.0")
    assert release.helm("status", "authservice", "--output", "json").stdout.count('"deployed"') == 1
    load.assert_all_served()


def test_a_failed_migration_says_why_and_the_old_pods_serve_on(release):
    values = release.postgres()
    release.install(*values)
    release.register()
    release.secret("mistyped", password="nobody's")

    def said() -> str:
        for pod in release.pods():
            log = release.kubectl("logs", pod["metadata"]["name"], "--container", "migrate", check=False).stdout
            if "waiting for the database" in log:
                return log
        return ""

    with release.load() as load:
        wrong = [values[0], "database.postgres.existingSecret=mistyped"]
        assert release.upgrade(*wrong, options=("--timeout", "20s"), check=False).returncode != 0
        log = wait_for("the init container says nothing", said, 120)
        release.helm("rollback", "authservice", "--wait", "--timeout", "120s")

    assert "password authentication failed" in log
    assert "nobody's" not in log
    load.assert_all_served()


def test_the_key_encryption_key_is_exchanged_while_it_serves(release):
    """docs/keys.md, one upgrade for each step."""
    values = release.postgres()
    for name in ("old", "new"):
        key = subprocess.run(["openssl", "rand", "-base64", "32"], capture_output=True, text=True, check=True).stdout.strip()
        release.secret(name, **{"encryption-key": key})
    values += ["replicaCount=2"]
    release.install(*values, "keys.masterKey.existingSecret=old")
    release.register()

    with release.load() as load:
        release.upgrade(*values, "keys.masterKey.existingSecret=old", "keys.previousMasterKey.existingSecret=new")
        release.upgrade(*values, "keys.masterKey.existingSecret=new", "keys.previousMasterKey.existingSecret=old")
        release.command("keys", "reseal")
        release.upgrade(*values, "keys.masterKey.existingSecret=new")

    load.assert_all_served()
    release.sign_in()


# The kubelet shows a changed Secret within a minute or two, and the server looks every five seconds.
MOUNTED = 240
# Without a line for each request, of which there are so many that the kubelet would begin another file meanwhile.
QUIET = r"config.log.level=info\,authservice::web=warn"


def everybody_says(release, message: str) -> bool:
    return all(message in log for log in release.logs())


def restarts(release) -> dict[str, int]:
    return {pod["metadata"]["uid"]: pod["status"]["containerStatuses"][0]["restartCount"] for pod in release.pods()}


def test_the_password_of_the_database_is_exchanged_while_it_serves(release):
    """The Secret first: the servers find that it does not work yet and go on, so that they have it as soon as the role has."""
    release.install(*release.postgres(), "replicaCount=2", QUIET)
    release.register()
    token = release.sign_in()["access_token"]
    old = base64.b64decode(release.get("secret", "authservice-database")["data"]["password"]).decode()
    new, pods = secrets.token_hex(8), restarts(release)

    with release.load() as load:
        release.secret("authservice-database", password=new)
        early = "the database's new credentials do not work"
        wait_for("a replica does not see the new Secret", lambda: everybody_says(release, early), MOUNTED)
        release.query(f"ALTER ROLE authservice PASSWORD '{new}'", old)
        taken = "the database's credentials were read anew"
        wait_for("a replica does not take the new password", lambda: everybody_says(release, taken), 60)

    load.assert_all_served()
    release.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'authservice'", new)

    def is_served() -> bool:
        return all(release.ask("GET", f"{API}/users/me", token=token)[0] == 200 for _ in range(50))

    # A connection that was ended fails once; all that follow are new ones.
    wait_for("new connections do not work", is_served)
    release.sign_in()
    assert restarts(release) == pods
    assert not any(password in log for log in release.logs() for password in (old, new))


def test_the_key_encryption_key_is_exchanged_in_its_secret(release):
    """docs/keys.md, each step a change of one Secret: no upgrade, no restart."""
    values = [
        "keys.masterKey.existingSecret=both",
        "keys.masterKey.key=current",
        "keys.previousMasterKey.existingSecret=both",
        "keys.previousMasterKey.key=previous",
    ]
    old, new = (base64.b64encode(secrets.token_bytes(32)).decode() for _ in range(2))
    release.secret("both", current=old, previous="")
    release.install(*release.postgres(), *values, "replicaCount=2", QUIET)
    release.register()
    pods = restarts(release)
    taken = "the key-encryption keys were read anew"

    def step(number: int, current: str, previous: str) -> None:
        release.secret("both", current=current, previous=previous)
        try:
            wait_for(f"a replica does not take step {number}", lambda: all(log.count(taken) == number for log in release.logs()), MOUNTED)
        except AssertionError:
            print(*release.logs(), sep="\n")
            raise

    with release.load() as load:
        step(1, old, new)
        step(2, new, old)
        release.command("keys", "reseal")
        step(3, new, "")

    load.assert_all_served()
    assert "previous" not in release.command("keys", "list")
    assert restarts(release) == pods
    release.kubectl("rollout", "restart", "deployment/authservice")
    release.kubectl("rollout", "status", "deployment/authservice", "--timeout", "180s")
    release.sign_in()


def test_a_renderer_that_makes_another_key_is_refused(release):
    """What an Argo CD without existingSecret would do: render without the cluster, then apply."""
    release.install(*release.postgres())
    key = release.key()
    other = one(objects(template("helm4", "--set", f"issuer={ISSUER}")), "Secret")
    other["metadata"]["namespace"] = release.namespace
    done = release.kubectl("apply", "--server-side", "--force-conflicts", "--filename", "-", stdin=json.dumps(other), check=False)
    assert done.returncode != 0 and "immutable" in done.stderr
    assert release.key() == key


# --- what happens to pods


def replicas(release, count: int = 2) -> list[str]:
    values = [*release.postgres(), f"replicaCount={count}"]
    release.install(*values)
    release.register()
    return values


def test_a_rolling_update_of_two_replicas_fails_no_request(release):
    values = replicas(release)
    assert {pod["spec"]["nodeName"] for pod in release.pods()} == {"node1", "node2"}, "spread over the nodes"

    with release.load() as load:
        release.upgrade(*values, "image.tag=next")
        during = load.done
        release.helm("rollback", "authservice", "1", "--wait", "--timeout", "180s")
        release.kubectl("rollout", "restart", "deployment/authservice")
        release.kubectl("rollout", "status", "deployment/authservice", "--timeout", "180s")

    assert during > 200
    load.assert_all_served()


def test_a_node_is_drained_one_replica_after_the_other(release):
    """Both replicas on the node: the budget lets the second go only when the first is back elsewhere."""
    kubectl("cordon", "node2")
    try:
        kubectl("uncordon", "node1")
        # The database belongs on the other node, whatever is cordoned.
        values = release.postgres()
        kubectl("uncordon", "node2")
        wait_for("no PostgreSQL", lambda: "Running" in kubectl("get", "pod", release.namespace, "-n", "database").stdout, 90)
        kubectl("cordon", "node2")
        release.install(*values, "replicaCount=2")
        assert {pod["spec"]["nodeName"] for pod in release.pods()} == {"node1"}
        kubectl("uncordon", "node2")
        release.register()
        with release.load() as load:
            drained = kubectl("drain", "node1", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout", "170s")
            assert {pod["spec"]["nodeName"] for pod in release.pods()} == {"node2"}
        assert "Cannot evict pod as it would violate the pod's disruption budget" in drained.stderr + drained.stdout
        load.assert_all_served()
    finally:
        kubectl("uncordon", "node1", "node2")


def processes(pod: dict) -> list[int]:
    """The server's process in a pod: the cluster's processes are those of this namespace."""
    uid = pod["metadata"]["uid"]
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if uid in (folder / "cgroup").read_text() and b"authservice\0serve" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            pass
    return found


def test_a_killed_server_is_started_again(release):
    replicas(release)
    victim = release.pods()[0]
    name = victim["metadata"]["name"]

    with release.load() as load:
        (process,) = processes(victim)
        os.kill(process, signal.SIGKILL)

        def restarted() -> bool:
            status = release.get("pod", name)["status"]["containerStatuses"][0]
            return status["restartCount"] == 1 and status["ready"]

        wait_for("the pod is not back", restarted)
        # Until the node's proxy knows, too.
        wait_for("requests still fail", lambda: is_quiet(load), 60)

    # One of two replicas was away, for a moment.
    assert len(load.failures) < load.done / 2


def is_quiet(load) -> bool:
    failed, done = len(load.failures), load.done
    wait_for("the load does not go on", lambda: load.done > done + 200)
    return len(load.failures) == failed
