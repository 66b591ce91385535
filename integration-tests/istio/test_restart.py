"""Our control plane is killed and comes back while a mesh is under load."""

import signal

import pytest

from cluster_objects import FILTER, filters
from echo import of_tcp_shape
from harness import wait_until
from objects import destination_rule, meta_router, to
from steady import Steady

PORT = 9090


@pytest.fixture(scope="module")
def echo(controller, space):
    service = of_tcp_shape(space, PORT, "header")
    space.apply(destination_rule("echo", service.host, "v1", "v2"))
    return service


def test_killed_under_load(bed, space, echo, applied, controller):
    """No call fails; routes change before and after; what is in the cluster stays as it is."""
    def routes(version: str):
        applied(meta_router("echo", echo.host, {"route": [to(echo.host, version)]}))
    load = Steady(space.pods["client"], echo.ip, PORT)
    try:
        load.settles("v1", "v2")
        routes("v1")
        load.settles("v1")
        written = filters(bed.kube, space.name)
        for _ in range(2):
            controller.stop(signal.SIGKILL)
            try:
                load.more(500)
            finally:
                controller.start()
            load.more(500)
        assert set(load.seen) == {"v1", "v2"}
        assert filters(bed.kube, space.name) == written
        # Envoy tries again after up to 30 s.
        routes("v2")
        load.settles("v2", seconds=90)
        assert set(load.seen) == {"v1", "v2"}, load.seen
    finally:
        load.end()
    assert {name: pod.rejected() for name, pod in space.pods.items() if pod.rejected()} == {}


def test_what_an_older_version_wrote_is_replaced_under_load(bed, space, echo, applied, controller):
    """It had an object for the callers of each service. While that and the new one stand there, a listener has two chains that match
    the same, which Envoy refuses: it keeps what it has, and no call fails."""
    me, kube = space.pods["client"], bed.kube
    applied(meta_router("echo", echo.host, {"route": [to(echo.host, "v1")]}))
    load = Steady(me, echo.ip, PORT)
    try:
        load.settles("v1")
        load.seen.clear()
        controller.stop()
        try:
            new = kube.get(*FILTER, "meltemi-out", "istio-system")
            patches = [patch for patch in new["spec"]["configPatches"] if space.name in str(patch) or echo.ip in str(patch)]
            metadata = {"name": f"meltemi-out-{space.name}-echo-{PORT}", "namespace": "istio-system", "labels": new["metadata"]["labels"]}
            old = {key: new[key] for key in ("apiVersion", "kind")} | {"metadata": metadata, "spec": new["spec"] | {"configPatches": patches}}
            before = me.rejected()
            kube.apply(old, manager="meltemi")
            wait_until(lambda: me.rejected() != before, "a listener to be refused")
            load.more(500)
        finally:
            controller.start()
        wait_until(lambda: kube.get(*FILTER, metadata["name"], "istio-system") is None, "the old object to go")
        load.more(500)
        assert set(load.seen) == {"v1"}
        applied(meta_router("echo", echo.host, {"route": [to(echo.host, "v2")]}))
        load.settles("v2", seconds=90)
        assert set(load.seen) == {"v1", "v2"}, load.seen
    finally:
        load.end()
