"""Shape `native`: what Istio's VirtualService, DestinationRule and GRPCRoute do to calls, beside the routing of `test_native`."""

import pytest

from calls import call, eventually, one
from clients import client
from echo import BOTH, two_versions
from harness import wait_until
from load import in_threads
from objects import authorization, destination_rule, grpc_route, to, virtual_service
from servers import Counted
from wire import failure, reply

PORT, HEADERS, FLAKY, BROKEN, SERVICES = range(9091, 9096)
BUSY, DOWN = "11: busy", "6: down"


def ports(*numbers: int) -> list[dict]:
    return [{"name": f"thrift-{number}", "port": number, "appProtocol": "meltemi.dev/thrift"} for number in numbers]


def flaky(frame: bytes, asked: int) -> bytes | None:
    """Every second call fails: `slow` by a lost connection, others by a word of the server."""
    if asked % 2 == 0:
        return reply(frame, b"fine")
    return None if b"slow" in frame else failure(frame, 11, b"busy")


@pytest.fixture(scope="module")
def echo(controller, space):
    """Service `echo` with more ports: THeader; one where `v1` fails every second time; one where all of `v2` fails; one whose calls
    name the service."""
    service = two_versions(space, PORT, ports(PORT, HEADERS, FLAKY, BROKEN, SERVICES))
    v1, v2 = space.pods["v1"], space.pods["v2"]
    for pod in (v1, v2):
        pod.thrift_server(HEADERS, transport="header")
        pod.thrift_server(SERVICES, "--multiplexed")
    v1.thrift_server(BROKEN)
    with v1.inside():
        Counted(flaky, "0.0.0.0", FLAKY)
    with v2.inside():
        Counted(lambda frame, _: failure(frame, 6, b"down"), "0.0.0.0", BROKEN)
    return service


def test_what_a_server_says_is_tried_again_since_envoy_1_40(space, echo, applied, envoy):
    me = space.pods["client"]
    applied(destination_rule("echo", echo.host, "v1"), virtual_service(
        "echo", echo.host, {"route": [to(echo.host, "v1")], "retries": {"attempts": 2, "retryOn": "5xx"}}))
    me.has('"retry_on": "5xx"')
    said, lost = call(me, echo.ip, FLAKY, count=10), call(me, echo.ip, FLAKY, method="slow", argument=1, count=10)
    if envoy.parents[2].name >= "1.40":
        assert (set(said), set(lost)) == ({"fine"}, {"fine"})
    else:
        assert said == {"fine": 5, BUSY: 5}
        assert lost["fine"] == 5 and len(lost) == 2, lost


def test_a_server_that_is_gone_is_tried_around(space, echo, applied):
    """By Istio's own policy, which a VirtualService can take away."""
    me, dead = space.pods["client"], space.pod("dead", sidecar=False)
    service = space.service("half", {}, ports(PORT))
    space.apply({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                 "metadata": {"name": "half", "labels": {"kubernetes.io/service-name": "half"}},
                 "ports": [{"name": f"thrift-{PORT}", "port": PORT}],
                 "endpoints": [{"addresses": [ip], "conditions": {"ready": True}} for ip in (space.pods["v1"].ip, dead.ip)]})
    me.takes(service.host, PORT)
    never = virtual_service("half", service.host, {"route": [to(service.host)], "retries": {"attempts": 0}})
    applied(never)
    eventually(me, service.ip, PORT, lambda seen: len(seen) > 1, count=20)
    space.delete(never)
    eventually(me, service.ip, PORT, {"v1: hello x"}, count=50)


def test_mirror(space, echo, applied):
    me = space.pods["client"]
    applied(destination_rule("echo", echo.host, "v1", "v2"), virtual_service(
        "echo", echo.host, {"route": [to(echo.host, "v1")], "mirror": {"host": echo.host, "subset": "v2"}}))
    eventually(me, echo.ip, PORT, {"v1: hello x"}, count=20)
    with me.dialed(client(PORT, address=echo.ip)) as demo:
        for _ in range(5):
            demo.fire("copied")
            assert one(demo) == "v1: hello x"
    for version in ("v1", "v2"):
        wait_until(lambda version=version: space.pods[version].log(f"thrift-{PORT}").count("fire copied") == 5, f"the calls at {version}")


def with_headers(space, echo, **headers: str) -> tuple[str, dict]:
    """The answer to a call with these headers, and the reply's own."""
    with space.pods["client"].dialed(client(HEADERS, "header", headers=headers, address=echo.ip)) as demo:
        return one(demo), demo.encoding.get_headers()


def test_headers_are_matched_and_changed(space, echo, applied):
    """What the server gets is seen by its own sidecar, which obeys a policy on it."""
    applied(destination_rule("echo", echo.host, "v1", "v2"), virtual_service(
        "echo", echo.host,
        {"match": [{"headers": {"env": {"exact": "gray"}}}], "route": [to(echo.host, "v2")],
         "headers": {"request": {"set": {"env": "blue"}}, "response": {"set": {"served-by": "the mesh"}}}},
        {"route": [to(echo.host, "v1")]}))
    changed = "v2: hello x", {b"served-by": b"the mesh"}
    wait_until(lambda: with_headers(space, echo, env="gray") == changed, "the route by header")
    assert with_headers(space, echo, env="grey") == ("v1: hello x", {})
    rule = {"when": [{"key": "request.headers[env]", "values": ["blue"]}]}
    applied(authorization("no-blue", "DENY", {"app": "echo"}, rule))
    wait_until(lambda: with_headers(space, echo, env="gray")[0] == "6: RBAC: access denied", "the policy on the changed header")
    assert with_headers(space, echo, env="grey")[0] == "v1: hello x"


def test_no_route_is_no_such_method(space, echo, applied):
    me = space.pods["client"]
    applied(virtual_service("echo", echo.host, {"match": [{"uri": {"exact": "/slow"}}], "route": [to(echo.host)]}))
    eventually(me, echo.ip, PORT, lambda seen: all(text.startswith("1: ") for text in seen), count=4)
    assert all("slept 1" in text for text in call(me, echo.ip, PORT, method="slow", argument=1, count=4))


def test_consistent_hash_by_header(space, echo, applied):
    applied(destination_rule("echo", echo.host, loadBalancer={"consistentHash": {"httpHeaderName": "user"}}))

    def sticky():
        homes = [{with_headers(space, echo, user=f"u{user}")[0] for _ in range(4)} for user in range(10)]
        return all(len(home) == 1 for home in homes) and set.union(*homes) == BOTH
    wait_until(sticky, "every user at one server, and both in use", 30)


def test_outlier_detection_ejects_a_server_that_says_failures(space, echo, applied):
    me = space.pods["client"]
    eventually(me, echo.ip, BROKEN, {"v1: hello x", DOWN}, count=20)
    applied(destination_rule("echo", echo.host, outlierDetection={
        "consecutive5xxErrors": 3, "interval": "1s", "baseEjectionTime": "300s", "maxEjectionPercent": 100}))
    eventually(me, echo.ip, BROKEN, {"v1: hello x"}, count=20)
    hosts = [line for line in me.admin("/clusters").splitlines() if line.startswith(f"outbound|{BROKEN}||{echo.host}::")]
    [ejected] = [line for line in hosts if "failed_outlier_check" in line]
    assert f"::{space.pods['v2'].ip}:{BROKEN}::" in ejected


def test_circuit_breaker(space, echo, applied):
    """A call has a connection of its own: what exceeds the pending ones is refused at once, in the protocol."""
    me = space.pods["client"]
    applied(destination_rule("echo", echo.host, connectionPool={
        "tcp": {"maxConnections": 1}, "http": {"http1MaxPendingRequests": 1}}))

    def at_once(_):
        return next(iter(call(me, echo.ip, PORT, method="slow", argument=300)))

    def overflow():
        seen = in_threads(at_once, range(6))
        return any("overflow" in text for text in seen) and any("slept 300" in text for text in seen)
    wait_until(overflow, "calls that are refused beside calls that are answered", 30)
    assert set(call(me, echo.ip, PORT, count=10)) <= BOTH


def test_grpc_route(space, echo, applied):
    """The Gateway API's typed way to name a method, for calls that name the service."""
    me = space.pods["client"]
    v2 = space.service("echo-v2", {"app": "echo", "version": "v2"}, ports(SERVICES))
    applied(grpc_route("echo", "echo", SERVICES, "Demo", "slow", v2.name))
    eventually(me, echo.ip, SERVICES, {"v2: slept 1"}, method="slow", argument=1, count=20, service="Demo")
    # A call that is sent just as a changed route closes its connection can fail.
    eventually(me, echo.ip, SERVICES, BOTH, count=20, service="Demo")
