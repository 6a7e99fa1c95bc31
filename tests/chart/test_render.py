"""What must hold for every object that the chart renders, whatever the values."""

import base64
import copy
import re

import kubernetes_validate
import pytest
import yaml

from support import (
    CHART,
    GENERATED,
    LONG_NAME,
    VERSIONS,
    containers,
    hook_of,
    name_of,
    of_kind,
    one,
    pods,
    render,
    template,
    value_files,
)

FILES = value_files()
KUBERNETES = ("1.30", "1.37")
PASSWORD = "p@ss/word"
# Kinds that Kubernetes itself does not know, with the keys of their specs.
FOREIGN = {
    "ServiceMonitor": {"jobLabel", "selector", "namespaceSelector", "endpoints"},
    "PrometheusRule": {"groups"},
    "HTTPRoute": {"parentRefs", "hostnames", "rules"},
    "Cluster": {"instances", "storage", "bootstrap"},
}
pytestmark = pytest.mark.parametrize("path", FILES, ids=name_of)


def without_generated(items):
    """The key-encryption key is another one in each render without a cluster."""
    items = copy.deepcopy(items)
    for secret in of_kind(items, "Secret"):
        if GENERATED in secret["data"]:
            secret["data"][GENERATED] = ""
    return items


def test_both_versions_of_helm_render_the_same(path):
    renders = [without_generated(render(version, path)) for version in VERSIONS]

    assert renders[0] == renders[1]


@pytest.mark.parametrize("kubernetes", KUBERNETES)
def test_kubernetes_knows_every_field(path, kubernetes):
    for item in render("helm4", path):
        if item["kind"] in FOREIGN:
            assert set(item["spec"]) <= FOREIGN[item["kind"]]
        else:
            kubernetes_validate.validate(item, kubernetes, strict=True)


def test_every_pod_is_restricted(path):
    """Pod Security Standards, `restricted`; and what it does not ask for: a read-only root, no token, no service links."""
    for item, pod in pods(render("helm4", path)):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        for volume in spec.get("volumes", []):
            kinds = set(volume) - {"name"}
            assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}, kinds
        for container in containers(pod):
            where = f"{item['kind']} {item['metadata']['name']}, {container['name']}"
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, where
            assert context["readOnlyRootFilesystem"] is True, where
            assert context["capabilities"] == {"drop": ["ALL"]}, where
            assert context.get("privileged", False) is False, where
            assert "memory" in container["resources"]["limits"], where
            # OpenShift gives a user of its own, who may not enter the image's folder.
            assert container.get("workingDir") == "/" or container["name"] == "wait", where
            assert all("hostPort" not in port for port in container.get("ports", [])), where


def test_nothing_is_allowed_to_anybody(path):
    """No role, no binding: the server does not know that it runs in Kubernetes."""
    assert of_kind(render("helm4", path), "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding") == []


def test_what_a_pod_refers_to_is_there_or_was_named_by_the_user(path):
    items = render("helm4", path)
    given = path.read_text()
    made = {(item["kind"], item["metadata"]["name"]): item for item in items}

    def require(kind, name, key, item):
        if f"{name}" in given and (kind, name) not in made:
            return
        target = made.get((kind, name))
        assert target, f"{item['metadata']['name']}: no {kind} {name}"
        assert key is None or key in target["data"], f"{kind} {name} has no {key}"
        # A hook runs before the objects of the release are there.
        if hook_of(item) in (None, "test"):
            assert hook_of(target) is None, f"{kind} {name} goes with its hook"
        else:
            assert hook_of(target) == hook_of(item)
            weights = [int(one_of["metadata"]["annotations"]["helm.sh/hook-weight"]) for one_of in (target, item)]
            assert weights[0] < weights[1]

    for item, pod in pods(items):
        spec = pod["spec"]
        if spec["serviceAccountName"] != "default":
            require("ServiceAccount", spec["serviceAccountName"], None, item)
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        for volume in volumes.values():
            for source in [volume, *volume.get("projected", {}).get("sources", [])]:
                if config := source.get("configMap"):
                    require("ConfigMap", config["name"], "authservice.toml", item)
                if secret := source.get("secret"):
                    keys = [entry["key"] for entry in secret.get("items", [])] or [None]
                    for key in keys:
                        require("Secret", secret.get("secretName", secret.get("name")), key, item)
                if claim := source.get("persistentVolumeClaim"):
                    require("PersistentVolumeClaim", claim["claimName"], None, item)
        mounted = [mount["name"] for container in containers(pod) for mount in container.get("volumeMounts", [])]
        assert set(mounted) == set(volumes), f"{item['metadata']['name']}: volumes and mounts differ"


def test_a_container_mounts_each_file_that_its_environment_names(path):
    """The same way to the secrets for every container: server, migrations, CronJobs."""
    for item, pod in pods(render("helm4", path)):
        for container in containers(pod):
            mounts = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            for variable in container.get("env", []):
                value = variable["value"]
                if value.startswith("/etc/authservice/"):
                    assert value.rsplit("/", 1)[0] in mounts, f"{item['metadata']['name']}: {variable['name']}"


def test_secrets_are_files_and_nothing_else(path):
    items = render("helm4", path)
    encoded = base64.b64encode(PASSWORD.encode()).decode()

    for item in items:
        if item["kind"] != "Secret":
            text = yaml.safe_dump(item)
            assert PASSWORD not in text and encoded not in text, f"{item['kind']} {item['metadata']['name']}"
    for _, pod in pods(items):
        for container in containers(pod):
            names = [variable["name"] for variable in container.get("env", [])]
            assert all("valueFrom" not in variable for variable in container.get("env", []))
            assert not {"POSTGRES_PASSWORD", "AUTHSERVICE__DATABASE__URL", "AUTHSERVICE__KEYS__ENCRYPTION_KEY"} & set(names)


def test_ports_meet(path):
    items = render("helm4", path)
    deployment = one(items, "Deployment")["metadata"]["name"]
    service = one(items, "Service", deployment)
    admin = [item for item in of_kind(items, "Service") if item != service]
    server = one(items, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}

    assert ports == {"http": 9998, "admin": 9999}
    assert [port["targetPort"] for port in service["spec"]["ports"]] == ["http"], "metrics are not for everybody"
    for probe, page, port in (
        ("startupProbe", "ready", "http"),
        ("readinessProbe", "ready", "http"),
        ("livenessProbe", "live", "admin"),
    ):
        assert server[probe]["httpGet"] == {"path": f"/health/{page}", "port": port}
    assert all((port["name"], port["targetPort"]) == ("admin", "admin") for item in admin for port in item["spec"]["ports"])
    for monitor in of_kind(items, "ServiceMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"].items()
        assert [item for item in of_kind(items, "Service") if selector <= item["metadata"]["labels"].items()] == admin != []
        assert [endpoint["port"] for endpoint in monitor["spec"]["endpoints"]] == ["admin"]
        assert monitor["spec"]["jobLabel"] in admin[0]["metadata"]["labels"]
    number = service["spec"]["ports"][0]["port"]
    for route in of_kind(items, "HTTPRoute"):
        assert route["spec"]["rules"][0]["backendRefs"] == [{"name": service["metadata"]["name"], "port": number}]
    for ingress in of_kind(items, "Ingress"):
        backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
        assert backend == {"name": service["metadata"]["name"], "port": {"name": "http"}}
    for test in [item for item in of_kind(items, "Pod") if hook_of(item) == "test"]:
        url = test["spec"]["containers"][0]["args"][2]
        assert url == f"http://{service['metadata']['name']}:{number}/.well-known/openid-configuration"


def test_only_the_server_is_behind_the_service(path):
    items = render("helm4", path)
    selectors = [item["spec"]["selector"] for item in of_kind(items, "Service")]
    selectors += [one(items, "Deployment")["spec"]["selector"]["matchLabels"]]
    selectors += [item["spec"]["selector"]["matchLabels"] for item in of_kind(items, "PodDisruptionBudget")]

    for item, pod in pods(items):
        labels = pod["metadata"]["labels"].items()
        for selector in selectors:
            assert (selector.items() <= labels) == (item["kind"] == "Deployment"), item["metadata"]["name"]
        for policy in of_kind(items, "NetworkPolicy"):
            assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels


def test_the_admin_port_is_for_who_is_named(path):
    for policy in of_kind(render("helm4", path), "NetworkPolicy"):
        for rule in policy["spec"]["ingress"]:
            assert {port["port"] for port in rule["ports"]} == {9998} or rule["from"]


def test_names_fit_with_the_longest_release(path):
    items = render("helm4", path, release=LONG_NAME)
    names = [(item["kind"], item["metadata"]["name"]) for item in items]

    assert len(LONG_NAME) == 53
    assert len(names) == len(set(names))
    for item in items:
        most = 52 if item["kind"] == "CronJob" else 63
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", item["metadata"]["name"]) and len(item["metadata"]["name"]) <= most
        for key, value in item["metadata"].get("labels", {}).items():
            assert re.fullmatch(r"([A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?)?", value) and len(value) <= 63, key


def test_a_release_may_be_called_by_a_number(path):
    for item in render("helm4", path, release="123"):
        assert all(isinstance(value, str) for value in item["metadata"].get("labels", {}).values())
        assert isinstance(item["metadata"]["name"], str)


def test_selectors_stay_when_the_chart_grows(path):
    """A Deployment's selector is immutable."""
    server = one(render("helm4", path), "Deployment")["spec"]
    keys = {f"app.kubernetes.io/{name}" for name in ("name", "instance", "component")}

    assert set(server["selector"]["matchLabels"]) == keys
    assert "helm.sh/chart" not in server["template"]["metadata"]["labels"]


def test_the_strategy_is_whole_and_one_pod_at_a_time_has_the_file(path):
    """Helm 4 cannot change a strategy of which a part came from a default."""
    items = render("helm4", path)
    server = one(items, "Deployment")["spec"]
    strategy = server["strategy"]
    uses_sqlite = "sqlite" in one(items, "ConfigMap", one(items, "Deployment")["metadata"]["name"])["data"]["authservice.toml"]

    if strategy["type"] == "RollingUpdate":
        assert set(strategy["rollingUpdate"]) == {"maxSurge", "maxUnavailable"}
    else:
        assert strategy == {"type": "Recreate"}
    if uses_sqlite:
        assert (strategy["type"], server["replicas"]) == ("Recreate", 1)
        assert of_kind(items, "PodDisruptionBudget", "HorizontalPodAutoscaler", "CronJob") == []


def test_who_scales_is_one(path):
    items = render("helm4", path)

    assert not of_kind(items, "HorizontalPodAutoscaler") or "replicas" not in one(items, "Deployment")["spec"]


def test_no_budget_blocks_a_drain(path):
    items = render("helm4", path)
    replicas = one(items, "Deployment")["spec"].get("replicas")
    budgets = of_kind(items, "PodDisruptionBudget")

    assert len(budgets) == (0 if replicas == 1 else 1)
    assert all("minAvailable" not in budget["spec"] for budget in budgets)


def test_hooks_are_for_those_who_asked(path):
    hooks = {(item["kind"], hook_of(item)) for item in render("helm4", path) if hook_of(item)}
    wants_hooks = yaml.safe_load(path.read_text()).get("migrations", {}).get("mode") == "hook"

    assert ("Pod", "test") in hooks
    assert (("Job", "pre-install,pre-upgrade") in hooks) == wants_hooks
    assert wants_hooks or len(hooks) == 1


def test_what_holds_data_survives_the_release(path):
    for item in of_kind(render("helm4", path), "PersistentVolumeClaim", "Secret"):
        holds_data = item["kind"] == "PersistentVolumeClaim" or GENERATED in item["data"]
        if holds_data:
            assert item["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_every_object_says_whose_it_is(path):
    for item in render("helm4", path):
        if item["metadata"]["name"] in ("auth-db", "authservice-extra", "authservice-more"):
            continue  # objects of the user
        assert item["metadata"]["namespace"] == "identity"
        assert item["metadata"]["labels"]["app.kubernetes.io/instance"] == "authservice"
