"""Every value is declared, documented and used, and what is not declared is refused."""

import json
import re
import sys
import tomllib
from typing import Any

import pytest
import yaml
from tests_support import chart
from tests_support.chart import ROOT, ChartError, Values, merged

sys.path.append(str(ROOT / "scripts"))  # last: other modules there have names of ours
import chart_values

OTHER: dict[str, Any] = {
    "fullnameOverride": "other",
    "commonLabels": {"other": "label"},
    "image.repository": "other",
    "image.tag": "9.9",
    "image.digest": "sha256:" + "a" * 64,
    "image.pullPolicy": "Always",
    "image.pullSecrets": ["other"],
    "replicas": 5,
    "config": {"pools": {"other": {}}},
    "existingConfigMap": "other",
    "restartOnConfigChange": True,
    "settings": {"log_level": "debug"},
    "redis.url": "redis://other",
    "redis.existingSecret": "other",
    "redis.secretKey": "other",
    "redis.tls.secret": "other",
    "redis.tls.clientCertificate": True,
    "valkey.enabled": True,
    "valkey.image": "other:1",
    "valkey.storage": "9Gi",
    "valkey.storageClass": "other",
    "auth.existingSecret": "other",
    "auth.allowAnonymous": True,
    "tls.secret": "other",
    "service.type": "LoadBalancer",
    "service.port": 80,
    "service.annotations": {"other": "annotation"},
    "ingress.enabled": True,
    "ingress.className": "other",
    "ingress.annotations": {"other": "annotation"},
    "ingress.hosts": ["other.example"],
    "ingress.tlsSecret": "other",
    "httpRoute.enabled": True,
    "httpRoute.parentRefs": [{"name": "other"}],
    "httpRoute.hostnames": ["other.example"],
    "autoscaling.enabled": True,
    "autoscaling.minReplicas": 3,
    "autoscaling.maxReplicas": 9,
    "autoscaling.targetCPU": 50,
    "podDisruptionBudget.enabled": False,
    "podDisruptionBudget.maxUnavailable": "50%",
    "preStopSeconds": 7,
    "terminationGracePeriodSeconds": 99,
    "resources": {"requests": {"cpu": "7"}},
    "serviceAccount.create": False,
    "serviceAccount.name": "other",
    "serviceAccount.annotations": {"other": "annotation"},
    "podSecurityContext": {"runAsUser": 70000},
    "podAnnotations": {"other": "annotation"},
    "podLabels": {"other": "label"},
    "nodeSelector": {"other": "label"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
    "topologySpreadConstraints": [{"maxSkew": 2}],
    "priorityClassName": "other",
    "extraEnv": [{"name": "OTHER", "value": "1"}],
    "extraEnvFrom": [{"secretRef": {"name": "other"}}],
    "extraVolumes": [{"name": "other", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "other", "mountPath": "/other"}],
    "networkPolicy.enabled": False,
    "networkPolicy.from": [{"namespaceSelector": {}}],
    "networkPolicy.redisPorts": [6380],
    "networkPolicy.egress": [{"to": [{"namespaceSelector": {}}]}],
    "metrics.open": True,
    "metrics.serviceMonitor.keySecret": "other",
    "metrics.serviceMonitor.enabled": True,
    "metrics.serviceMonitor.interval": "99s",
    "metrics.serviceMonitor.labels": {"other": "label"},
    "metrics.prometheusRule.enabled": True,
    "metrics.prometheusRule.runbooks": "https://other.example/runbooks",
    "metrics.prometheusRule.labels": {"other": "label"},
    "metrics.dashboards.enabled": True,
    "metrics.dashboards.labels": {"other": "label"},
    "helmTest.resource": "other/model",
}
"""Another value for each key."""

# What must be on for a value to be seen.
NEEDS: dict[str, Values] = {
    "redis.secretKey": {"redis": {"existingSecret": "store"}},
    "redis.tls.clientCertificate": {"redis": {"tls": {"secret": "a"}}},
    "restartOnConfigChange": {"config": {"pools": {}}},
    "valkey": {"valkey": {"enabled": True}},
    "valkey.enabled": {},
    "ingress": {"ingress": {"enabled": True, "hosts": ["a.example"]}},
    "ingress.enabled": {"ingress": {"hosts": ["a.example"]}},
    "httpRoute": {"httpRoute": {"enabled": True, "parentRefs": [{"name": "a"}]}},
    "httpRoute.enabled": {"httpRoute": {"parentRefs": [{"name": "a"}]}},
    "autoscaling": {"autoscaling": {"enabled": True}},
    "autoscaling.enabled": {},
    "metrics.serviceMonitor": {"metrics": {"open": True, "serviceMonitor": {"enabled": True}}},
    "metrics.serviceMonitor.enabled": {"metrics": {"open": True}},
    "metrics.prometheusRule": {"metrics": {"prometheusRule": {"enabled": True}}},
    "metrics.prometheusRule.enabled": {},
    "metrics.dashboards": {"metrics": {"dashboards": {"enabled": True}}},
    "metrics.dashboards.enabled": {},
}


def needed(key: str) -> Values:
    """The nearest entry of NEEDS."""
    while key:
        if key in NEEDS:
            return NEEDS[key]
        key = key.rpartition(".")[0]
    return {}


def nested(key: str, value: Any) -> Values:
    """A value where it belongs."""
    for part in reversed(key.split(".")):
        value = {part: value}
    result: Values = value
    return result


KEYS = [".".join(value.path) for value in chart_values.values()]


def test_each_key_has_another_value_here() -> None:
    """A key that is added gets a row above."""
    assert sorted(OTHER) == sorted(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_a_value_is_used(key: str) -> None:
    """Another value renders something else."""
    base = needed(key)
    assert chart.text(base) != chart.text(merged(base, nested(key, OTHER[key])))


def test_templates_read_no_value_that_is_not_declared() -> None:
    """Every `.Values.a.b` is a key of values.yaml, or a group of keys."""
    known = {key[: m.end()] for key in KEYS for m in re.finditer(r"[^.]+", key)}
    read = {
        path
        for template in chart.CHART.rglob("templates/**/*")
        if template.is_file()
        for path in re.findall(r"\.Values\.([\w.]+)", template.read_text())
    }
    assert read - known == set()
    assert len(read) > 40


def test_the_defaults_satisfy_the_schema_key_by_key() -> None:
    """Every documented key is in the schema, with its meaning; no group takes others."""
    schema = json.loads(chart_values.SCHEMA.read_text())
    for value in chart_values.values():
        node = schema
        for part in value.path:
            assert node["additionalProperties"] is False, value.path
            node = node["properties"][part]
        assert node["description"] == value.meaning
    declared = yaml.safe_load((chart.CHART / "values.yaml").read_text())
    assert set(schema["properties"]) == {*declared, "global"}


BAD: list[tuple[Values, str]] = [
    ({"replica": 3}, "replica"),
    ({"replicas": 0}, "replicas"),
    ({"replicas": "3"}, "replicas"),
    ({"image": {"digest": "latest"}}, "digest"),
    ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
    ({"redis": {"urls": "redis://a"}}, "urls"),
    ({"redis": {"secretKey": ""}}, "secretKey"),
    ({"settings": {"comand_timeout": 1}}, "comand_timeout"),
    ({"settings": {"command_timeout": 0}}, "command_timeout"),
    ({"settings": {"redis_url": "redis://a"}}, "redis_url"),
    ({"settings": {"admin_key": "sg_a_b"}}, "admin_key"),
    ({"config": {"pool": {}}}, "pool"),
    ({"config": {"pools": {"p": {"models": {"m": {"rpn": 1}}}}}}, "rpn"),
    ({"config": {"pools": {"p": {"models": {"m": {"rpm": -1}}}}}}, "rpm"),
    ({"service": {"port": 0}}, "port"),
    ({"service": {"type": "Public"}}, "type"),
    ({"autoscaling": {"targetCPU": 101}}, "targetCPU"),
    ({"podDisruptionBudget": {"maxUnavailable": "some"}}, "maxUnavailable"),
    ({"valkey": {"storage": "much"}}, "storage"),
    ({"networkPolicy": {"redisPorts": ["redis"]}}, "redisPorts"),
    ({"metrics": {"serviceMonitor": {"interval": "often"}}}, "interval"),
    ({"extraEnv": [{"value": "1"}]}, "extraEnv"),
    ({"podLabels": {"a": 1}}, "podLabels"),
    ({"resources": {"request": {}}}, "request"),
]


@pytest.mark.parametrize(("values", "named"), BAD, ids=lambda value: json.dumps(value)[:60])
def test_a_bad_value_is_refused_by_name(values: Values, named: str) -> None:
    """The schema says where it is."""
    with pytest.raises(ChartError, match=named):
        chart.text(values)


CANNOT_WORK: list[tuple[Values, str]] = [
    ({"redis": {"url": ""}}, "where the store is"),
    ({"ingress": {"enabled": True}}, "ingress.hosts"),
    ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs"),
    ({"autoscaling": {"enabled": True, "minReplicas": 9, "maxReplicas": 2}}, "minReplicas"),
    ({"preStopSeconds": 40}, "terminationGracePeriodSeconds"),
    ({"redis": {"tls": {"clientCertificate": True}}}, "redis.tls.secret"),
    ({"metrics": {"serviceMonitor": {"enabled": True}}}, "keySecret"),
]


@pytest.mark.parametrize(("values", "named"), CANNOT_WORK, ids=lambda value: str(value)[:60])
def test_values_that_cannot_work_are_refused(values: Values, named: str) -> None:
    """With a sentence that says what to change."""
    with pytest.raises(ChartError, match=named):
        chart.text(values)


def test_the_chart_may_be_a_part_of_another() -> None:
    """Helm hands `global` to it then."""
    assert chart.text({"global": {"registry": "other"}}) == chart.text({})


def test_the_versions_are_those_of_the_package() -> None:
    """appVersion names an image of this very version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    about = yaml.safe_load((chart.CHART / "Chart.yaml").read_text())
    assert about["appVersion"] == project["version"]
