"""A release on the real cluster: helm and kubectl, its namespace, its PostgreSQL, and clients that count what fails."""

import base64
import contextlib
import http.client
import json
import os
import secrets
import subprocess
import threading
import time
from pathlib import Path

# That of tests/chart.
from support import CHART, helm

RUN = Path(os.environ["CLUSTER_RUN"])
ISSUER = "https://auth.example.com"
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
API = "/auth_api/v1"
PASSWORD = "Str0ng!Passw0rd"


def kubectl(*arguments, stdin: str | None = None, check: bool = True, timeout: int = 180) -> subprocess.CompletedProcess:
    command = ["kubectl", *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0 or not check, f"kubectl {arguments}: {done.stderr}"
    return done


def apply(*items: dict) -> None:
    kubectl("apply", "--server-side", "--filename", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))


def wait_for(sentence: str, holds, seconds: float = 60):
    """What `holds` says as soon as it is true."""
    end = time.monotonic() + seconds
    while not (said := holds()):
        assert time.monotonic() < end, sentence
        time.sleep(0.2)
    return said


class Release:
    """A release named authservice in a restricted namespace of its own."""

    def __init__(self, version: str, namespace: str):
        self.version, self.namespace = version, namespace
        apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": RESTRICTED}})

    # --- helm and kubectl

    def helm(self, *arguments, check: bool = True, timeout: int = 400) -> subprocess.CompletedProcess:
        environment = {"KUBECONFIG": os.environ["KUBECONFIG"]}
        done = helm(self.version, "--namespace", self.namespace, *arguments, environment=environment, timeout=timeout)
        assert done.returncode == 0 or not check, f"helm {arguments}: {done.stderr}\n{self.story()}"
        # Pod Security only warns of what is in a template, and refuses the pod later, out of helm's sight.
        assert "would violate PodSecurity" not in done.stderr
        return done

    def install(self, *values) -> None:
        self.helm("install", "authservice", CHART, "--wait", "--timeout", "180s", *self.sets("issuer=" + ISSUER, *values))

    def upgrade(self, *values, options=(), check: bool = True) -> subprocess.CompletedProcess:
        options = options or ("--timeout", "180s")
        values = self.sets("issuer=" + ISSUER, *values)
        return self.helm("upgrade", "authservice", CHART, "--wait", *options, *values, check=check)

    @staticmethod
    def sets(*values) -> list[str]:
        return [argument for value in values for argument in ("--set", value)]

    def kubectl(self, *arguments, **options) -> subprocess.CompletedProcess:
        return kubectl("--namespace", self.namespace, *arguments, **options)

    def get(self, *what) -> dict:
        return json.loads(self.kubectl("get", *what, "--output", "json").stdout)

    def deployment(self) -> dict:
        return self.get("deployment", "authservice")

    def pods(self) -> list[dict]:
        """The server's pods that are not on their way out."""
        items = self.get("pods", "--selector", "app.kubernetes.io/component=server")["items"]
        return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]

    def story(self) -> str:
        """What to read when something failed."""
        parts = [("get", "pods", "-o", "wide"), ("get", "events"), ("logs", "deployment/authservice", "--all-containers", "--tail", "20")]
        return "\n".join(self.kubectl(*part, check=False).stdout for part in parts)

    def command(self, *arguments) -> str:
        """A command of the server, in its container."""
        binary = "/usr/local/bin/authservice"
        return self.kubectl("exec", "deployment/authservice", "--container", "authservice", "--", binary, *arguments).stdout

    def logs(self) -> list[str]:
        """What each server has logged."""
        return [self.kubectl("logs", pod["metadata"]["name"], "--container", "authservice").stdout for pod in self.pods()]

    def secret(self, name: str, **data: str) -> None:
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": self.namespace}, "data": encoded})

    def key(self) -> str:
        return self.get("secret", "authservice-encryption-key")["data"]["encryption-key"]

    # --- its database

    def postgres(self) -> list[str]:
        """Starts a PostgreSQL for this release; the values that name it."""
        name, password = self.namespace, secrets.token_hex(8)
        self.secret("authservice-database", password=password)
        labels = {"database": name}
        where = {"name": name, "namespace": "database", "labels": labels}
        environment = {"POSTGRES_USER": "authservice", "POSTGRES_DB": "authservice", "POSTGRES_PASSWORD_FILE": "/run/secrets/p/password"}
        container = {
            "name": "postgres",
            "image": "docker.io/library/postgres:17-trixie",
            "env": [{"name": key, "value": value} for key, value in environment.items()],
            "volumeMounts": [{"name": "p", "mountPath": "/run/secrets/p"}],
        }
        # On the node that no test drains.
        spec = {
            "containers": [container],
            "volumes": [{"name": "p", "secret": {"secretName": name}}],
            "nodeSelector": {"kubernetes.io/hostname": "node2"},
            "terminationGracePeriodSeconds": 0,
        }
        apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "database"}},
            {"apiVersion": "v1", "kind": "Secret", "metadata": where, "stringData": {"password": password}},
            {"apiVersion": "v1", "kind": "Pod", "metadata": where, "spec": spec},
            {"apiVersion": "v1", "kind": "Service", "metadata": where, "spec": {"selector": labels, "ports": [{"port": 5432}]}},
        )
        return [f"database.postgres.host={name}.database.svc.cluster.local", "database.postgres.existingSecret=authservice-database"]

    def query(self, sql: str, password: str) -> None:
        """Runs SQL in that PostgreSQL as its only role, which asks for the password everywhere."""
        psql = ["psql", "--host", "127.0.0.1", "--username", "authservice", "--dbname", "authservice", "--command", sql]
        kubectl("exec", self.namespace, "--namespace", "database", "--", "env", f"PGPASSWORD={password}", *psql)

    def volume(self) -> None:
        """A volume on a node, which only this release's claim may take."""
        folder = RUN / "volumes" / self.namespace
        folder.mkdir(parents=True)
        expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node2"]}
        spec = {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "local": {"path": str(folder)},
            "claimRef": {"namespace": self.namespace, "name": "authservice-data"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}},
        }
        apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": self.namespace}, "spec": spec})

    # --- its clients

    def address(self) -> str:
        return self.get("service", "authservice")["spec"]["clusterIP"]

    def ask(self, method: str, path: str, body: dict | None = None, token: str | None = None) -> tuple[int, dict]:
        """Where there was no pod, the node's proxy refuses for a moment longer than the new one is not ready."""
        end = time.monotonic() + 10
        while True:
            try:
                with contextlib.closing(http.client.HTTPConnection(self.address(), 9998, timeout=10)) as connection:
                    return exchange(connection, method, path, body, token)
            except ConnectionRefusedError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)

    def register(self) -> None:
        status, said = self.ask("POST", f"{API}/users/register", {"email": "alice@example.com", "password": PASSWORD, "full_name": "Alice"})
        assert status in (200, 201), said

    def sign_in(self) -> dict:
        status, pair = self.ask("POST", f"{API}/auth/login", {"email": "alice@example.com", "password": PASSWORD})
        assert status == 200, pair
        return pair

    def load(self) -> "Load":
        return Load(self)


def exchange(connection, method: str, path: str, body: dict | None = None, token: str | None = None) -> tuple[int, dict]:
    headers = {"Content-Type": "application/json"} if body else {}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    connection.request(method, path, json.dumps(body) if body else None, headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read() or b"null")


class Load:
    """Clients that go through the Service for as long as the block lasts; every answer but 200 and every broken connection counts.

    Some connect anew for each request, some keep their connection until the server ends it, some rotate a session's refresh token.
    """

    def __init__(self, release: Release):
        self.address = release.address()
        self.pairs = [release.sign_in() for _ in range(2)]
        self.done, self.failures, self.stopping = 0, [], threading.Event()
        kinds = [self.connecting] * 4 + [self.keeping] * 2
        self.threads = [threading.Thread(target=kind, args=(self.pairs[0]["access_token"],)) for kind in kinds]
        self.threads += [threading.Thread(target=self.rotating, args=(pair["refresh_token"],)) for pair in self.pairs]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        wait_for("the load does not start", lambda: self.done > 100)
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        print(f"{self.done} requests answered, {len(self.failures)} failed")

    def assert_all_served(self):
        assert not self.failures, "\n".join([f"{len(self.failures)} failed, {self.done} did not", *self.failures[:10], *self.failures[-10:]])

    def connect(self):
        return contextlib.closing(http.client.HTTPConnection(self.address, 9998, timeout=10))

    def connecting(self, token: str):
        while not self.stopping.wait(0.01):
            with self.connect() as connection:
                self.once(connection, "GET", f"{API}/users/me", token)

    def keeping(self, token: str):
        with self.connect() as connection:
            while not self.stopping.wait(0.01):
                self.once(connection, "GET", f"{API}/users/me", token)

    def rotating(self, token: str):
        # A session may be refreshed 30 times a minute.
        while not self.stopping.wait(2.5):
            with self.connect() as connection:
                pair = self.once(connection, "POST", f"{API}/auth/refresh", token)
                token = pair["refresh_token"] if pair else token

    def once(self, connection, method: str, path: str, token: str) -> dict | None:
        began = time.strftime("%H:%M:%S")
        try:
            status, said = exchange(connection, method, path, token=token)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            self.failures.append(f"{began} {method} {path}: {error!r}")
            return None
        if status != 200:
            self.failures.append(f"{began} {method} {path}: {status} {said}")
            return None
        self.done += 1
        return said
