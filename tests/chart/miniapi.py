"""A stand-in for the API server of Kubernetes: just enough for a real helm to install, upgrade, roll back, test and uninstall.

It keeps what it is sent. Deployments are ready at once, Jobs complete (with the annotation fake/outcome: fail on their pods they
fail), and it refuses only what charts break most easily: see refusal(). Run as miniapi.py; it prints its address on loopback.
"""

import base64
import copy
import json
import re
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

import yaml

# Group and version, plural, kind.
RESOURCES = [tuple(line.split()) for line in """
    v1 namespaces Namespace
    v1 pods Pod
    v1 services Service
    v1 secrets Secret
    v1 configmaps ConfigMap
    v1 serviceaccounts ServiceAccount
    v1 persistentvolumeclaims PersistentVolumeClaim
    apps/v1 deployments Deployment
    apps/v1 replicasets ReplicaSet
    batch/v1 jobs Job
    batch/v1 cronjobs CronJob
    policy/v1 poddisruptionbudgets PodDisruptionBudget
    autoscaling/v2 horizontalpodautoscalers HorizontalPodAutoscaler
    networking.k8s.io/v1 ingresses Ingress
    networking.k8s.io/v1 networkpolicies NetworkPolicy
    gateway.networking.k8s.io/v1 httproutes HTTPRoute
    """.strip().splitlines()]
# By group and version, plural, namespace, name.
OBJECTS: dict[tuple, dict] = {}
CHANGED = threading.Condition()
REVISION = [1]


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


# --- Bodies. Helm sends its own records, which are Secrets, as protobuf, and everything else as JSON or YAML.


def protobuf(data: bytes) -> list[tuple[int, int | bytes]]:
    """Fields and values of a message."""
    at, fields = 0, []

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        tag = number()
        if tag & 7 == 0:
            value = number()
        else:
            length = {1: 8, 5: 4}.get(tag & 7) or number()
            value = data[at : at + length]
            at += length
        fields.append((tag >> 3, value))
    return fields


def decode(body: bytes) -> dict:
    if not body.startswith(b"k8s\0"):
        return yaml.safe_load(body)
    envelope = dict(protobuf(body[4:]))
    kind = dict(protobuf(envelope[1])).get(2, b"").decode()
    if kind == "DeleteOptions":
        return {}
    assert kind == "Secret", kind
    fields = protobuf(envelope[2])
    metadata = protobuf(dict(fields)[1])

    def entries(fields, number: int) -> dict[str, bytes]:
        pairs = [dict(protobuf(value)) for field, value in fields if field == number]
        return {pair[1].decode(): pair.get(2, b"") for pair in pairs}

    return {
        "kind": "Secret",
        "apiVersion": "v1",
        "metadata": {
            "name": dict(metadata)[1].decode(),
            "labels": {key: value.decode() for key, value in entries(metadata, 11).items()},
        },
        "data": {key: base64.b64encode(value).decode() for key, value in entries(fields, 2).items()},
        "type": dict(fields).get(3, b"Opaque").decode(),
    }


def merge(old, patch):
    """A merge patch; of a strategic one the directives are left out, and lists are replaced."""
    if not isinstance(old, dict) or not isinstance(patch, dict):
        return patch
    merged = dict(old)
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


# --- What a server and its controllers do.


def refusal(old: dict | None, new: dict, exists) -> str | None:
    """What a real server would refuse, or its controllers would wait for."""
    kind, spec = new["kind"], new.get("spec", {})
    before = (old or {}).get("spec", {})
    if kind == "Secret" and old and old.get("immutable"):
        if not new.get("immutable") or old.get("data") != new.get("data"):
            return "data: field is immutable when `immutable` is set"
    if kind == "Deployment" and old and before["selector"] != spec["selector"]:
        return "spec.selector: field is immutable"
    if kind == "Deployment" and spec["strategy"]["type"] == "Recreate" and spec["strategy"].get("rollingUpdate"):
        return "spec.strategy.rollingUpdate: may not be specified when strategy type is Recreate"
    if kind == "Job" and old and before["template"] != spec["template"]:
        return "spec.template: field is immutable"
    if kind in ("Job", "Pod"):
        pod = spec if kind == "Pod" else spec["template"]["spec"]
        needed = [("serviceaccounts", pod["serviceAccountName"])]
        for volume in pod.get("volumes", []):
            if "configMap" in volume:
                needed.append(("configmaps", volume["configMap"]["name"]))
            if "secret" in volume:
                needed.append(("secrets", volume["secret"]["secretName"]))
        missing = [f"{plural}/{name}" for plural, name in needed if name != "default" and not exists(plural, name)]
        if missing:
            return f"its pod would wait for {missing}"
    return None


def set_status(item: dict) -> None:
    spec, kind = item.get("spec", {}), item["kind"]
    annotations = spec.get("template", item).get("metadata", {}).get("annotations") or {}
    fails = annotations.get("fake/outcome") == "fail"
    match kind:
        case "Namespace":
            item["status"] = {"phase": "Active"}
        case "Service":
            spec.setdefault("clusterIP", "10.96.0.1")
        case "PersistentVolumeClaim":
            item["status"] = {"phase": "Bound"}
        case "Deployment":
            replicas = spec.get("replicas", 1)
            counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), replicas)
            conditions = [
                {"type": "Available", "status": "True"},
                {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"},
            ]
            item["status"] = counts | {"observedGeneration": item["metadata"]["generation"], "conditions": conditions}
        case "Job":
            condition = {"type": "Failed" if fails else "Complete", "status": "True"}
            times = {"startTime": now(), "completionTime": now()}
            item["status"] = times | {"failed" if fails else "succeeded": 1, "conditions": [condition]}
        case "Pod":
            item["status"] = {"phase": "Failed" if fails else "Succeeded", "startTime": now()}


def replica_set(deployment: dict) -> dict:
    """Helm 3 waits for it."""
    metadata, spec = deployment["metadata"], deployment["spec"]
    replicas = spec.get("replicas", 1)
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": metadata["name"], "uid": metadata["uid"], "controller": True}
    same = ("namespace", "creationTimestamp", "resourceVersion")
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {key: metadata[key] for key in same}
        | {"name": f"{metadata['name']}-rs", "uid": f"rs-{metadata['uid']}", "generation": 1}
        | {"labels": spec["template"]["metadata"]["labels"], "ownerReferences": [owner]},
        "spec": {"replicas": replicas, "selector": spec["selector"], "template": spec["template"]},
        "status": dict.fromkeys(("replicas", "readyReplicas", "availableReplicas"), replicas) | {"observedGeneration": 1},
    }


def store(key: tuple, kind: str, old: dict | None, new: dict) -> dict:
    """Keeps an object, with what a server adds to it."""
    group, _, namespace, name = key
    REVISION[0] += 1
    before = (old or {}).get("metadata", {})
    metadata = new.setdefault("metadata", {})
    metadata.pop("managedFields", None)
    metadata |= {
        "name": name,
        "uid": before.get("uid") or str(uuid.uuid4()),
        "creationTimestamp": before.get("creationTimestamp") or now(),
        "generation": before.get("generation", 0) + 1,
        "resourceVersion": str(REVISION[0]),
    }
    if namespace:
        metadata["namespace"] = namespace
    new["kind"], new["apiVersion"] = kind, group
    set_status(new)
    OBJECTS[key] = new
    if kind == "Deployment":
        OBJECTS[(group, "replicasets", namespace, f"{name}-rs")] = replica_set(new)
    CHANGED.notify_all()
    return new


# --- The wire.


def matches(item: dict, namespace: str, query: dict) -> bool:
    metadata = item["metadata"]
    if namespace and metadata.get("namespace") != namespace:
        return False
    labels = [term.partition("=") for term in query.get("labelSelector", "").split(",") if term]
    fields = [term.partition("=") for term in query.get("fieldSelector", "").split(",") if term]
    return all(metadata.get("labels", {}).get(key) == value.lstrip("=") for key, _, value in labels) and all(
        key != "metadata.name" or metadata["name"] == value for key, _, value in fields
    )


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, code: int, body: dict | bytes, media_type: str = "application/json") -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, code: int, reason: str, message: str) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "code": code}
        self.answer(code, status)

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        url = urlparse(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        path = url.path.strip("/")
        if found := re.match(r"(?:api/(v1)|apis/([^/]+/[^/]+))(?:/(.*))?$", path):
            group, rest = found[1] or found[2], (found[3] or "").split("/")
            if rest == [""]:
                self.answer(200, self.resources(group))
            else:
                self.resource(group, rest, query, body)
        else:
            self.discovery(path)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    def discovery(self, path: str) -> None:
        match path:
            case "version":
                self.answer(200, {"major": "1", "minor": "34", "gitVersion": "v1.34.0"})
            case "api":
                self.answer(200, {"kind": "APIVersions", "versions": ["v1"]})
            case "apis":
                groups = []
                for group in sorted({group for group, _, _ in RESOURCES if "/" in group}):
                    version = {"groupVersion": group, "version": group.split("/")[1]}
                    groups.append({"name": group.split("/")[0], "versions": [version], "preferredVersion": version})
                self.answer(200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
            case "openapi/v2":
                # An empty document: helm then leaves validation to the server.
                self.answer(200, b"\x0a\x032.0", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf")
            case _:
                self.refuse(404, "NotFound", path)

    def resources(self, group: str) -> dict:
        verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
        found = [
            {"name": plural, "singularName": kind.lower(), "kind": kind, "namespaced": plural != "namespaces", "verbs": verbs}
            for other, plural, kind in RESOURCES
            if other == group
        ]
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group, "resources": found}

    def resource(self, group: str, rest: list[str], query: dict, body: bytes) -> None:
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        plural, name = rest[0], (rest[1] if len(rest) > 1 else None)
        kind = next((kind for other, known, kind in RESOURCES if (other, known) == (group, plural)), None)
        if not kind:
            self.refuse(404, "NotFound", plural)
        elif self.command == "GET" and not name:
            self.list(group, plural, kind, namespace, query)
        else:
            self.change(group, plural, kind, namespace, name, "dryRun" in query, decode(body) if body else None)

    def list(self, group: str, plural: str, kind: str, namespace: str, query: dict) -> None:
        def selected() -> list[dict]:
            found = [item for key, item in OBJECTS.items() if key[:2] == (group, plural) and matches(item, namespace, query)]
            return copy.deepcopy(found)

        if query.get("sendInitialEvents"):
            self.refuse(422, "Invalid", "watch-list is not supported; list first")
        elif query.get("watch") in ("1", "true"):
            self.watch(selected, query)
        else:
            with CHANGED:
                items, revision = selected(), str(REVISION[0])
            self.answer(
                200, {"kind": f"{kind}List", "apiVersion": group, "metadata": {"resourceVersion": revision}, "items": items}
            )

    def watch(self, selected, query: dict) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

        def send(event: str, item: dict) -> None:
            line = json.dumps({"type": event, "object": item}).encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self.wfile.flush()

        def revision(item: dict) -> int:
            return int(item["metadata"]["resourceVersion"])

        since, end = int(query.get("resourceVersion") or 0), time.time() + min(int(query.get("timeoutSeconds", 30)), 60)
        seen: dict[str, dict] = {}
        try:
            while time.time() < end:
                with CHANGED:
                    if seen:
                        CHANGED.wait(0.3)
                    current = {item["metadata"]["uid"]: item for item in selected()}
                for uid, item in current.items():
                    if uid not in seen and revision(item) > since:
                        send("ADDED", item)
                    elif uid in seen and revision(item) != revision(seen[uid]):
                        send("MODIFIED", item)
                for uid in set(seen) - set(current):
                    send("DELETED", seen[uid])
                if not current:
                    time.sleep(0.05)
                seen = current
            self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass

    def change(self, group, plural, kind, namespace, name, dry_run: bool, sent: dict | None) -> None:
        with CHANGED:
            name = name or sent["metadata"]["name"]
            key = (group, plural, namespace, name)
            old = OBJECTS.get(key)
            is_apply = "apply" in self.headers.get("Content-Type", "")
            if self.command == "POST" and old:
                return self.refuse(409, "AlreadyExists", f'{plural} "{name}" already exists')
            if not old and self.command not in ("POST", "PUT") and not is_apply:
                return self.refuse(404, "NotFound", f'{plural} "{name}" not found')
            if self.command == "GET":
                return self.answer(200, old)
            if self.command == "DELETE":
                if not dry_run:
                    del OBJECTS[key]
                    REVISION[0] += 1
                    CHANGED.notify_all()
                return self.answer(200, old)
            new = copy.deepcopy(merge(old, sent) if self.command == "PATCH" and not is_apply else sent)
            new["kind"] = kind
            why = refusal(old, new, lambda plural, name: ("v1", plural, namespace, name) in OBJECTS)
            if why:
                return self.refuse(422, "Invalid", f'{kind} "{name}" is invalid: {why}')
            self.answer(200 if old else 201, new if dry_run else store(key, kind, old, new))


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
