"""Images of what is installed here, for an engine that can reach no registry.

A binary, the libraries that it is linked with, and little else, handed over as a tarball. A
store is an image of its server alone; the base that the Dockerfile builds on is this Python
with pip and a shell.
"""

import contextlib
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import docker

ROOT = Path(__file__).parents[2]
BASE, SERVICE = "sluicegate-test/python:local", "sluicegate-test/service:local"
_LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x")
# What a manylinux wheel may expect of any system, beyond what Python itself is linked with.
_EXPECTED = ("libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1", "libgcc_s.so.1")
_EXPECTED += ("libstdc++.so.6", "libz.so.1", "libnss_dns.so.2", "libnss_files.so.2")
_TOOLS = ("sh", "env", "mkdir", "rm", "cat", "id", "sleep")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


class Files:
    """A root file system that grows."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w")  # noqa: SIM115  # closed below
        self._have: set[str] = set()
        for name in ("tmp", "data", "etc", "dev", "proc", "sys"):
            self.directory(name, 0o1777 if name in {"tmp", "data"} else 0o755)

    def directory(self, name: str, mode: int = 0o755) -> None:
        """An empty directory."""
        info = tarfile.TarInfo(name)
        info.type, info.mode = tarfile.DIRTYPE, mode
        self._tar.addfile(info)

    def text(self, name: str, text: str) -> None:
        """A small file."""
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(text), 0o644
        self._tar.addfile(info, io.BytesIO(text.encode()))

    def file(self, source: Path, name: str) -> None:
        """A file, which everybody may read."""
        if name not in self._have:
            self._have.add(name)
            self._tar.add(source.resolve(), name, filter=_readable)

    def binary(self, source: Path, name: str) -> None:
        """A binary or an extension, and the libraries that it is linked with."""
        self.file(source, name)
        for library in libraries(source):
            self.file(library, str(library).lstrip("/"))

    def link(self, name: str, target: str) -> None:
        """A symbolic link."""
        info = tarfile.TarInfo(name)
        info.type, info.linkname = tarfile.SYMTYPE, target
        self._tar.addfile(info)

    def imported(self, client: docker.DockerClient, image: str, changes: Iterable[str]) -> None:
        """Make the image *image* of it, unless it is there: what is built on it is kept then."""
        self._tar.close()
        data, told = self._buffer.getvalue(), list(changes)
        digest = hashlib.sha256(data + repr(told).encode()).hexdigest()
        with contextlib.suppress(docker.errors.ImageNotFound):
            if client.images.get(image).labels.get("content") == digest:
                return
        repository, _, tag = image.partition(":")
        told.append(f"LABEL content={digest}")
        client.api.import_image_from_data(data, repository=repository, tag=tag, changes=told)


def libraries(binary: Path) -> list[Path]:
    """What the loader would load for it, and the loader itself."""
    found = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False)
    return [Path(match[1]) for match in _LIBRARY.finditer(found.stdout)]


def _readable(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.mode |= 0o444 | (0o111 if info.mode & 0o100 else 0)
    info.uid = info.gid = 0
    return info


def build_store(client: docker.DockerClient, name: str, binary: str) -> str:
    """An image of a Redis or Valkey server; its name."""
    image = f"sluicegate-test/{name}:local"
    files = Files()
    files.binary(Path(binary), "usr/local/bin/server")
    files.imported(client, image, ['ENTRYPOINT ["/usr/local/bin/server"]'])
    return image


def build_base(client: docker.DockerClient) -> str:
    """An image of this Python, with pip and a shell: what the Dockerfile takes as BASE."""
    files = Files()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    files.binary(Path(sys.executable).resolve(), f"usr/local/bin/{version}")
    files.link("usr/local/bin/python", version)
    home, stdlib = f"usr/local/lib/{version}", Path(sysconfig.get_path("stdlib"))
    skipped = {"test", "idlelib", "tkinter", "__pycache__", "site-packages", "dist-packages"}
    for path in sorted(stdlib.rglob("*")):
        inside = path.relative_to(stdlib)
        if path.is_file() and not skipped & set(inside.parts) and path.suffix != ".a":
            add = files.binary if path.suffix == ".so" else files.file
            add(path, f"{home}/{inside}")
    for file in metadata.files("pip") or []:
        if ".." not in file.parts and file.suffix != ".pyc":
            files.file(Path(str(file.locate())), f"{home}/site-packages/{file}")
    (c_library,) = [path for path in libraries(Path(sys.executable)) if "libc.so" in path.name]
    for name in _EXPECTED:
        if (c_library.parent / name).exists():
            files.binary(c_library.parent / name, str(c_library.parent / name).lstrip("/"))
    for tool in _TOOLS:
        found = shutil.which(tool)
        assert found
        files.binary(Path(found), f"bin/{tool}")
    # pip as it is set up here: where it looks, and whom it trusts.
    environment = {n: v for n, v in os.environ.items() if n.startswith("PIP_")}
    changes = [f"ENV {name}={value}" for name, value in environment.items()]
    if _CERTIFICATES.exists():
        files.file(_CERTIFICATES, str(_CERTIFICATES).lstrip("/"))
    for path in (Path("/etc/pip.conf"), Path("/etc/nsswitch.conf")):
        if path.exists():
            files.file(path, str(path).lstrip("/"))
    files.text("etc/passwd", "root:x:0:0::/root:/bin/sh\n")
    changes += ["ENV PATH=/usr/local/bin:/bin", 'CMD ["python"]']
    files.imported(client, BASE, changes)
    return BASE


def build_service(client: docker.DockerClient, *, again: bool = False) -> str:
    """The image that the Dockerfile makes, over the base from here; `again`: every step anew."""
    client.images.build(
        path=str(ROOT),
        tag=SERVICE,
        buildargs={"BASE": BASE},
        network_mode="host",  # the way to packages that this machine has
        nocache=again,
        rm=True,
        forcerm=True,
    )
    return SERVICE
