#!/usr/bin/env python3
"""A Kubernetes-shaped object store, just enough for a real `helm install/upgrade/rollback/test/uninstall --wait`.

Hardly any validation (see refusal), no RBAC, no controllers: Deployments are ready at once, Jobs complete (annotation
fake/outcome: fail on the Job's pod template makes them fail). Loopback only; port 0 lets the system choose.
"""
import copy, json, re, sys, threading, time, uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse, parse_qs
import yaml
RES = """v1 namespaces Namespace 0|v1 pods Pod 1|v1 services Service 1|v1 secrets Secret 1|v1 configmaps ConfigMap 1|v1 serviceaccounts ServiceAccount 1|v1 persistentvolumeclaims PersistentVolumeClaim 1
apps/v1 deployments Deployment 1|apps/v1 statefulsets StatefulSet 1|apps/v1 replicasets ReplicaSet 1|batch/v1 jobs Job 1|batch/v1 cronjobs CronJob 1|policy/v1 poddisruptionbudgets PodDisruptionBudget 1
autoscaling/v2 horizontalpodautoscalers HorizontalPodAutoscaler 1|networking.k8s.io/v1 ingresses Ingress 1|networking.k8s.io/v1 networkpolicies NetworkPolicy 1
rbac.authorization.k8s.io/v1 roles Role 1|rbac.authorization.k8s.io/v1 rolebindings RoleBinding 1
gateway.networking.k8s.io/v1 httproutes HTTPRoute 1|monitoring.coreos.com/v1 servicemonitors ServiceMonitor 1"""
R = [tuple(x.split()) for l in RES.splitlines() for x in l.split("|")]
GV = sorted({r[0] for r in R}); DB = {}; LOCK = threading.Condition(); RV = [1]; LOG = []
def pb(b):
    """protobuf wire format -> list of (field, value)"""
    i, out = 0, []
    def var():
        nonlocal i; r = sh = 0
        while True:
            c = b[i]; i += 1; r |= (c & 127) << sh; sh += 7
            if c < 128: return r
    while i < len(b):
        t = var(); f, w = t >> 3, t & 7
        if w == 0: v = var()
        elif w == 2: n = var(); v = b[i:i + n]; i += n
        elif w == 1: v = b[i:i + 8]; i += 8
        else: v = b[i:i + 4]; i += 4
        out.append((f, v))
    return out
def smap(fs, n): return {dict(pb(v))[1].decode(): dict(pb(v)).get(2, b"") for f, v in fs if f == n}
def decode(body):
    """Helm keeps its releases as Secrets and sends those as protobuf; everything else is JSON or YAML."""
    if body[:4] != b"k8s\0": return yaml.safe_load(body)
    import base64
    u = dict(pb(body[4:])); kind = dict(pb(u[1])).get(2, b"").decode(); fs = pb(u[2])
    if kind == "DeleteOptions": return {}
    assert kind == "Secret", kind
    m = pb(dict(fs)[1]); md = {"name": dict(m)[1].decode(), "labels": {k: v.decode() for k, v in smap(m, 11).items()}}
    return {"kind": "Secret", "apiVersion": "v1", "metadata": md, "data": {k: base64.b64encode(v).decode() for k, v in smap(fs, 2).items()}, "type": dict(fs).get(3, b"Opaque").decode()}
def status(o):
    k, g = o["kind"], o["metadata"]["generation"]; now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if k == "Namespace": o["status"] = {"phase": "Active"}
    if k in ("Deployment", "StatefulSet"):
        n = o["spec"].get("replicas", 1)
        o["status"] = {"observedGeneration": g, "replicas": n, "updatedReplicas": n, "readyReplicas": n, "availableReplicas": n, "currentReplicas": n, "currentRevision": "a", "updateRevision": "a",
                       "conditions": [{"type": "Available", "status": "True"}, {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}]}
    if k in ("Job", "Pod"):
        bad = (o["spec"].get("template", o).get("metadata", {}).get("annotations") or {}).get("fake/outcome") == "fail"
        if k == "Job": o["status"] = {"startTime": now, "failed" if bad else "succeeded": 1, "completionTime": now, "conditions": [{"type": "Failed" if bad else "Complete", "status": "True"}]}
        else: o["status"] = {"phase": "Failed" if bad else "Succeeded", "startTime": now, "conditions": [{"type": "Ready", "status": "False", "reason": "PodCompleted"}]}
    if k == "Service": o["spec"].setdefault("clusterIP", "10.96.0.1")
    if k == "PersistentVolumeClaim": o["status"] = {"phase": "Bound"}
    if k == "Secret" and "stringData" in o:
        import base64
        o.setdefault("data", {}).update({a: base64.b64encode(b.encode()).decode() for a, b in o.pop("stringData").items()})
def refusal(old, new, exists):
    """What a real API server would refuse, or its controllers would wait for: the rules that charts break most easily."""
    k, sp = new["kind"], new.get("spec", {}); before = (old or {}).get("spec", {})
    if k == "Secret" and old and old.get("immutable") and (old.get("data"), True) != (new.get("data"), new.get("immutable")): return "data: field is immutable when `immutable` is set"
    if k == "Deployment" and old and before["selector"] != sp["selector"]: return "spec.selector: field is immutable"
    if k == "Deployment" and sp["strategy"]["type"] == "Recreate" and sp["strategy"].get("rollingUpdate"): return "spec.strategy.rollingUpdate: may not be specified when strategy type is Recreate"
    if k == "Job" and old and before["template"] != sp["template"]: return "spec.template: field is immutable"
    if k in ("Job", "Pod"):
        pod = sp if k == "Pod" else sp["template"]["spec"]; need = [("serviceaccounts", pod["serviceAccountName"])]
        for v in pod.get("volumes", []): need += [("configmaps", v["configMap"]["name"])] if "configMap" in v else [("secrets", v["secret"]["secretName"])] if "secret" in v else []
        missing = [f"{a}/{b}" for a, b in need if b != "default" and not exists(a, b)]
        if missing: return f"its pod would wait for {missing}"
    return None
def merge(a, b):
    if not isinstance(b, dict) or not isinstance(a, dict): return b
    a = dict(a)
    for k, v in b.items():
        if k.startswith("$"): continue  # directives of strategic merge patches
        if v is None: a.pop(k, None)
        else: a[k] = merge(a.get(k), v) if k in a else v
    return a
class H(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(s, *a): pass
    def out(s, code, o):
        b = json.dumps(o).encode(); s.send_response(code); s.send_header("Content-Type", "application/json"); s.send_header("Content-Length", str(len(b))); s.end_headers(); s.wfile.write(b)
    def err(s, code, reason, msg): s.out(code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": msg, "code": code})
    def handle_any(s):
        n = int(s.headers.get("Content-Length") or 0); body = s.rfile.read(n) if n else b""
        u = urlparse(s.path); q = {k: v[0] for k, v in parse_qs(u.query).items()}; p = u.path.strip("/")
        LOG.append((s.command, s.path))
        if p == "version": return s.out(200, {"major": "1", "minor": "34", "gitVersion": "v1.34.0"})
        if p == "openapi/v3": return s.err(404, "NotFound", "no openapi")
        if p == "openapi/v2":  # an empty document: helm then leaves validation to the server
            b = b"\x0a\x032.0"; s.send_response(200); s.send_header("Content-Type", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"); s.send_header("Content-Length", str(len(b))); s.end_headers(); s.wfile.write(b); return
        if p == "api": return s.out(200, {"kind": "APIVersions", "versions": ["v1"]})
        if p == "apis": return s.out(200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": [{"name": g.split("/")[0], "versions": [{"groupVersion": g, "version": g.split("/")[1]}], "preferredVersion": {"groupVersion": g, "version": g.split("/")[1]}} for g in GV if "/" in g]})
        m = re.match(r"^(?:api/(v1)|apis/([^/]+/[^/]+))(?:/(.*))?$", p)
        if not m: return s.err(404, "NotFound", p)
        gv = m[1] or m[2]; rest = (m[3] or "").split("/") if m[3] else []
        if not rest: return s.out(200, {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": gv, "resources": [{"name": r[1], "singularName": r[2].lower(), "kind": r[2], "namespaced": r[3] == "1", "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"]} for r in R if r[0] == gv]})
        ns = ""
        if rest[0] == "namespaces" and len(rest) > 2: ns, rest = rest[1], rest[2:]
        plural, name = rest[0], (rest[1] if len(rest) > 1 else None)
        r = next((r for r in R if r[0] == gv and r[1] == plural), None)
        if not r: return s.err(404, "NotFound", plural)
        obj = decode(body) if body else None; key = (gv, plural, ns, name); c = s.command; dry = "dryRun" in q
        def sel(o):
            if ns and o["metadata"].get("namespace") != ns: return False
            for t in filter(None, q.get("labelSelector", "").split(",")):
                a, _, b = t.partition("="); 
                if o["metadata"].get("labels", {}).get(a) != b.lstrip("="): return False
            for t in filter(None, q.get("fieldSelector", "").split(",")):
                a, _, b = t.partition("=")
                if a == "metadata.name" and o["metadata"]["name"] != b: return False
            return True
        if c == "GET" and not name:
            with LOCK: items = [copy.deepcopy(o) for k, o in DB.items() if k[:2] == (gv, plural) and sel(o)]; rv = RV[0]
            if q.get("sendInitialEvents"): return s.err(422, "Invalid", "watch-list is not supported; list first")
            if q.get("watch") in ("1", "true"):
                s.send_response(200); s.send_header("Content-Type", "application/json"); s.send_header("Transfer-Encoding", "chunked"); s.end_headers()
                seen = {}; end = time.time() + min(int(q.get("timeoutSeconds", 30)), 60)
                since = int(q.get("resourceVersion") or 0)
                try:
                    def ev(t, o):
                        b = (json.dumps({"type": t, "object": o}) + "\n").encode(); s.wfile.write(b"%x\r\n%s\r\n" % (len(b), b)); s.wfile.flush()
                    for o in items: seen[o["metadata"]["uid"]] = o; (int(o["metadata"]["resourceVersion"]) > since) and ev("ADDED", o)
                    while time.time() < end:
                        with LOCK: LOCK.wait(0.3); cur = {o["metadata"]["uid"]: copy.deepcopy(o) for k, o in DB.items() if k[:2] == (gv, plural) and sel(o)}
                        for i, o in cur.items():
                            if i not in seen: ev("ADDED", o)
                            elif seen[i]["metadata"]["resourceVersion"] != o["metadata"]["resourceVersion"]: ev("MODIFIED", o)
                        for i in set(seen) - set(cur): ev("DELETED", seen[i])
                        seen = cur
                    s.wfile.write(b"0\r\n\r\n")
                except (BrokenPipeError, ConnectionResetError): pass
                return
            return s.out(200, {"kind": r[2] + "List", "apiVersion": gv, "metadata": {"resourceVersion": str(rv)}, "items": items})
        with LOCK:
            old = DB.get(key)
            if c == "GET": return s.out(200, old) if old else s.err(404, "NotFound", f'{plural} "{name}" not found')
            if c == "DELETE":
                if not old: return s.err(404, "NotFound", f'{plural} "{name}" not found')
                if not dry: del DB[key]; RV[0] += 1; LOCK.notify_all()
                return s.out(200, old)
            if c == "POST":
                name = obj["metadata"]["name"]; key = (gv, plural, ns, name); old = DB.get(key)
                if old: return s.err(409, "AlreadyExists", f'{plural} "{name}" already exists')
                new = obj
            elif c == "PUT": new = obj
            elif c == "PATCH":
                ct = s.headers.get("Content-Type", "")
                if "apply" in ct: new = obj
                elif not old: return s.err(404, "NotFound", f'{plural} "{name}" not found')
                else: new = merge(old, obj)
            why = refusal(old, new, lambda a, b: ("v1", a, ns, b) in DB)
            if why: return s.err(422, "Invalid", f'{r[2]} "{name}" is invalid: {why}')
            new = copy.deepcopy(new); md = new.setdefault("metadata", {}); om = (old or {}).get("metadata", {})
            if plural != "namespaces" and ns: md["namespace"] = ns
            RV[0] += 1; md["name"] = name; md["uid"] = om.get("uid") or str(uuid.uuid4()); md["creationTimestamp"] = om.get("creationTimestamp") or time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            md["generation"] = om.get("generation", 0) + 1; md["resourceVersion"] = str(RV[0]); new["kind"], new["apiVersion"] = r[2], gv; md.pop("managedFields", None)
            status(new)
            if not dry:
                DB[key] = new
                if new["kind"] == "Deployment":  # Helm 3's --wait looks for the replica set
                    sp = new["spec"]; n = sp.get("replicas", 1)
                    DB[("apps/v1", "replicasets", ns, name + "-rs")] = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "spec": {"replicas": n, "selector": sp["selector"], "template": sp["template"]}, "status": {"observedGeneration": 1, "replicas": n, "readyReplicas": n, "availableReplicas": n},
                        "metadata": {"name": name + "-rs", "namespace": ns, "uid": "rs-" + md["uid"], "creationTimestamp": md["creationTimestamp"], "resourceVersion": md["resourceVersion"], "generation": 1, "labels": sp["template"]["metadata"].get("labels", {}),
                                     "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": md["uid"], "controller": True}]}}
                LOCK.notify_all()
            return s.out(200 if old else 201, new)
    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any
srv = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), H); port = srv.server_port; srv.daemon_threads = True
print(f"http://127.0.0.1:{port}", flush=True); srv.serve_forever()
