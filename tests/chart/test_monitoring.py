"""Alert rules and dashboard: the chart carries the files of the package, and nothing else."""

import json
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from tests_support import chart
from tests_support.chart import ROOT

MONITORING = ROOT / "limiter_service/monitoring"
VALUES = {
    "metrics": {
        "open": True,
        "serviceMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "dashboards": {"enabled": True},
    }
}


def test_the_rules_are_those_of_the_package() -> None:
    """Word by word: what braces say is for Prometheus."""
    rule = chart.the("PrometheusRule", chart.objects(VALUES))
    assert rule["spec"] == yaml.safe_load((MONITORING / "alerts.yaml").read_text())
    assert rule["spec"]["groups"]


@pytest.mark.parametrize("base", ["https://wiki.example/run", "https://wiki.example/run/"])
def test_alerts_link_to_runbooks_where_it_is_said_where_they_are(base: str) -> None:
    """Each to its own page, by an absolute URL; nothing else of the rules is another."""
    values = {"metrics": {"prometheusRule": {"enabled": True, "runbooks": base}}}
    spec = chart.the("PrometheusRule", chart.objects(values))["spec"]
    plain = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
    for group in plain["groups"]:
        for rule in group["rules"]:
            del rule["annotations"]["runbook"]
            rule["annotations"]["runbook_url"] = f"https://wiki.example/run/{rule['alert']}.md"
    assert spec == plain


def test_prometheus_takes_the_rules_as_they_are_rendered(tmp_path: Path) -> None:
    """By its own tool."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump(chart.the("PrometheusRule", chart.objects(VALUES))["spec"]))
    command = [promtool, "check", "rules", "--lint=all", "--lint-fatal", str(rules)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_is_that_of_the_package() -> None:
    """As a file in a ConfigMap that Grafana's sidecar looks for, small enough for one."""
    found = chart.the("ConfigMap", chart.objects(VALUES), "limits-sluicegate-dashboards")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    ((name, text),) = found["data"].items()
    assert name == "sluicegate.json"
    assert json.loads(text) == json.loads((MONITORING / "dashboard.json").read_text())
    assert len(text) < 1_000_000
    kubernetes_validate.validate(found, chart.NEWEST, strict=True)


def test_a_packed_chart_carries_both(tmp_path: Path) -> None:
    """They are links in the checkout, and files in the archive."""
    chart.run("package", str(chart.CHART), "--destination", str(tmp_path))
    (archive,) = tmp_path.iterdir()
    only = ("--show-only", "templates/prometheusrule.yaml")
    shown = chart.text(VALUES, chart.NEWEST, *only, source=archive)
    assert yaml.safe_load(shown)["spec"]["groups"]
