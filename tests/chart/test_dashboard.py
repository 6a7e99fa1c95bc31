"""The dashboard: every query is one, reads what the server exposes, and every panel has its place."""

import itertools
import json
import re
import subprocess

import pytest
import yaml

from support import CHART, PROMTOOL, exposed_metrics, metrics_in

DASHBOARD = json.loads((CHART / "files/dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ROWS = ["Overview", "Requests", "Sign-in and refresh", "Password hashes", "Database", "Signing keys", "Cleaning", "Process"]


def expressions() -> list[str]:
    return [target["expr"] for panel in PANELS for target in panel["targets"]]


def test_every_query_is_one(tmp_path):
    """As the recording rules of a file, with what Grafana would fill in."""
    filled = [text.replace("$__rate_interval", "5m").replace("$job", ".*").replace("$instance", ".*") for text in expressions()]
    rules = [{"record": f"query:{number}", "expr": text} for number, text in enumerate(filled)]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))

    done = subprocess.run([PROMTOOL, "check", "rules", path], capture_output=True, text=True)

    assert done.returncode == 0 and f"{len(filled)} rules found" in done.stdout, done.stdout + done.stderr
    assert all("$" not in text for text in filled)


def test_it_shows_everything_that_the_server_exposes_and_nothing_else():
    used = set().union(*map(metrics_in, expressions()))

    assert used - exposed_metrics() == set()
    assert {name for name in exposed_metrics() - used if name.startswith("authservice_")} == set()


def test_every_query_is_of_the_chosen_job_and_replica():
    for text in expressions():
        for selector in re.findall(r"(?:authservice|process)_[a-z_]+(.{0,40})", text):
            assert selector.startswith('{job=~"$job", instance=~"$instance"'), text


def test_panels_lie_beside_each_other_in_their_rows():
    assert [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"] == ROWS
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in itertools.combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)
    identifiers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(identifiers) == len(set(identifiers))


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_every_panel_says_what_it_shows(panel):
    assert panel["title"] and panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"]["uid"] == "${datasource}"
    for target in panel["targets"]:
        assert target["datasource"]["uid"] == "${datasource}"
        assert target["legendFormat"] or panel["type"] == "stat"
