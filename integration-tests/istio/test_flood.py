"""Many objects at once, and an API server that is gone for long, with sidecars to be served meanwhile."""

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from cluster_objects import FILTER, cluster, condition, filters, router, space, tcp_service  # noqa: F401
from harness import wait_until
from kube import ApiError

SERVICES, ROUTERS = 200, 40
NAMES = [f"s{index}" for index in range(SERVICES)]
# Longer than the longest pause between two tries of a watch, several times over.
GONE = 30
TYPE = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"


@pytest.fixture
def flooded(cluster, space):
    """A replica that has written all that a flood wants, on the tcp shape."""
    kube = cluster.kube
    replica = cluster.replica("flooded").start()
    try:
        items = [tcp_service(space, name) for name in NAMES] + [routed(space, name) for name in NAMES[:ROUTERS]]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(kube.apply, items))
        wait_until(lambda: written(kube, space) == expected(space), "all EnvoyFilters", 120)
        yield replica
    finally:
        replica.stop()


def routed(space: str, name: str, timeout="5s") -> dict:
    host = f"{name}.{space}.svc.cluster.local"
    return router(space, name, host, routes=[{"name": "all", "timeout": timeout, "route": [{"destination": {"host": host}}]}])


def written(kube, space: str) -> set[str]:
    """Services for whose callers something is written, and names of the objects for servers."""
    items = filters(kube, space)
    patches = [patch for item in items.values() for patch in item["spec"]["configPatches"] if patch["applyTo"] == "CLUSTER"]
    called = {patch["match"]["cluster"].get("service") for patch in patches} - {None}
    return {host for host in called if f".{space}." in host} | {name for name in items if name.startswith(f"{space}/")}


def expected(space: str, names=tuple(NAMES)) -> set[str]:
    return {one for name in names for one in (f"{name}.{space}.svc.cluster.local", f"{space}/meltemi-in-{name}-9090")}


def field(number: int, value: bytes) -> bytes:
    """A field of protobuf that is shorter than 16 KiB."""
    length = bytes([len(value)]) if len(value) < 128 else bytes([len(value) & 127 | 128, len(value) >> 7])
    return bytes([number << 3 | 2]) + length + value


@contextlib.contextmanager
def sidecar(replica, name: str):
    """The responses that a sidecar gets that asks for a route configuration."""
    request = field(1, field(1, b"sidecar")) + field(2, TYPE.encode()) + field(3, name.encode())

    closed = threading.Event()

    def requests():
        yield request
        closed.wait()
    with grpc.insecure_channel(f"127.0.0.1:{replica.xds}") as channel:
        method = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
        try:
            yield channel.stream_stream(method)(requests(), timeout=120)
        finally:
            closed.set()


def test_a_flood_converges(cluster, space, flooded):
    kube = cluster.kube
    for name in NAMES[:ROUTERS]:
        item = routed(space, name)
        wait_until(lambda: condition(kube, item, "Accepted").get("status") == "True", f"the status of {name}", 60)
    owned = [item for item in kube.list(*FILTER) if item["metadata"]["namespace"] == space]
    assert all(item["metadata"]["ownerReferences"][0]["kind"] == "Service" for item in owned)
    for name in NAMES[: SERVICES // 2]:
        kube.delete(tcp_service(space, name))
    left = expected(space, NAMES[SERVICES // 2:])
    wait_until(lambda: written(kube, space) == left, "the filters of what is gone to go, and no others", 60)


def test_sidecars_are_served_while_the_api_server_is_gone(cluster, space, flooded):
    kube = cluster.kube
    # How many objects all callers share depends on what other tests leave.
    own = {name: item["metadata"]["uid"] for name, item in filters(kube, space).items() if name.startswith(f"{space}/")}
    assert len(own) == SERVICES
    route = f"meltemi.hcm.out.s0.{space}.svc.cluster.local:9090"
    with sidecar(flooded, route) as old:
        first = next(old)
        assert route.encode() in first
        kube.stop_api()
        try:
            time.sleep(GONE)
            assert flooded.is_ready()
            with sidecar(flooded, route) as new:
                assert next(new) == first, "a sidecar that starts now gets what the others have"
        finally:
            kube.start_api()

        def changed():
            try:
                return kube.apply(routed(space, "s0", "7s"))
            except ApiError:
                return None  # It is there, but not for all yet.
        wait_until(changed, "the API server to take a change", 30)
        assert next(old) != first, "the change reaches the sidecar that stayed"
    kube.apply(tcp_service(space, "late"))
    wait_until(lambda: written(kube, space) == expected(space, [*NAMES, "late"]), "the filters of a new service", 30)
    after = filters(kube, space)
    assert {name: after[name]["metadata"]["uid"] for name in own} == own, "nothing was deleted or made anew"
