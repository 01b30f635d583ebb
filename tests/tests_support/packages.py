"""Packages of others, which are no dependency of ours."""

import warnings
from types import ModuleType

import pytest


def installed(name: str) -> ModuleType:
    """The module, whose own warnings are not ours; skips the test where there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"{name} is installed by scripts/adapters.py")
