"""Values: those that are refused, by message; and what some of them do that no invariant says."""

import json

import pytest
import yaml

from support import CHART, VERSIONS, helm, objects, of_kind, one, template

COMPONENT = "app.kubernetes.io/component"
BASE = {"issuer": "https://auth.example.com"}
POSTGRES = {"database": {"postgres": {"host": "db", "existingSecret": "db"}}}

REFUSED = [
    # What only the templates can say.
    ({"issuer": ""}, "issuer: must be set"),
    ({"issuer": "http://auth.example.com"}, "issuer: must be https"),
    ({"config": {"server": {"issuer": "https://a.example"}}}, "config.server.issuer: is not set here but by issuer"),
    ({"config": {"server": {"port": 80}}}, "config.server.port: is not set here but by service.port"),
    (
        {"config": {"database": {"url": "postgres://u:p@h/d"}}},
        "config.database.url: is not set here but by database.postgres.existingSecret",
    ),
    (
        {"config": {"keys": {"encryption_key": "x"}}},
        "config.keys.encryption_key: is not set here but by keys.masterKey.existingSecret",
    ),
    ({"config": {"keys": {"previous_encryption_key": "x"}}}, "config.keys.previous_encryption_key: is not set here"),
    (
        {"config": {"keys": {"private_key_path": "/x"}}},
        "config.keys.private_key_path: is not set here but by keys.import.existingSecret",
    ),
    ({"config": {"traces": {"headers": "a=b"}}}, "config.traces.headers: is not set here but by AUTHSERVICE__TRACES__HEADERS_FILE"),
    ({"config": {"admin": {"port": 9000}}}, "config.admin.port: is not set here but by the chart, as 9999"),
    (
        {"config": {"admin": {"enabled": False}}, "admin": {"service": {"enabled": True}}},
        "admin.service.enabled: needs the admin port, which config.admin.enabled switches off",
    ),
    (
        {"config": {"admin": {"enabled": False}}, "metrics": {"serviceMonitor": {"enabled": True}}},
        "metrics.serviceMonitor.enabled: needs the admin port",
    ),
    ({"replicaCount": 2}, "replicaCount: must be 1 with SQLite"),
    ({"replicaCount": None}, "replicaCount: must be 1 with SQLite"),
    ({"autoscaling": {"enabled": True}}, "autoscaling.enabled: is impossible with SQLite"),
    ({"strategy": {"type": "RollingUpdate"}}, "strategy.type=RollingUpdate: is impossible with SQLite"),
    ({"migrations": {"mode": "hook"}}, "migrations.mode=hook: is impossible with SQLite"),
    ({"keys": {"rotation": {"enabled": True}}}, "keys.rotation.enabled: is impossible with SQLite"),
    ({"cleanup": {"enabled": True}}, "cleanup.enabled: is impossible with SQLite"),
    ({"database": {"type": "postgres"}}, "database.postgres.existingSecret: must be set"),
    ({"database": {"postgres": {"host": "db"}}}, "database.postgres.existingSecret: must be set"),
    (
        {"database": {"postgres": {"host": "db", "password": "a", "existingSecret": "b"}}},
        "database.postgres.password: belongs into existingSecret",
    ),
    ({"database": {"type": "postgres", "postgres": {"password": "a"}}}, "database.postgres.password: needs database.postgres.host"),
    ({"keys": {"masterKey": {"generate": False}}}, "keys.masterKey.existingSecret: must be set"),
    (POSTGRES | {"autoscaling": {"enabled": True, "minReplicas": 9}}, "autoscaling.minReplicas: must not be more than"),
    ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs: must name the gateway"),
    (POSTGRES | {"terminationGracePeriodSeconds": 21}, "terminationGracePeriodSeconds: must be at least 22"),
    (POSTGRES | {"config": {"server": {"drain_seconds": 30}}}, "terminationGracePeriodSeconds: must be at least 47"),
    ({"terminationGracePeriodSeconds": 11}, "terminationGracePeriodSeconds: must be at least 12"),
    ({"config": {"server": {"drain_seconds": 30}}}, "terminationGracePeriodSeconds: must be at least 42"),
    # A list with a name twice is refused by an API server that merges it by name.
    ({"extraEnv": [{"name": "AUTHSERVICE_CONFIG", "value": "/x"}]}, "extraEnv: AUTHSERVICE_CONFIG is set by the chart; use config"),
    (
        POSTGRES | {"extraEnv": [{"name": "PGSSLMODE", "value": "require"}]},
        "extraEnv: PGSSLMODE is set by the chart; use database.postgres.sslMode",
    ),
    (
        POSTGRES | {"extraEnv": [{"name": "AUTHSERVICE__DATABASE__CONNECT_TIMEOUT_SECONDS", "value": "60"}]},
        "CONNECT_TIMEOUT_SECONDS is set by the chart; use config.database.connect_timeout_seconds",
    ),
    ({"extraEnv": [{"name": "X", "value": "1"}, {"name": "X", "value": "2"}]}, "extraEnv: X is there twice"),
    # What the schema says.
    ({"issuer": "https://auth.example.com/"}, "/issuer"),
    ({"issuer": "auth.example.com"}, "/issuer"),
    ({"isuer": "x"}, "isuer"),
    ({"database": {"postgres": {"hots": "x"}}}, "hots"),
    ({"database": {"type": "mysql"}}, "/database/type"),
    ({"database": {"sqlite": {"accessModes": ["ReadWriteMany"]}}}, "/database/sqlite/accessModes"),
    ({"database": {"postgres": {"host": "db:5432/name"}}}, "/database/postgres/host"),
    ({"database": {"postgres": {"sslMode": "on"}}}, "/database/postgres/sslMode"),
    ({"podAnnotations": {"x": 1}}, "/podAnnotations/x"),
    ({"podLabels": {"x": True}}, "/podLabels/x"),
    ({"replicaCount": "2"}, "/replicaCount"),
    ({"extraEnv": [{"name": "X", "value": 1}]}, "/extraEnv/0/value"),
    ({"config": {"server": "x"}}, "/config/server"),
    ({"config": {"server": {"a": {"b": 1}}}}, "/config/server/a"),
    ({"image": {"digest": "latest"}}, "/image/digest"),
    ({"migrations": {"mode": "job"}}, "/migrations/mode"),
    ({"strategy": {"rollingUpdate": {"maxSurge": "all"}}}, "/strategy/rollingUpdate/maxSurge"),
    ({"service": {"port": 0}}, "/service/port"),
    ({"admin": {"service": {"port": 80}}}, "port"),
    ({"metrics": {"serviceMonitor": {"interval": "30"}}}, "/metrics/serviceMonitor/interval"),
    ({"metrics": {"serviceMonitor": {"labels": {"release": 1}}}}, "/metrics/serviceMonitor/labels/release"),
    ({"metrics": {"prometheusRule": {"runbookUrl": "wiki"}}}, "/metrics/prometheusRule/runbookUrl"),
    ({"metrics": {"dashboard": {"folder": "x"}}}, "folder"),
    ({"networkPolicy": {"ingress": {"adminFrom": ["10.0.0.0/8"]}}}, "/networkPolicy/ingress/adminFrom/0"),
    ({"service": {"externalTrafficPolicy": "local"}}, "/service/externalTrafficPolicy"),
]


def refusal(version: str, values: dict) -> str:
    done = helm(version, "template", "authservice", CHART, "--values", file_of(values))
    assert done.returncode != 0, f"accepted: {values}"
    return done.stderr


def file_of(values: dict):
    path = file_of.folder / f"{file_of.count}.yaml"
    file_of.count += 1
    path.write_text(yaml.safe_dump(BASE | values))
    return path


@pytest.fixture(autouse=True)
def folder(tmp_path):
    file_of.folder, file_of.count = tmp_path, 0


def make(values: dict, *arguments):
    return objects(template("helm4", "--values", file_of(values), *arguments))


def server(items) -> dict:
    return one(items, "Deployment")["spec"]


def environment(items) -> dict:
    return {variable["name"]: variable["value"] for variable in server(items)["template"]["spec"]["containers"][0]["env"]}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("values", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_is_refused(version, values, message):
    assert message in refusal(version, values)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_upgrade_never_makes_a_key(version):
    done = helm(version, "template", "authservice", CHART, "--is-upgrade", "--values", file_of({}))

    assert done.returncode != 0 and "keys.masterKey: the Secret authservice-encryption-key is not there" in done.stderr


def test_three_values_are_enough():
    items = objects(
        template(
            "helm4",
            "--set",
            "issuer=https://auth.example.com",
            "--set",
            "database.postgres.host=db",
            "--set",
            "database.postgres.existingSecret=db",
        )
    )

    assert environment(items)["POSTGRES_HOST"] == "db"
    assert server(items)["strategy"]["type"] == "RollingUpdate"


def test_so_are_the_issuer_a_secret_with_a_url_and_a_public_host():
    """CloudNativePG's Secret `<cluster>-app` has the key `uri`."""
    items = objects(
        template(
            "helm4",
            "--set",
            "issuer=https://auth.example.com",
            "--set",
            "database.postgres.existingSecret=db-app",
            "--set",
            "ingress.host=auth.example.com",
        )
    )
    volumes = {volume["name"]: volume for volume in server(items)["template"]["spec"]["volumes"]}

    assert environment(items)["AUTHSERVICE__DATABASE__URL_FILE"] == "/etc/authservice/database/secret"
    assert "POSTGRES_HOST" not in environment(items)
    assert volumes["database"]["secret"] == {
        "secretName": "db-app",
        "defaultMode": 0o440,
        "items": [{"key": "uri", "path": "secret"}],
    }
    assert one(items, "Ingress")["spec"]["rules"][0]["host"] == "auth.example.com"


def test_http_is_for_loopback_and_for_who_says_so():
    make({"issuer": "http://localhost:9998"})
    make({"issuer": "http://auth.internal", "config": {"server": {"allow_http_issuer": True}}})


def test_the_type_decides_whatever_else_is_set():
    items = make({"database": {"type": "sqlite", "postgres": {"host": "db"}}})

    assert "POSTGRES_HOST" not in environment(items)
    assert one(items, "PersistentVolumeClaim")


def test_a_certificate_authority_asks_for_verification():
    items = make({"database": {"postgres": {"host": "db", "existingSecret": "db", "caSecret": "ca"}}})

    assert environment(items)["PGSSLMODE"] == "verify-full"
    assert environment(items)["PGSSLROOTCERT"] == "/etc/authservice/database-ca/ca.crt"


def test_every_variable_of_the_chart_has_a_value_to_use_instead():
    """extraEnv may not set one of them again; the message says what to use."""
    everything = {
        "keys": {"previousMasterKey": {"existingSecret": "old"}},
        "database": {"postgres": {"host": "db", "existingSecret": "db", "caSecret": "ca"}},
    }
    url = everything | {"database": {"postgres": {"existingSecret": "db"}}}
    for values in (everything, url):
        pod = server(make(values))["template"]["spec"]
        for name in {variable["name"] for container in pod["initContainers"] + pod["containers"] for variable in container["env"]}:
            message = refusal("helm4", values | {"extraEnv": [{"name": name, "value": "x"}]})
            assert f"extraEnv: {name} is set by the chart; use " in message


def test_migrations_wait_for_a_late_database_as_long_as_the_startup_probe():
    name = "AUTHSERVICE__DATABASE__CONNECT_TIMEOUT_SECONDS"

    def waits(values):
        env = server(make(values))["template"]["spec"]["initContainers"][0]["env"]
        return [variable["value"] for variable in env if variable["name"] == name]

    startup = server(make(POSTGRES))["template"]["spec"]["containers"][0]["startupProbe"]
    assert waits(POSTGRES) == [str(startup["periodSeconds"] * startup["failureThreshold"])]
    assert waits(POSTGRES | {"config": {"database": {"connect_timeout_seconds": 0}}}) == []
    assert waits({}) == [], "SQLite is never late"
    assert name not in environment(make(POSTGRES)), "the server itself waits as long as it takes"


def test_only_where_others_answer_a_pod_lingers():
    def lingers(values):
        items = make(values)
        text = one(items, "ConfigMap")["data"]["authservice.toml"]
        return server(items)["template"]["spec"]["containers"][0].get("lifecycle"), "drain_seconds = 0" in text.splitlines()

    sleep = {"preStop": {"sleep": {"seconds": 5}}}
    assert lingers(POSTGRES) == (sleep, False)
    assert lingers(POSTGRES | {"lifecycle": None}) == (None, False)
    assert lingers({}) == (None, True)
    assert lingers({"lifecycle": sleep, "config": {"server": {"drain_seconds": 3}}}) == (sleep, False)


def test_clients_keep_their_addresses_where_that_is_asked_for():
    def policy(**service):
        return one(make({"service": service}), "Service")["spec"].get("externalTrafficPolicy")

    assert policy(type="LoadBalancer", externalTrafficPolicy="Local") == "Local"
    assert policy(type="NodePort") is None
    assert policy(externalTrafficPolicy="Local") is None, "ClusterIP knows none"


def test_without_one_the_mode_is_that_of_the_driver():
    assert environment(make(POSTGRES))["PGSSLMODE"] == "prefer"


@pytest.mark.parametrize(
    ("mode", "init", "arguments"),
    [
        ("init", True, ["serve", "--no-migrate"]),
        ("hook", False, ["serve", "--no-migrate"]),
        ("server", False, ["serve"]),
        ("none", False, ["serve", "--no-migrate"]),
    ],
)
def test_each_mode_migrates_once(mode, init, arguments):
    items = make(POSTGRES | {"migrations": {"mode": mode}})
    pod = server(items)["template"]["spec"]

    assert pod["containers"][0]["args"] == arguments
    assert [container["args"] for container in pod.get("initContainers", [])] == ([["migrate", "up"]] if init else [])
    assert len(of_kind(items, "Job")) == (mode == "hook")


def test_who_only_migrates_has_no_key():
    for mode in ("init", "hook"):
        items = make(POSTGRES | {"migrations": {"mode": mode}})
        pod = server(items)["template"]["spec"] if mode == "init" else one(items, "Job")["spec"]["template"]["spec"]
        container = (pod.get("initContainers") or pod["containers"])[0]

        assert not [name for variable in container["env"] if "ENCRYPTION" in (name := variable["name"])]
        assert "encryption" not in [mount["name"] for mount in container["volumeMounts"]]


def test_the_test_pod_has_no_secret():
    pod = one(make(POSTGRES), "Pod")["spec"]

    assert "volumes" not in pod and "env" not in pod["containers"][0]


def test_no_volume_only_for_who_says_so():
    items = make({"database": {"sqlite": {"ephemeral": True}}})
    volumes = {volume["name"]: volume for volume in server(items)["template"]["spec"]["volumes"]}

    assert volumes["data"] == {"name": "data", "emptyDir": {}}
    assert of_kind(items, "PersistentVolumeClaim") == []


def test_an_existing_claim_is_used():
    items = make({"database": {"sqlite": {"existingClaim": "mine"}}})
    volumes = {volume["name"]: volume for volume in server(items)["template"]["spec"]["volumes"]}

    assert volumes["data"]["persistentVolumeClaim"] == {"claimName": "mine"}
    assert of_kind(items, "PersistentVolumeClaim") == []


def test_a_changed_setting_starts_the_pods_again():
    def sums(values):
        return server(make(values))["template"]["metadata"]["annotations"]

    assert sums({}) == sums({"commonLabels": {"a": "b"}})
    assert sums({})["checksum/config"] != sums({"config": {"log": {"level": "debug"}}})["checksum/config"]
    passwords = [{"database": {"postgres": {"host": "db", "password": password}}} for password in ("a", "b")]
    assert sums(passwords[0])["checksum/database"] != sums(passwords[1])["checksum/database"]


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ({}, "authservice:0.1.0"),
        ({"image": {"registry": "ghcr.io", "repository": "x/authservice", "tag": "1.2.3"}}, "ghcr.io/x/authservice:1.2.3"),
        ({"image": {"digest": "sha256:" + "a" * 64, "tag": "1.2.3"}}, "authservice@sha256:" + "a" * 64),
        (
            {"image": {"registry": "ghcr.io"}, "global": {"imageRegistry": "mirror.example:5000"}},
            "mirror.example:5000/authservice:0.1.0",
        ),
    ],
)
def test_one_image_for_everything(image, reference):
    everything = {"keys": {"rotation": {"enabled": True}}, "cleanup": {"enabled": True}, "migrations": {"mode": "hook"}}
    text = yaml.safe_dump_all(make(POSTGRES | everything | image))

    images = {
        line.split("image: ", 1)[1].strip("'\"") for line in text.splitlines() if line.strip().startswith(("image: ", "- image: "))
    }
    assert images == {reference}


def test_settings_keep_their_types():
    config = {
        "tokens": {"access_ttl_seconds": 3600},
        "refresh": {"absolute_ttl_seconds": 315360000},
        "limits": {"enabled": False},
        "log": {"level": 'a"b\\c\n'},
    }
    text = one(make({"config": config}), "ConfigMap")["data"]["authservice.toml"]

    for line in ("access_ttl_seconds = 3600", "absolute_ttl_seconds = 315360000", "enabled = false", r'level = "a\"b\\c\n"'):
        assert line in text.splitlines()


def test_the_address_to_listen_on_wins_over_the_image():
    assert environment(make({}))["AUTHSERVICE__SERVER__HOST"] == "0.0.0.0"
    assert environment(make({"config": {"server": {"host": "::"}}}))["AUTHSERVICE__SERVER__HOST"] == "::"


def test_the_admin_port_is_open_in_the_pod_and_nowhere_else():
    items = make({"ingress": {"enabled": True}, "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]}})

    assert environment(items)["AUTHSERVICE__ADMIN__HOST"] == "0.0.0.0"
    assert environment(make({"config": {"server": {"host": "::"}}}))["AUTHSERVICE__ADMIN__HOST"] == "::"
    assert environment(make({"config": {"admin": {"host": "127.0.0.1"}}}))["AUTHSERVICE__ADMIN__HOST"] == "127.0.0.1"
    assert len(of_kind(items, "Service")) == 1
    routed = yaml.safe_dump(of_kind(items, "Ingress", "HTTPRoute"))
    assert "9999" not in routed and "admin" not in routed


def test_without_an_admin_port_nothing_asks_it():
    container = server(make({"config": {"admin": {"enabled": False}}}))["template"]["spec"]["containers"][0]

    assert [port["name"] for port in container["ports"]] == ["http"]
    assert container["livenessProbe"]["httpGet"] == {"path": "/health/live", "port": "http"}


def test_each_part_of_monitoring_is_asked_for_alone():
    def kinds(values):
        items = make(values)
        return sorted((item["kind"], item["metadata"]["name"]) for item in items if item["metadata"]["labels"][COMPONENT] == "admin")

    admin, name = ("Service", "authservice-admin"), "authservice"
    assert kinds({}) == []
    assert kinds({"admin": {"service": {"enabled": True}}}) == [admin]
    assert kinds({"metrics": {"serviceMonitor": {"enabled": True}}}) == [admin, ("ServiceMonitor", name)]
    assert kinds({"metrics": {"prometheusRule": {"enabled": True}}}) == [("PrometheusRule", name)]
    assert kinds({"metrics": {"dashboard": {"enabled": True}}}) == [("ConfigMap", "authservice-dashboard")]


def test_the_operator_finds_what_is_labelled_for_it():
    labels = {"release": "prometheus"}
    monitor = {"enabled": True, "interval": "", "labels": labels, "metricRelabelings": [{"action": "labeldrop", "regex": "pod"}]}
    items = make({"metrics": {"serviceMonitor": monitor, "prometheusRule": {"enabled": True, "labels": labels}}})

    for kind in ("ServiceMonitor", "PrometheusRule"):
        assert one(items, kind)["metadata"]["labels"].items() >= labels.items()
    endpoint = one(items, "ServiceMonitor")["spec"]["endpoints"][0]
    assert endpoint == {"port": "admin", "path": "/metrics", "metricRelabelings": monitor["metricRelabelings"]}


def test_the_rules_are_those_of_the_file_and_link_to_the_runbooks():
    groups = yaml.safe_load((CHART / "files/alerts.yaml").read_text())["groups"]

    def rules(**values):
        return one(make({"metrics": {"prometheusRule": {"enabled": True} | values}}), "PrometheusRule")["spec"]["groups"]

    assert rules() == groups
    for rule in rules(runbookUrl="https://wiki.example.com/runbooks")[0]["rules"]:
        assert rule["annotations"]["runbook_url"] == f"https://wiki.example.com/runbooks#{rule['alert'].lower()}"


def test_the_dashboard_is_that_of_the_file_and_the_sidecar_finds_it():
    config = one(make({"metrics": {"dashboard": {"enabled": True}}}), "ConfigMap", "authservice-dashboard")

    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(config["data"]["authservice.json"]) == json.loads((CHART / "files/dashboard.json").read_text())


def test_a_network_policy_lets_prometheus_in_and_nobody_else():
    prometheus = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]

    def rules(**ingress):
        policy = one(make({"networkPolicy": {"enabled": True, "ingress": ingress}}), "NetworkPolicy")
        return [rule for rule in policy["spec"]["ingress"] if {"port": 9999, "protocol": "TCP"} in rule["ports"]]

    assert rules() == []
    assert rules(adminFrom=prometheus) == [{"ports": [{"port": 9999, "protocol": "TCP"}], "from": prometheus}]


def test_a_setting_of_the_chart_can_be_taken_back():
    for config in (
        None,
        {"passwords": None, "server": None},
        {"passwords": {"max_concurrent": None}, "server": {"host": None, "drain_seconds": None}},
    ):
        text = one(make({"config": config, "lifecycle": None}), "ConfigMap")["data"]["authservice.toml"]

        assert "max_concurrent" not in text and "null" not in text


def test_notes_warn_of_what_loses_data_or_users():
    def notes(values):
        done = helm("helm4", "install", "authservice", CHART, "--dry-run=client", "--values", file_of(values))
        assert done.returncode == 0, done.stderr
        return done.stdout.split("NOTES:")[1]

    plain = notes({})
    assert "the database is SQLite" in plain and "key-encryption key was generated" in plain
    assert "https://auth.example.com/.well-known/openid-configuration" in plain
    assert "has no volume" in notes({"database": {"sqlite": {"ephemeral": True}}})
    for routed in ({"enabled": True}, {"host": "auth.example.com"}):
        assert "address of the proxy" in notes({"ingress": routed})
    assert "registrations_per_address_per_hour" in notes({"ingress": {"enabled": True}})
    assert "address of the node" in notes({"service": {"type": "LoadBalancer"}})
    assert "no proxy is trusted" not in notes({"service": {"type": "NodePort", "externalTrafficPolicy": "Local"}})
    assert "database.postgres is not used" in notes({"database": {"type": "sqlite", "postgres": {"host": "db"}}})
    assert "database.postgres is not used" not in plain
    assert "is not among the hosts" in notes({"ingress": {"host": "other.example.com"}})
    assert "nobody applies migrations" in notes({"migrations": {"mode": "none"}})
    quiet = {
        "keys": {"masterKey": {"existingSecret": "key"}},
        "ingress": {"enabled": True},
        "config": {"server": {"trusted_proxies": ["10.0.0.0/8"]}},
    }
    assert "WARNING" not in notes(POSTGRES | quiet)
