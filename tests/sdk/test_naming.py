"""Names of requests, in SDK and service: drawn many at once, and never twice."""

import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from client_sdk import _naming
from limiter_service.engine import ids

BOTH = pytest.mark.parametrize("name", [_naming.new_request_id, ids.new_request_id])
Name = Callable[[], str]


@BOTH
def test_names_are_digits_and_no_two_are_the_same(name: Name):
    """More of them than are drawn at once, by several threads."""
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.extend(name() for _ in range(400))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == len(found) == 1600
    assert all(len(each) == 32 and int(each, 16) >= 0 for each in found)


FORKED = """
import os
from {module} import new_request_id
new_request_id()
child = os.fork()
if child:  # what two write at once is torn
    assert os.waitpid(child, 0)[1] == 0
print(*(new_request_id() for _ in range(300)), flush=True)
"""


@pytest.mark.parametrize("module", [_naming.__name__, ids.__name__])
def test_a_process_that_is_forked_draws_its_own(module: str):
    """What its parent has drawn is the parent's."""
    program = [sys.executable, "-c", FORKED.format(module=module)]
    told = subprocess.run(program, capture_output=True, text=True, check=True).stdout.split()
    assert len(told) == len(set(told)) == 600


def test_nonces_fit_into_a_double():
    """Exactly, and use all of its whole numbers."""
    nonces = [ids.new_nonce() for _ in range(400)]
    assert all(0 <= nonce < 2**52 for nonce in nonces)
    assert len(set(nonces)) == len(nonces)
    assert max(nonces) > 2**51
    assert len(ids.new_short_id()) == 16
