"""Tests that need a Docker engine: `make containers` starts one where none runs."""

import docker
import pytest
from tests_support import containers, images


@pytest.fixture(scope="session")
def engine() -> docker.DockerClient:
    """The engine of this machine; skips where none can be reached."""
    found = containers.engine()
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture(scope="session")
def image(engine: docker.DockerClient) -> str:
    """The image of the service, built over a base that is made of this machine's Python."""
    images.build_base(engine)
    return images.build_service(engine)
