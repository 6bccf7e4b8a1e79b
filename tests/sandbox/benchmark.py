"""How many simple calls per second the sandbox answers on one core, over TLS with keep-alive.

``python -m tests.sandbox.benchmark`` starts a sandbox in a process of its own, bound to one core where the system can
do that, calls it from another core, and prints what it reaches. It must not be the bottleneck of the portal's own
tests and measurements: 1,000 calls per second are the least, and fewer end with exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import ssl
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from portal.microsoft.clouds import local_clouds
from tests.sandbox import scenarios
from tests.sandbox.server import LOOPBACK, Sandbox
from tests.sandbox.tokens import access_token

LEAST = 1_000
_START_SECONDS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the sandbox is, and a token of a partner's service account for Partner Center."""

    port: int
    ca_file: str
    token: str


def serve(folder: str, ready: Connection, core: int | None) -> None:
    """Run a sandbox until the parent closes its end of the pipe."""
    _bind(core)
    with Sandbox(Path(folder)) as sandbox:
        world, cloud = sandbox.world, sandbox.clouds["global"]
        partner = next(one for one in world.tenants.values() if one.kind == "partner")
        token = access_token(
            world,
            cloud,
            tenant=partner,
            audience=cloud.partner_center,
            application=world.applications[scenarios.application_id()],
            credential="2",
            user=next(iter(partner.users.values())),
            home=partner,
            scopes={"user_impersonation"},
            amr=["pwd", "mfa"],
        )
        ready.send(Target(port=sandbox.port, ca_file=str(sandbox.ca_file), token=token))
        try:
            ready.recv()
        except EOFError:
            return


def _bind(core: int | None) -> None:
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


async def _caller(target: Target, host: str, request: bytes, until: float, times: list[float]) -> None:
    context = ssl.create_default_context(cafile=target.ca_file)
    reader, writer = await asyncio.open_connection(LOOPBACK, target.port, ssl=context, server_hostname=host)
    while (started := time.perf_counter()) < until:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.partition(b"\r\n")[0].decode())
        length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))
        times.append(time.perf_counter() - started)
    writer.close()
    await writer.wait_closed()


async def measure(target: Target, url: str, *, seconds: float, connections: int) -> tuple[float, float]:
    """Return calls per second, and the 95th percentile of the answer time in milliseconds."""
    netloc, _, path = url.removeprefix("https://").partition("/")
    request = (
        f"GET /{path} HTTP/1.1\r\nHost: {netloc}\r\nAuthorization: Bearer {target.token}\r\n"
        "Accept: application/json\r\nValidateMfa: true\r\n\r\n"
    ).encode()
    times: list[float] = []
    started = time.perf_counter()
    callers = (_caller(target, netloc.partition(":")[0], request, started + seconds, times) for _ in range(connections))
    await asyncio.gather(*callers)
    took = time.perf_counter() - started
    return len(times) / took, statistics.quantiles(times, n=20)[-1] * 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    parser.add_argument("--connections", type=int, default=16)
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    slowest = float("inf")
    with tempfile.TemporaryDirectory() as folder:
        server = spawn.Process(target=serve, args=(folder, theirs, cores[0] if cores else None), daemon=True)
        server.start()
        theirs.close()
        if not ours.poll(_START_SECONDS):
            raise RuntimeError("the sandbox did not start")
        target: Target = ours.recv()
        _bind(cores[1] if len(cores) > 1 else None)
        cloud = local_clouds(target.port)["global"]
        calls = {
            "organization profile, bearer checked": f"{cloud.partner_center}/v1/profiles/organization",
            "one page of customers, bearer checked": f"{cloud.partner_center}/v1/customers?size=40",
            "discovery document": f"{cloud.authority}/organizations/v2.0/.well-known/openid-configuration",
        }
        for name, url in calls.items():
            rate, slow = asyncio.run(measure(target, url, seconds=options.seconds, connections=options.connections))
            slowest = min(slowest, rate)
            sys.stdout.write(f"{name:40} {rate:7,.0f} calls/s   95 % within {slow:5.1f} ms\n")
        ours.close()
        server.join(10)
    where = "one core" if cores else "whatever cores the system gave it"
    sys.stdout.write(f"Over TLS with {options.connections} connections kept alive, the sandbox on {where}.\n")
    return 0 if slowest >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
