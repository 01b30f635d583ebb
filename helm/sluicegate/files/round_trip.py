"""What `helm test` runs: the service is ready, and a lease is granted and settled.

RESOURCE is acquired with one token and settled with none used, so its budget is whole again;
without it only readiness is tried.
"""

import os

import httpx

from client_sdk import RateLimited, SyncLimiter

url, resource = os.environ["SERVICE"], os.environ.get("RESOURCE")
keys = os.environ.get("KEY", "").split()
answer = httpx.get(f"{url}/readyz", params={"verbose": True}, timeout=10)
print("readyz", answer.status_code, answer.text)
answer.raise_for_status()
if resource:
    with SyncLimiter(url, tenant="helm-test", api_key=keys[0] if keys else None) as limiter:
        try:
            with limiter.acquire(resource, tokens=1, max_wait=5) as lease:
                lease.used(input_tokens=0, output_tokens=0)
            print("granted and settled", resource)
        except RateLimited as refusal:  # a spent budget is not a broken service
            print("refused", refusal)
