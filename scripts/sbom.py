"""Write the bill of materials of what the image runs, as CycloneDX JSON.

    python scripts/sbom.py [FILE]     # default: build/sbom.cdx.json

Packages, versions and digests are the pins of constraints-image.txt; licences and who needs whom
come from the packages that are installed here. The same pins give the same serial number.
"""

import re
import sys
import uuid
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.validation.json import JsonStrictValidator
from image_pins import pins
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PINS = ROOT / "constraints-image.txt"
PRODUCT = "sluicegate"
_LONGEST_NAME = 100  # some packages have the whole text of their licence there


def main(arguments: list[str]) -> int:
    """Write the file; 0 when all is well."""
    path = Path(arguments[0]) if arguments else ROOT / "build" / "sbom.cdx.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = written(bill(PINS.read_text(encoding="utf-8")))
    path.write_text(text, encoding="utf-8")
    print(f"sbom: {path.name}, {text.count('pkg:pypi')} mentions of packages")
    return 0


def bill(text: str) -> Bom:
    """The bill for a file of pins: the product, its parts, and what each of them needs."""
    known = {name: _component(name, block) for name, block in pins(text).items()}
    product = Component(
        name=PRODUCT,
        version=metadata.version(PRODUCT),
        type=ComponentType.APPLICATION,
        bom_ref=PRODUCT,
        licenses=list(_licenses(PRODUCT)),
    )
    bom = Bom(components=known.values(), serial_number=uuid.uuid5(uuid.NAMESPACE_URL, text))
    bom.metadata.component = product
    bom.register_dependency(product, _needed(f"{PRODUCT}[service,cost]", known))
    for name, component in known.items():
        bom.register_dependency(component, _needed(name, known))
    return bom


def written(bom: Bom) -> str:
    """The bill as text. Raises when it is not what the standard says."""
    text = JsonV1Dot6(bom).output_as_string(indent=2)
    problem = JsonStrictValidator(JsonV1Dot6(bom).schema_version).validate_str(text)
    if problem is not None:
        raise ValueError(f"not CycloneDX: {problem}")
    return text


def _component(name: str, block: str) -> Component:
    version = block.partition("==")[2].split()[0].rstrip(";")
    purl = PackageURL("pypi", None, name, version)
    digests = re.findall(r"--hash=sha256:([0-9a-f]{64})", block)
    # A release is several files, one for each platform: any of these is the one that is run.
    files = ExternalReference(
        type=ExternalReferenceType.DISTRIBUTION,
        url=XsUri(purl.to_string()),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in digests],
    )
    return Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        purl=purl,
        bom_ref=purl.to_string(),
        licenses=list(_licenses(name)),
        external_references=[files],
    )


def _licenses(name: str) -> Iterator[License]:
    try:
        told = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return  # of another platform
    for field in ("License-Expression", "License"):
        if field in told and len(told[field]) < _LONGEST_NAME:
            yield LicenseFactory().make_from_string(told[field])
            return
    for words in (each.split(" :: ") for each in told.get_all("Classifier") or []):
        if words[0] == "License":
            yield LicenseFactory().make_with_name(words[-1])
            return


def _needed(requirement: str, known: Mapping[str, Component]) -> list[Component]:
    """What one of the packages needs of the others."""
    wanted = Requirement(requirement)
    try:
        lines = metadata.requires(wanted.name) or []
    except metadata.PackageNotFoundError:
        return []
    found: dict[str, Component] = {}
    for need in map(Requirement, lines):
        name = canonicalize_name(need.name)
        extras = ("", *wanted.extras)
        applies = need.marker is None or any(need.marker.evaluate({"extra": e}) for e in extras)
        if applies and name in known:
            found[name] = known[name]
    return [found[name] for name in sorted(found)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
