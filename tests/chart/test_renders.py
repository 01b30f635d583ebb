"""What the chart renders: as recorded, valid for every Kubernetes, and restricted."""

from itertools import chain
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from tests_support import chart
from tests_support.chart import Object

from limiter_service.config import parse

VERSIONS = ("1.27", "1.31", "1.34", "1.37")
CUSTOM = {"HTTPRoute", "ServiceMonitor", "PrometheusRule"}
"""Kinds that Kubernetes itself does not know."""


@pytest.mark.parametrize("case", chart.cases())
def test_a_render_is_as_recorded(case: str) -> None:
    """After a change that is meant: python tests/chart/record.py, and read the difference."""
    recorded = (chart.RENDERS / f"{case}.yaml").read_text()
    assert chart.text(chart.values_of(case)) == recorded


def test_every_recorded_render_has_its_case() -> None:
    """None is left from a case that is gone."""
    assert sorted(path.stem for path in chart.RENDERS.glob("*.yaml")) == chart.cases()


@pytest.mark.parametrize("case", chart.cases())
def test_a_case_passes_lint(case: str) -> None:
    """Helm's own checks, warnings counted."""
    chart.run("lint", "--strict", str(chart.CHART), values=chart.values_of(case))


@pytest.mark.parametrize("version", VERSIONS)
def test_objects_are_valid_for_kubernetes(version: str) -> None:
    """Every field is one that this version knows, and holds what it takes."""
    checked = 0
    for case in chart.cases():
        for found in chart.objects(chart.values_of(case), version):
            if found["kind"] not in CUSTOM:
                kubernetes_validate.validate(found, version, strict=True)
                checked += 1
    assert checked > 40


def test_an_unknown_field_is_seen() -> None:
    """The validation above can fail."""
    service = chart.the("Service", chart.objects({}))
    service["spec"]["prot"] = 1
    with pytest.raises(kubernetes_validate.ValidationError, match="prot"):
        kubernetes_validate.validate(service, chart.NEWEST, strict=True)


def every_pod() -> list[Any]:
    """Each pod of each case."""
    return [
        pytest.param(spec, id=f"{case}-{name}")
        for case in (chart.cases() if chart.helm() else [])
        for name, spec in chart.pods(chart.objects(chart.values_of(case)))
    ]


@pytest.mark.parametrize("spec", every_pod())
def test_a_pod_is_restricted(spec: Object) -> None:
    """The restricted standard of pod security, and what it does not ask for."""
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    pod = spec["securityContext"]
    assert pod["runAsNonRoot"] is True
    assert pod["runAsUser"] > 10_000
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not [v for v in spec.get("volumes", []) if "hostPath" in v]
    for container in chain(spec["containers"], spec.get("initContainers", [])):
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"] is True
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert not {"privileged", "runAsUser"} & set(own)
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]
        assert "cpu" not in container["resources"]["limits"]
        assert not [p for p in container.get("ports", []) if "hostPort" in p]
        assert not container["image"].endswith(":latest")


def test_nothing_has_rights_in_the_cluster() -> None:
    """No role, and so no binding."""
    kinds = {o["kind"] for case in chart.cases() for o in chart.objects(chart.values_of(case))}
    assert not {kind for kind in kinds if "Role" in kind}


def test_the_pools_file_arrives_as_it_was_written() -> None:
    """Large numbers stay numbers, and the service reads what the values say."""
    values = chart.values_of("production")
    data = chart.the("ConfigMap", chart.objects(values))["data"]
    assert yaml.safe_load(data["pools.yaml"]) == values["config"]
    models = parse(data["pools.yaml"], ".yaml").pools["openai"].models
    assert models["gpt-4o"].tpm == 30_000_000


def test_a_change_of_the_pools_file_restarts_no_pod_unless_asked() -> None:
    """Pods read it while they run."""

    def template(rpm: int, restart: bool) -> Object:
        values = {
            "config": {"pools": {"p": {"models": {"m": {"rpm": rpm}}}}},
            "restartOnConfigChange": restart,
        }
        spec: Object = chart.the("Deployment", chart.objects(values))["spec"]["template"]
        return spec

    assert template(1, restart=False) == template(2, restart=False)
    assert template(1, restart=True) != template(2, restart=True)


def test_a_change_of_the_secret_restarts_pods() -> None:
    """The environment is read once."""

    def template(url: str) -> Object:
        found = chart.objects({"redis": {"url": url}})
        spec: Object = chart.the("Deployment", found)["spec"]["template"]
        return spec

    assert template("redis://a") != template("redis://b")


def test_no_object_but_the_secret_holds_the_url() -> None:
    """A password in it is in one place."""
    url = "redis://sluicegate:hush@redis:6379/0"
    holding = [o["kind"] for o in chart.objects({"redis": {"url": url}}) if "hush" in str(o)]
    assert holding == ["Secret"]


def test_a_pod_waits_before_it_ends() -> None:
    """By the field that Kubernetes has since 1.30, by a command before."""

    def hook(version: str) -> Object:
        spec = chart.the("Deployment", chart.objects({}, version))["spec"]["template"]["spec"]
        lifecycle: Object = spec["containers"][0]["lifecycle"]["preStop"]
        return lifecycle

    assert hook("1.30") == {"sleep": {"seconds": 5}}
    *python, program = hook("1.29")["exec"]["command"]
    assert python == ["python", "-c"]
    assert program.partition("sleep")[2] == "(5)"


def test_labels_that_select_do_not_change_with_versions() -> None:
    """A Deployment's selector cannot be changed: an upgrade would be refused."""
    found = chart.objects({"commonLabels": {"team": "a"}, "podLabels": {"tier": "b"}})
    deployment = chart.the("Deployment", found)["spec"]
    assert deployment["selector"]["matchLabels"] == {
        "app.kubernetes.io/name": "sluicegate",
        "app.kubernetes.io/instance": "limits",
        "app.kubernetes.io/component": "service",
    }
    pod = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"].items() <= pod.items()
    assert "0.1.0" not in str(pod)


def test_an_old_kubernetes_is_refused() -> None:
    """The chart says from which version on it works."""
    with pytest.raises(chart.ChartError, match=r"1\.25"):
        chart.text({}, "1.24")


def test_the_notes_are_short() -> None:
    """What to do next, and what is not as it should stay."""
    notes = _notes({})
    assert len(notes.splitlines()) < 14
    assert "built-in pool" in notes
    assert "trials only" not in notes
    assert "trials only" in _notes(chart.values_of("trial"))
    assert "built-in pool" not in _notes(chart.values_of("production"))


def _notes(values: chart.Values) -> str:
    told = chart.run("install", "limits", str(chart.CHART), "--dry-run=client", values=values)
    return told.partition("NOTES:\n")[2].strip()


def test_it_packs(tmp_path: Path) -> None:
    """The archive renders as the directory does."""
    chart.run("package", str(chart.CHART), "--destination", str(tmp_path))
    (archive,) = tmp_path.iterdir()
    assert archive.name == "sluicegate-0.1.0.tgz"
    assert chart.text({}, source=archive) == chart.text({})
