"""The alerts: promtool reads them, each fires when it should and not when it should not, and each has a runbook."""

import re
import subprocess

import pytest
import yaml

from support import CHART, PROMTOOL, ROOT, exposed_metrics, metrics_in

ALERTS = CHART / "files/alerts.yaml"
RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def series(metric: str, values: str, instance: str = "a", **labels: str) -> dict:
    """One time series, a sample a minute, in the notation of promtool: `0+2x5` begins at 0 and grows by 2 five times."""
    labels = {"namespace": "auth", "job": "authservice", "instance": instance} | labels
    selector = ", ".join(f'{name}="{value}"' for name, value in labels.items())
    return {"series": f"{metric}{{{selector}}}", "values": values}


def requests(status: str, values: str, route: str = "/auth_api/v1/auth/refresh") -> dict:
    return series("authservice_http_requests_total", values, method="POST", route=route, status=status)


def latency(below_one: str, all_of_them: str) -> list[dict]:
    buckets = {"1": below_one, "2.5": all_of_them, "+Inf": all_of_them}
    name = "authservice_http_request_duration_seconds_bucket"
    return [series(name, values, method="POST", route="/auth_api/v1/auth/login", le=le) for le, values in buckets.items()]


def ready(values: str, instance: str = "a") -> dict:
    return series("authservice_ready", values, instance)


def sign_ins(wrong: str, right: str) -> list[dict]:
    name = "authservice_sign_ins_total"
    return [series(name, wrong, outcome="invalid_credentials"), series(name, right, outcome="success")]


def thefts(ended: str, refreshes: str) -> list[dict]:
    return [series("authservice_thefts_total", ended), series("authservice_refreshes_total", refreshes, outcome="rotated")]


def counter(name: str, **labels: str):
    """Firing while it grows; quiet when it does not, or did once."""
    return [[series(name, "0+3x60", **labels)]], [[series(name, "7x60", **labels)], [series(name, "0x10 4x50", **labels)]]


INFO = series("authservice_build_info", "1x3000", version="0.1.0", engine="postgres")
STARTED = "process_start_time_seconds"
CLEANED = "authservice_cleanup_last_success_timestamp_seconds"
ERRORS = "authservice_db_errors_total"
TWO_DAYS = "0+60x2880"

# alert: (minute at which it is looked at, series with which it fires, series with which it does not)
CASES = {
    "AuthServiceDown": (
        20,
        [[ready("1x10 0x20")], [ready("1x10 _x20")], [ready("1x10 0x20"), ready("1x10 0x20", "b")], []],
        [[ready("0x30"), ready("1x30", "b")], [ready("1x18 0x20")]],
    ),
    "AuthServiceReplicaNotReady": (
        25,
        [[ready("0x30"), ready("1x30", "b")]],
        [[ready("0x30"), ready("0x30", "b")], [ready("1x10 0x5 1x20"), ready("1x30", "b")]],
    ),
    "AuthServiceRestarts": (
        25,
        [[series(STARTED, "1x3 2x3 3x3 4x3 5x20"), INFO]],
        [[series(STARTED, "1x3 2x3 3x3 4x20"), INFO], [series(STARTED, "1x3 2x3 3x3 4x3 5x20", job="another"), INFO]],
    ),
    "AuthServiceErrorsFast": (
        90,
        [[requests("200", "0+600x120"), requests("503", "0+12x120")], [requests("500", "0+1x120")]],
        [
            [requests("200", "0+600x120"), requests("503", "0+6x120")],
            [requests("200", "0+600x120"), requests("429", "0+600x120")],
            [requests("200", "0+600x120"), requests("503", "0+60x120", "/health/ready")],
            [requests("200", "0+600x120"), requests("503", "0+60x60 3600x60")],
            [requests("200", "0+1x120"), requests("503", "0+0.1x120")],
        ],
    ),
    "AuthServiceErrorsSlow": (
        400,
        [[requests("200", "0+600x450"), requests("503", "0+6x450")]],
        [
            [requests("200", "0+600x450"), requests("503", "0+2x450")],
            [requests("200", "0+600x450"), requests("503", "0+20x300 6000x150")],
            [requests("200", "0+1x450"), requests("503", "0+0.02x450")],
        ],
    ),
    "AuthServiceSlow": (
        40,
        [latency("0+90x60", "0+100x60")],
        [latency("0+100x60", "0+100x60"), latency("7x60", "9x60")],
    ),
    "AuthServiceThefts": (
        90,
        [thefts("0+1x100", "0+50x100")],
        [thefts("0+1x100", "0+500x100"), thefts("0+0.1x100", "0+1x100"), thefts("0x100", "0+50x100")],
    ),
    "AuthServiceRefreshFromTheFuture": (
        20,
        [[series("authservice_audit_events_total", "0x10 1x50", event="refresh_from_the_future")]],
        [
            [series("authservice_audit_events_total", "1x60", event="refresh_from_the_future")],
            [series("authservice_audit_events_total", "0+1x60", event="refresh_reuse")],
        ],
    ),
    "AuthServiceSignInFailures": (
        40,
        [sign_ins("0+20x60", "0+5x60")],
        [sign_ins("0+20x60", "0+10x60"), sign_ins("0+4x60", "0x60")],
    ),
    "AuthServiceEverybodyLimited": (
        20,
        [[series("authservice_rate_limited_total", "0+1x60", budget="sign_ins_per_second")]],
        [
            [series("authservice_rate_limited_total", "0+1x60", budget="refreshes_per_minute")],
            [series("authservice_rate_limited_total", "0x10 9x60", budget="sign_ins_per_second")],
        ],
    ),
    "AuthServiceConnectionsRefused": (
        20,
        [[series("authservice_http_connections_refused_total", "0+1x60", reason="all")]],
        [
            [series("authservice_http_connections_refused_total", "0+1x60", reason="address")],
            [series("authservice_http_connections_refused_total", "0x10 9x60", reason="all")],
        ],
    ),
    "AuthServiceHashesRefused": (20, *counter("authservice_password_hashes_refused_total")),
    "AuthServicePoolExhausted": (
        20,
        [[series(ERRORS, "0+1x60", kind="acquire_timeout"), ready("1x60")]],
        [
            [series(ERRORS, "0+1x60", kind="acquire_timeout"), ready("0x60")],
            [series(ERRORS, "0x10 9x60", kind="acquire_timeout"), ready("1x60")],
            [series(ERRORS, "0+1x60", kind="connection"), ready("1x60")],
        ],
    ),
    "AuthServiceDatabaseErrors": (
        20,
        [[series(ERRORS, "0+3x60", kind=kind)] for kind in ("connection", "statement_timeout", "other")],
        [
            [series(ERRORS, "0+9x60", kind="acquire_timeout")],
            [series(ERRORS, "0x10 9x60", kind="connection")],
            [series(ERRORS, "0+0.5x60", kind="other")],
        ],
    ),
    "AuthServiceClockOffset": (
        20,
        [[series("authservice_db_clock_offset_seconds", values)] for values in ("-7x30", "7x30")],
        [[series("authservice_db_clock_offset_seconds", values)] for values in ("-4x30", "0x10 3600x3 0x20")],
    ),
    # The time of a test begins at 0.
    "AuthServiceKeyNotRotated": (
        80,
        [[series("authservice_signing_key_next_rotation_timestamp_seconds", "60x100")]],
        [[series("authservice_signing_key_next_rotation_timestamp_seconds", "3000x100")], []],
    ),
    "AuthServiceKeyRingFailures": (40, *counter("authservice_key_ring_failures_total")),
    "AuthServiceSecretsRefused": (
        20,
        [[series("authservice_secrets_refused", "1x30")]],
        [[series("authservice_secrets_refused", "0x30")], [series("authservice_secrets_refused", "0x10 1x5 0x20")]],
    ),
    "AuthServiceCleanupStale": (
        2300,
        [
            [series(STARTED, "0x2880"), INFO, series(CLEANED, "0x60 3600x2820")],
            [series(STARTED, "0x2880"), INFO, series(CLEANED, "0x2880")],
            [series(STARTED, "0x2880"), INFO],
        ],
        [
            [series(STARTED, "0x2880"), INFO, series(CLEANED, TWO_DAYS)],
            [series(STARTED, "0x2880"), INFO, series(CLEANED, "0x2880"), series(CLEANED, TWO_DAYS, "b")],
            [series(STARTED, "0x2880", job="another"), INFO],
        ],
    ),
    "AuthServiceLogLinesDropped": (20, [[series("authservice_log_lines_dropped_total", "0+1x60")]], [[series("authservice_log_lines_dropped_total", "5x60")]]),
    "AuthServicePanic": (20, [[series("authservice_panics_total", "0x10 1x50")]], [[series("authservice_panics_total", "1x60")]]),
    "AuthServiceFileDescriptors": (
        20,
        [[series("process_open_fds", "900x30"), series("process_max_fds", "1024x30"), INFO]],
        [
            [series("process_open_fds", "700x30"), series("process_max_fds", "1024x30"), INFO],
            [series("process_open_fds", "900x30", job="x"), series("process_max_fds", "1024x30", job="x"), INFO],
        ],
    ),
}


def promtool(*arguments) -> None:
    done = subprocess.run([PROMTOOL, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_reads_the_rules():
    promtool("check", "rules", "--lint=all", "--lint-fatal", ALERTS)


@pytest.mark.parametrize("alert", [rule["alert"] for rule in RULES])
def test_each_alert_fires_when_it_should_and_only_then(alert, tmp_path):
    minute, firing, quiet = CASES[alert]
    assert firing and quiet
    # The rule alone, so that the others cost no time.
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "one", "rules": [rule for rule in RULES if rule["alert"] == alert]}]}))
    # Whether it fires, for however many series.
    expression = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) > bool 0'
    cases = [(inputs, [{"labels": "{}", "value": 1}]) for inputs in firing] + [(inputs, []) for inputs in quiet]
    tests = {
        "rule_files": [str(rules)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "name": f"{alert} {number}",
                "interval": "1m",
                "input_series": inputs,
                "promql_expr_test": [{"expr": expression, "eval_time": f"{minute}m", "exp_samples": expected}],
            }
            for number, (inputs, expected) in enumerate(cases)
        ],
    }
    path = tmp_path / "tests.yaml"
    path.write_text(yaml.safe_dump(tests))

    promtool("test", "rules", path)


def test_each_alert_says_how_bad_it_is_and_what_to_do():
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs/runbooks.md").read_text(), re.M)

    assert headings == [rule["alert"] for rule in RULES] == list(dict.fromkeys(headings))
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"] and rule["annotations"]["description"].endswith(".")
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks.md#{rule['alert'].lower()}"


def test_the_alerts_use_what_the_server_exposes():
    used = set().union(*(metrics_in(rule["expr"]) for rule in RULES))

    assert used - exposed_metrics() == set()


def test_the_page_lists_the_alerts():
    rows = re.findall(r"^\| `(AuthService\w+)` \| (\w+) \|", (ROOT / "docs/monitoring.md").read_text(), re.M)

    assert rows == [(rule["alert"], rule["labels"]["severity"]) for rule in RULES]
