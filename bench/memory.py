"""What connections and VMs cost in memory."""

import contextlib
import json
import pathlib
import subprocess
import sys
import time

import by_hand
import native
import setup
from harness import World, free_port, get

# Connections that are held.
HELD = 1000
# The same behind as many that have used up what an Envoy has in stock since its start.
MORE = 3000
WORKERS = (1, 2, 4)


@contextlib.contextmanager
def held(proxy, path: str, connections: int):
    """Idle connections that made one call each."""
    clients = subprocess.Popen(proxy.tool("hold", path) + ["--connections", str(connections)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    if clients.stdout.readline() != "held\n":
        sys.exit(f"bench: {path}: idle connections could not be made")
    yield
    clients.communicate()


def settled(look, tolerance: int) -> int:
    """A number when it stays. Connections that ended are deleted after the event loop's turn, and statistics flush every 5 s."""
    seen = -1
    while True:
        now = look()
        if abs(now - seen) < tolerance:
            return now
        seen = now
        time.sleep(0.3)


def allocated(proxy, path: str) -> float:
    """Bytes that Envoy has allocated for each idle connection. What plugins have is not among them."""
    def look():
        return settled(lambda: int(json.loads(get(proxy.world.envoy_admin, "/memory"))["allocated"]), 4096)
    before = look()
    with held(proxy, path, HELD):
        return (look() - before) / HELD


def resident(proxy, path: str) -> float:
    """Bytes of memory by which Envoy grows for each idle connection. It starts anew: what it once had it does not give back."""
    proxy.world.stop("envoy")
    proxy.start_envoy()
    with held(proxy, path, HELD):
        before = settled(proxy.world.resident, 65536)
        with held(proxy, path, MORE):
            return (settled(proxy.world.resident, 65536) - before) / MORE


def virtual_machines(version: str, folder: pathlib.Path) -> list[dict]:
    """Bytes that an Envoy has of the system without a plugin and with one, by number of workers."""
    rows = []
    for workers in WORKERS:
        row = {"workers": workers}
        for name, before in (("without", []), ("with", [by_hand.ours("inlet", host="wasm", codec={"name": "thrift"})])):
            place = folder / f"{name}-{workers}"
            place.mkdir()
            world, port = World(setup.envoy(version), place), free_port()
            bootstrap = {"admin": {"address": native.address(world.envoy_admin)}, "static_resources": {
                "listeners": [native.listener("one", port, native.http("none", "HTTP2", lean=True), *before)],
                "clusters": [native.cluster("none", free_port())]}}
            world.static_envoy(json.dumps(bootstrap), [port], concurrency=workers)
            row[name] = settled(world.resident, 65536)
            if before:
                row["vms"] = world.stats("wasm.envoy.wasm.runtime.v8.active")["wasm.envoy.wasm.runtime.v8.active"]
            world.close()
        rows.append(row)
    return rows
