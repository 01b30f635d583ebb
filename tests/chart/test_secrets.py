"""Keys, certificates and the environment that the chart gives to the service."""

import re

import pytest
import yaml
from tests_support import chart
from tests_support.chart import Object, Values

from limiter_service.engine import credentials
from limiter_service.settings import PREFIX, Settings


def container(values: Values) -> Object:
    """The service's container."""
    spec = chart.the("Deployment", chart.objects(values))["spec"]["template"]["spec"]
    found: Object = spec["containers"][0]
    return found


def environment(values: Values) -> dict[str, str | None]:
    """Its variables that have our prefix; None where a Secret has the value."""
    pairs = {e["name"]: e.get("value") for e in container(values)["env"]}
    return {name: value for name, value in pairs.items() if name.startswith(PREFIX)}


@pytest.mark.parametrize("case", chart.cases())
def test_the_service_knows_what_it_is_told(case: str) -> None:
    """It refuses to start over an unknown name, or a value that does not fit."""
    given = {
        n.removeprefix(PREFIX).lower(): v for n, v in environment(chart.values_of(case)).items()
    }
    told = Settings.model_validate_strings({n: v for n, v in given.items() if v is not None})
    assert given.keys() <= set(Settings.model_fields)
    assert (told.host, told.port) == ("0.0.0.0", 8080)


def test_a_key_is_made_when_none_is_given() -> None:
    """Another one each time, of the form that the service reads."""
    made = []
    for _ in range(2):
        text = chart.raw({})
        secret = chart.the("Secret", [o for o in yaml.safe_load_all(text) if o])
        made.append(credentials.read(secret["stringData"]["admin-key"]))
    assert all(made)
    assert made[0] != made[1]


def test_keys_are_a_file_and_never_in_the_environment() -> None:
    """A file is read again when it changes; only the key itself is mounted."""
    for values, name in (({}, "limits-sluicegate"), ({"auth": {"existingSecret": "k"}}, "k")):
        spec = chart.the("Deployment", chart.objects(values))["spec"]["template"]["spec"]
        (volume,) = [v["secret"] for v in spec["volumes"] if v["name"] == "keys"]
        assert volume["secretName"] == name
        assert volume["items"] == [{"key": "admin-key", "path": "admin-key"}]
        assert environment(values)["SLUICEGATE_ADMIN_KEY_FILE"] == "/etc/sluicegate/keys/admin-key"
        assert "SLUICEGATE_ALLOW_ANONYMOUS" not in environment(values)


def test_without_keys_nothing_is_made() -> None:
    """Callers who need no key are asked for explicitly."""
    values = {"auth": {"allowAnonymous": True}, "redis": {"existingSecret": "store"}}
    assert "Secret" not in {o["kind"] for o in chart.objects(values)}
    assert environment(values)["SLUICEGATE_ALLOW_ANONYMOUS"] == "true"
    assert "SLUICEGATE_ADMIN_KEY_FILE" not in environment(values)


def test_no_key_is_in_two_places() -> None:
    """The Secret has it, and nothing that many may read."""
    text = chart.raw({})
    keys = set(re.findall(r"sg_[0-9a-z]+_[0-9A-Za-z]{43}", text))
    assert [text.count(key) for key in keys] == [1]


def test_tls_reaches_probes_and_scrapes() -> None:
    """Who asks the service asks it as it speaks."""
    for scheme, values in (("HTTP", {}), ("HTTPS", {"tls": {"secret": "certificate"}})):
        probes = [
            container(values)[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")
        ]
        assert {probe["httpGet"]["scheme"] for probe in probes} == {scheme}
        test = chart.the("Pod", chart.objects(values))["spec"]["containers"][0]["env"]
        assert next(e["value"] for e in test if e["name"] == "SERVICE").startswith(scheme.lower())
    monitor = chart.the("ServiceMonitor", chart.objects(chart.values_of("tls")))["spec"]
    (endpoint,) = monitor["endpoints"]
    assert endpoint["scheme"] == "https"
    assert endpoint["tlsConfig"]["ca"]["secret"]["key"] == "ca.crt"
    assert endpoint["authorization"]["credentials"] == {"name": "scraping", "key": "read-key"}


def test_files_of_the_store_are_where_the_service_looks() -> None:
    """The certificate of the client only where there is one."""
    values: Values = {"redis": {"tls": {"secret": "s"}}}
    inside = {v["name"]: v["mountPath"] for v in container(values)["volumeMounts"]}["redis-tls"]
    assert environment(values)["SLUICEGATE_REDIS_CA"] == f"{inside}/ca.crt"
    assert "SLUICEGATE_REDIS_KEY" not in environment(values)
    values["redis"]["tls"]["clientCertificate"] = True
    assert environment(values)["SLUICEGATE_REDIS_CERTIFICATE"] == f"{inside}/tls.crt"
    assert environment(values)["SLUICEGATE_REDIS_KEY"] == f"{inside}/tls.key"
