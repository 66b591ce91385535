"""Our control plane is killed and comes back while a mesh is under load."""

import signal

import pytest

from cluster_objects import filters
from echo import of_tcp_shape
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
