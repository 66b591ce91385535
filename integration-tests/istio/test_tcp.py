"""Shape `tcp`, for Aeraki's port names and objects: our own HTTP connection manager and routes, from our xDS server."""

import pytest

from calls import call, eventually, one
from clients import client
from echo import BOTH, of_tcp_shape
from harness import wait_until
from objects import destination_rule, meta_router, to

PORT = 9090


@pytest.fixture(scope="module")
def echo(controller, space):
    service = of_tcp_shape(space, PORT, plain={"module": None})
    space.apply(destination_rule("echo", service.host, "v1", "v2"))
    return service


def test_routes_of_a_meta_router_of_aeraki(space, echo, applied):
    me = space.pods["client"]
    applied(meta_router(
        "echo", echo.host, {"name": "pinned", "match": {"attributes": {"method": {"exact": "slow"}}}, "route": [to(echo.host, "v2")]},
        {"name": "rest", "route": [to(echo.host, "v1", 20), to(echo.host, "v2", 80)]}))
    eventually(me, echo.ip, PORT, {"v2: slept 1"}, method="slow", argument=1, count=30)
    seen = call(me, echo.ip, PORT, count=400)
    assert set(seen) == BOTH and 0.70 < seen["v2: hello x"] / 400 < 0.90, seen
    assert {name: pod.rejected() for name, pod in space.pods.items() if pod.rejected()} == {}


def test_denied(space, echo, applied):
    applied(meta_router(
        "echo", echo.host, {"match": {"attributes": {"method": {"exact": "slow"}}}, "deny": True, "route": [to(echo.host)]},
        {"route": [to(echo.host)]}))
    me = space.pods["client"]
    eventually(me, echo.ip, PORT, lambda seen: all("denied" in text for text in seen), method="slow", argument=1)
    assert set(call(me, echo.ip, PORT, count=20)) == BOTH


def test_limits_are_counted_at_the_server(space, echo, applied):
    """By condition, and from the service's first call on."""
    applied(meta_router(
        "limited", f"limited.{space.name}.svc.cluster.local", {"route": [to(f"limited.{space.name}.svc.cluster.local")]},
        localRateLimit={"conditions": [{"match": {"attributes": {"method": {"exact": "hello"}}},
                                        "tokenBucket": {"maxTokens": 3, "tokensPerFill": 1, "fillInterval": "600s"}}]}))
    space.pod("limited", labels={"app": "limited"}).thrift_server(PORT + 1)
    service = space.service("limited", {"app": "limited"}, [{"name": "tcp-metaprotocol-thrift", "port": PORT + 1}])
    space.pods["limited"].has(f"meltemi.hcm.in.{service.host}:{PORT + 1}")
    space.pods["client"].has(f"meltemi.hcm.out.{service.host}:{PORT + 1}")
    eventually(space.pods["client"], service.ip, PORT + 1, lambda seen: any("limit" in text for text in seen), count=10)
    assert "limited: slept 1" in call(space.pods["client"], service.ip, PORT + 1, method="slow", argument=1)


def test_limits_reach_open_connections(space, echo, applied):
    """Those of a service at its servers, those of a route at its callers."""
    me, bucket, route = space.pods["client"], {"maxTokens": 1, "tokensPerFill": 1, "fillInterval": "600s"}, {"route": [to(echo.host, "v1")]}
    free = meta_router("echo", echo.host, route)
    applied(free)
    eventually(me, echo.ip, PORT, {"v1: hello x"}, count=20)
    with me.dialed(client(PORT, address=echo.ip)) as demo:
        assert one(demo) == "v1: hello x"
        for limited in (meta_router("echo", echo.host, route, localRateLimit={"tokenBucket": bucket}),
                        meta_router("echo", echo.host, route | {"localRateLimit": bucket})):
            space.apply(limited)
            wait_until(lambda: "limit" in one(demo), "the limit on a connection that is open", 20)
            space.apply(free)
            wait_until(lambda: one(demo) == "v1: hello x", "no limit on the same connection", 20)
    assert {name: pod.rejected() for name, pod in space.pods.items() if pod.rejected()} == {}


def test_pods_without_the_module(space, echo):
    assert len(call(space.pods["plain"], echo.ip, PORT, count=20)) == 1


def test_without_the_control_plane(space, echo, applied, controller):
    """Routes stay where they are, a new sidecar starts with the service itself, and no call fails."""
    me = space.pods["client"]
    routes = meta_router("echo", echo.host, {"route": [to(echo.host, "v2")]})
    applied(routes)
    eventually(me, echo.ip, PORT, {"v2: hello x"}, count=20)
    controller.stop()
    try:
        for _ in range(10):
            assert set(call(me, echo.ip, PORT, count=10)) == {"v2: hello x"}
        late = space.pod("late")
        assert set(call(late, echo.ip, PORT, count=20)) <= BOTH
    finally:
        controller.start()
    assert set(call(me, echo.ip, PORT, count=20)) == {"v2: hello x"}
    # Envoy tries again after up to 30 s; a manager that comes later is for new connections.
    eventually(late, echo.ip, PORT, {"v2: hello x"}, count=20, seconds=90)


def test_connection_mode_without_the_control_plane(space, echo, applied, controller):
    """All of it comes from istiod: a new sidecar has the routes, too."""
    me, port = space.pods["client"], PORT + 2
    for version in ("v1", "v2"):
        space.pods[version].thrift_server(port)
    service = space.service("relayed", {"app": "echo"}, [{"name": "tcp-metaprotocol-thrift", "port": port}],
                            annotations={f"meltemi.dev/mode.{port}": "connection"})

    def routes(version: str):
        applied(meta_router("relayed", service.host, {"route": [to(service.host, version)]}))
    applied(destination_rule("relayed", service.host, "v1", "v2"))
    routes("v2")
    eventually(me, service.ip, port, {"v2: hello x"}, count=20)
    with me.dialed(client(port, address=service.ip)) as demo:
        controller.stop()
        try:
            assert {one(demo) for _ in range(10)} == {"v2: hello x"}
            newcomer = space.pod("newcomer")
            newcomer.has(f"meltemi.relay.out.{space.name}.relayed.{port}")
            for pod in (me, newcomer):
                assert set(call(pod, service.ip, port, count=20)) == {"v2: hello x"}
        finally:
            controller.start()
        assert one(demo) == "v2: hello x"
    routes("v1")
    for pod in (me, newcomer):
        eventually(pod, service.ip, port, {"v1: hello x"}, count=20)
    assert {name: pod.rejected() for name, pod in space.pods.items() if pod.rejected()} == {}
