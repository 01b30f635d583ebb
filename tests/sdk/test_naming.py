"""Names of requests, which SDK and service give: drawn many at once, and never twice."""

import subprocess
import sys
import threading

from limiter_service.engine import ids
from limiter_wire import naming


def test_names_are_digits_and_no_two_are_the_same():
    """More of them than are drawn at once, by several threads."""
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.extend(naming.new_request_id() for _ in range(400)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == len(found) == 1600
    assert all(len(each) == 32 and int(each, 16) >= 0 for each in found)


FORKED = """
import os
from limiter_service.engine.ids import new_nonce
from limiter_wire.naming import new_request_id
new_request_id()
new_nonce()
child = os.fork()
if child:  # what two write at once is torn
    assert os.waitpid(child, 0)[1] == 0
print(*(make() for make in (new_request_id, new_nonce) for _ in range(300)), flush=True)
"""


def test_a_process_that_is_forked_draws_its_own():
    """What its parent has drawn is the parent's."""
    program = [sys.executable, "-c", FORKED]
    told = subprocess.run(program, capture_output=True, text=True, check=True).stdout.split()
    assert len(told) == len(set(told)) == 1200


def test_nonces_fit_into_a_double():
    """Exactly, and use all of its whole numbers."""
    nonces = [ids.new_nonce() for _ in range(400)]
    assert all(0 <= nonce < 2**52 for nonce in nonces)
    assert len(set(nonces)) == len(nonces)
    assert max(nonces) > 2**51
    assert len(ids.new_short_id()) == 16
