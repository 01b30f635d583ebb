"""What proves to the service who calls, and to the caller that it is the service."""

import os
import ssl

from client_sdk.options import LimiterOptions

_VARIABLE = "SLUICEGATE_API_KEY"


def key_of(given: str | None) -> str | None:
    """The API key: *given*, else that of the environment; an empty one is none."""
    if given is not None:
        return given or None
    return os.environ.get(_VARIABLE) or None  # noqa: TID251  # a caller's key, not a setting


def tls_of(options: LimiterOptions) -> ssl.SSLContext | None:
    """How TLS is spoken; None: as everybody does, with the authorities of the system."""
    if options.ca_file is None and options.certificate is None:
        return None
    context = ssl.create_default_context(cafile=options.ca_file)
    if options.certificate is not None:
        context.load_cert_chain(options.certificate, options.certificate_key)
    return context
