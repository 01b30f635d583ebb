"""Rules of security that no linter knows: what is pinned and listed, what must not be there."""

import ast
import math
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PACKAGES = ("limiter_wire", "limiter_service", "client_sdk")
NOT_OURS = {"tokenizers"}
"""Extras that neither the image nor the tests install."""

PINS = ("constraints.txt", "constraints-image.txt", "constraints-build.txt")


def pinned(name: str) -> dict[str, str]:
    """The lines of each package of a file of pins."""
    text = (ROOT / name).read_text()
    blocks = re.findall(r"^[^\s#][^\n]*\n(?:[ \t]+[^\n]*\n)*", text, re.MULTILINE)
    return {canonicalize_name(re.split(r"[=\[ ;]", block)[0]): block for block in blocks}


@pytest.mark.parametrize("name", PINS)
def test_every_package_is_pinned_by_version_and_digest(name: str):
    """And nothing says where packages come from, or lets pip do what it wants."""
    found = pinned(name)
    assert found
    for block in found.values():
        first, *rest = block.splitlines()
        assert re.fullmatch(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==[^ ;]+( ;[^\\]*)? \\", first), first
        assert rest, first
        for line in rest:
            assert re.fullmatch(r" {4}--hash=sha256:[0-9a-f]{64}( \\)?", line), line


def test_whatever_the_project_asks_for_is_pinned():
    """Also what it asks for in extras: an unpinned package would come as it is that day."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [each for name in set(extras) - NOT_OURS for each in extras[name]]
    names = {canonicalize_name(Requirement(each).name) for each in project["dependencies"] + asked}
    assert names - set(pinned("constraints.txt")) == set()


class Named(msgspec.Struct):
    """A component of the bill."""

    name: str
    version: str
    purl: str = ""
    licenses: list[object] = []


class Needing(msgspec.Struct):
    """What one component needs."""

    ref: str
    needs: list[str] = msgspec.field(name="dependsOn", default_factory=list)


class Bill(msgspec.Struct):
    """What of a bill of materials is looked at."""

    format: str = msgspec.field(name="bomFormat")
    serial: str = msgspec.field(name="serialNumber")
    components: list[Named]
    dependencies: list[Needing]


def test_the_bill_of_materials_lists_what_the_image_runs(tmp_path: Path):
    """Every pin with its licence, and who needs it; twice the same."""
    bills = []
    for path in (tmp_path / "a.json", tmp_path / "b.json"):
        command = [sys.executable, str(ROOT / "scripts" / "sbom.py"), str(path)]
        subprocess.run(command, check=True, capture_output=True)
        bills.append(msgspec.json.decode(path.read_bytes(), type=Bill))
    bill, again = bills
    assert bill.format == "CycloneDX"
    assert bill.serial == again.serial
    assert {each.name for each in bill.components} == set(pinned("constraints-image.txt"))
    assert all(each.licenses for each in bill.components)
    (product,) = [each for each in bill.dependencies if each.ref == "sluicegate"]
    assert any(each.startswith("pkg:pypi/redis@") for each in product.needs)


# Secrets

SECRETS = {
    "a private key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    "a key of ours": re.compile(r"\bsg_[0-9a-z]{4,}_[A-Za-z0-9_-]{40,}"),
    "a key of a model provider": re.compile(r"\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{32,}"),
    "a key of a cloud": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[A-Za-z0-9_-]{35}\b"),
    "a token of a forge": re.compile(r"\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_\w{40,}"),
    "a token of a chat": re.compile(r"\bxox[abprs]-[A-Za-z0-9-]{20,}"),
    "a signed token": re.compile(r"\beyJ[A-Za-z0-9_-]{15,}\.eyJ[A-Za-z0-9_-]{15,}\."),
}
MADE_FOR_TESTS = {
    "tests/sdk/fixtures/sentences.toml",  # base64 of sentences, whose tokens are counted
    "tests/sdk/test_estimate.py",  # likewise
    "tests/access/certificates/caller.key",  # of an authority that nobody trusts
    "tests/access/certificates/service.key",
}
DIGESTS = ("constraints", "LICENSE")  # files that are made of digests, or no code
RANDOM = re.compile(r"[\"'= ]([A-Za-z0-9+/_-]{40,}={0,2})(?![A-Za-z0-9+/_-])")
LEAST_BITS = 4.7


def texts() -> Iterator[tuple[str, str]]:
    """Every file of the project that is text: tracked, or new and not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in names.splitlines():
        path = ROOT / name
        if path.is_file() and not path.name.startswith(DIGESTS) and path != Path(__file__):
            try:
                yield name, path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def looks_drawn(text: str) -> bool:
    """Whether a word was drawn at random rather than written: cases and digits, all mixed."""
    kinds = (str.islower, str.isupper, str.isdigit)
    if not all(any(is_kind(each) for each in text) for is_kind in kinds):
        return False
    counts = Counter(text)
    bits = -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values())
    return bits >= LEAST_BITS


def secrets_in(text: str) -> Iterator[str]:
    """What looks like a secret, by its shape or because nobody would write it."""
    for name, pattern in SECRETS.items():
        for match in pattern.finditer(text):
            if len(set(match[0])) > 12:  # one letter many times is a stand-in
                yield f"{name}: {match[0][:12]}..."
    for match in RANDOM.finditer(text):
        if looks_drawn(match[1]):
            yield f"drawn at random: {match[1][:12]}..."


def test_no_secret_is_in_the_repository():
    """What is in its history is public for good."""
    found = [
        f"{name}: {secret}"
        for name, text in texts()
        if name not in MADE_FOR_TESTS
        for secret in secrets_in(text)
    ]
    assert found == []


@pytest.mark.parametrize(
    "secret",
    [
        "-----BEGIN RSA " + "PRIVATE KEY-----",
        "sg_live_" + "q7ZtR2xW9bNcV4mKpL8sYdF3gHjA6eUiO1nTzXaQ0",
        "sk-proj-" + "q7ZtR2xW9bNcV4mKpL8sYdF3gHjA6eUi",
        "AKIA" + "Q7ZTR2XW9BNCV4MK",
        "ghp_" + "q7ZtR2xW9bNcV4mKpL8sYdF3gHjA6eUiO1nT",
        'password = "' + "q7ZtR2xW9bNcV4mKpL8sYdF3gHjA6eUiO1nTzXaQ0w" + '"',
    ],
)
def test_a_secret_would_be_found(secret: str):
    """Whatever it is of, wherever it stands."""
    assert list(secrets_in(f"# settings\nx = {secret}\n"))


# Code


def trees(*names: str) -> Iterator[tuple[str, ast.Module]]:
    """Python files of packages, parsed."""
    for name in names:
        for path in sorted((ROOT / name).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), parsed(path)


@cache
def parsed(path: Path) -> ast.Module:
    """A file, parsed once."""
    return ast.parse(path.read_text())


def test_no_middleware_wraps_requests_in_tasks():
    """Starlette's `BaseHTTPMiddleware` loses disconnects, and swallows bounds on bodies."""
    found = [
        name
        for name, tree in trees("limiter_service")
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.Attribute | ast.alias)
        if "BaseHTTPMiddleware" in ast.dump(node)
    ]
    assert found == []


MAKERS = {"Redis", "StrictRedis", "RedisCluster", "ConnectionPool", "BlockingConnectionPool"}


def test_clients_of_the_store_are_made_in_one_place():
    """By default redis-py repeats a script whose answer was lost: every client has that off."""
    found = {
        name
        for name, tree in trees(*PACKAGES)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        if getattr(node.func, "attr", getattr(node.func, "id", "")) in MAKERS
    }
    assert found <= {"limiter_service/store/connecting.py", "limiter_service/embedded.py"}


SECRET = re.compile(r"secret|digest|proof|password", re.IGNORECASE)


def test_secrets_are_compared_in_constant_time():
    """`==` ends at the first byte that differs, which can be measured."""
    found = [
        f"{name}:{node.lineno}"
        for name, tree in trees("limiter_service")
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        if any(isinstance(each, ast.Eq | ast.NotEq) for each in node.ops)
        for each in (node.left, *node.comparators)
        if SECRET.search(getattr(each, "attr", getattr(each, "id", "")))
    ]
    assert found == []


CALLERS = ("limiter_service/cli/", "limiter_service/demo/", "limiter_service/bench/")
CLIENTS = {"httpx", "requests", "aiohttp", "urllib.request", "http.client"}


def test_the_service_calls_nobody():
    """Commands call a service. The service itself has nothing to call with but its store."""
    found = [
        f"{name}:{node.lineno}"
        for name, tree in trees("limiter_service")
        if not name.startswith(CALLERS)
        for node in ast.walk(tree)
        if (
            (isinstance(node, ast.Import) and CLIENTS & {alias.name for alias in node.names})
            or (isinstance(node, ast.ImportFrom) and node.module in CLIENTS)
            or (
                isinstance(node, ast.Attribute)
                and node.attr in {"create_connection", "open_connection"}
            )
        )
    ]
    assert found == []
