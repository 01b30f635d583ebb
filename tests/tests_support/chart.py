"""The Helm chart as a real `helm` renders it."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm/sluicegate"
CASES = ROOT / "tests/chart/cases"
RENDERS = ROOT / "tests/chart/renders"
NEWEST = "1.37"
MADE_KEY = re.compile(r"sg_[0-9a-z]{12}_[0-9A-Za-z]{43}\b")
"""The admin key that the chart makes: another in each render, so renders show it so."""

Values = dict[str, Any]
Object = dict[str, Any]


class ChartError(Exception):
    """What helm said when it refused."""


def helm() -> str | None:
    """The binary that scripts/helm.py fetched, else one that is installed; None without."""
    fetched = ROOT / "build/tools/helm"
    return str(fetched) if fetched.exists() else shutil.which("helm")


def cases() -> list[str]:
    """Names of the values files that tests render."""
    return sorted(path.stem for path in CASES.glob("*.yaml"))


def values_of(case: str) -> Values:
    """The values of a case."""
    return yaml.safe_load((CASES / f"{case}.yaml").read_text()) or {}


def text(values: Values, kubernetes: str = NEWEST, *options: str, source: Path = CHART) -> str:
    """The manifests of a release `limits` in the namespace `ns`. Raises ChartError."""
    return MADE_KEY.sub("sg_made_when_installed", raw(values, kubernetes, *options, source=source))


def raw(values: Values, kubernetes: str = NEWEST, *options: str, source: Path = CHART) -> str:
    """The same, with the key that the chart made."""
    where = ["--namespace", "ns", "--kube-version", kubernetes]
    return run("template", "limits", str(source), *where, *options, values=values)


def run(*arguments: str, values: Values | None = None) -> str:
    """What helm prints. Raises ChartError when it refuses."""
    binary = helm()
    assert binary is not None
    with tempfile.TemporaryDirectory() as home:
        given: list[str] = []
        if values is not None:
            path = Path(home) / "values.json"  # JSON is YAML
            path.write_text(json.dumps(values))
            given = ["--values", str(path)]
        # Nothing of the user's own: no plugins, no repositories.
        environment = {"HOME": home, "PATH": os.environ["PATH"]}
        done = subprocess.run(
            [binary, *arguments, *given],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
    if done.returncode:
        raise ChartError(done.stderr or done.stdout)
    return done.stdout


def objects(values: Values, kubernetes: str = NEWEST, *options: str) -> list[Object]:
    """The rendered objects."""
    return [o for o in yaml.safe_load_all(text(values, kubernetes, *options)) if o]


def the(kind: str, found: list[Object], name: str | None = None) -> Object:
    """The one object of a kind, or of a kind with a name."""
    (one,) = [o for o in found if o["kind"] == kind and name in {None, o["metadata"]["name"]}]
    return one


def merged(*layers: Values) -> Values:
    """Values as helm would merge them: later ones win, mappings are merged."""
    result: Values = {}
    for layer in layers:
        for key, value in layer.items():
            below = result.get(key)
            both = isinstance(below, dict) and isinstance(value, dict)
            result[key] = merged(below, value) if both else value  # type: ignore[arg-type]  # both are
    return result


def pods(found: list[Object]) -> list[tuple[str, Object]]:
    """Every pod that the objects would start: name of its owner, and its spec."""
    specs = []
    for o in found:
        if o["kind"] == "Pod":
            specs.append((o["metadata"]["name"], o["spec"]))
        elif "template" in o.get("spec", {}):
            specs.append((o["metadata"]["name"], o["spec"]["template"]["spec"]))
    return specs
