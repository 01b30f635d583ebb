"""Certificates for servers and clients of a test, made by the openssl command."""

import shutil
import subprocess
from pathlib import Path

import msgspec


class Pair(msgspec.Struct, frozen=True):
    """A certificate and its key, as files."""

    certificate: str
    key: str


def available() -> bool:
    """Whether the command is installed."""
    return shutil.which("openssl") is not None


def authority(home: Path, name: str) -> Pair:
    """A certificate that signs others."""
    pair = Pair(str(home / f"{name}.crt"), str(home / f"{name}.key"))
    subject = ("-subj", f"/CN={name}", "-days", "2")
    _openssl("req", "-x509", *_KEY, *subject, "-keyout", pair.key, "-out", pair.certificate)
    return pair


def signed(home: Path, by: Pair, name: str, alternative: str) -> Pair:
    """A certificate of *name*, good for an *alternative* as in `IP:127.0.0.1`."""
    pair = Pair(str(home / f"{name}.crt"), str(home / f"{name}.key"))
    request, extensions = home / f"{name}.csr", home / f"{name}.ext"
    extensions.write_text(f"subjectAltName={alternative}\n")
    _openssl("req", *_KEY, "-subj", f"/CN={name}", "-keyout", pair.key, "-out", str(request))
    _openssl(
        *("x509", "-req", "-in", str(request), "-CA", by.certificate, "-CAkey", by.key),
        *("-CAcreateserial", "-days", "2", "-extfile", str(extensions)),
        *("-out", pair.certificate),
    )
    return pair


def serial(pair: Pair) -> int:
    """The serial number of a certificate."""
    command = ["openssl", "x509", "-noout", "-serial", "-in", pair.certificate]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(told.strip().removeprefix("serial="), 16)


_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
