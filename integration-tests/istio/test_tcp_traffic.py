"""What a MetaRouter and a DestinationRule do to calls of the tcp shape, between real sidecars."""

import pytest

from calls import call, eventually
from echo import BOTH, of_tcp_shape
from harness import wait_until
from load import in_threads
from objects import destination_rule, host_of, meta_router, to
from servers import Counted, Server, per_frame
from wire import Dubbo, Peer, failure, reply

PORT = 9090
NAMED = "tcp-metaprotocol-thrift"


@pytest.fixture(scope="module")
def echo(controller, space):
    service = of_tcp_shape(space, PORT, "header")
    space.apply(destination_rule("echo", service.host, "v1", "v2"))
    return service


def of_two(space, name: str, port: int):
    """A Service before the pods with the label `<name>`, when the client's sidecar has it."""
    service = space.service(name, {name: "yes"}, [{"name": NAMED, "port": port}])
    space.pods["client"].has(f"meltemi.hcm.out.{service.host}:{port}")
    return service


def test_clients_of_every_transport_share_connections(space, echo):
    """A sidecar's connections to a server are for all its clients: a message's transport is not that of the one before."""
    for transport in ("framed", "header") * 3:
        assert set(call(space.pods["client"], echo.ip, PORT, transport=transport, count=20)) == BOTH


def test_ranges(space, echo, applied):
    me = space.pods["client"]
    applied(meta_router(
        "echo", echo.host,
        {"match": {"attributes": {"build": {"range": {"start": 100, "end": 200}}}}, "route": [to(echo.host, "v2")]},
        {"route": [to(echo.host, "v1")]}))
    eventually(me, echo.ip, PORT, {"v1: hello x"}, count=20)
    for build, version in ((99, "v1"), (100, "v2"), (199, "v2"), (200, "v1"), ("1e2", "v1")):
        seen = call(me, echo.ip, PORT, transport="header", headers={"build": str(build)}, count=5)
        assert set(seen) == {f"{version}: hello x"}, build


def test_hash_policy(space, echo, applied):
    """The route's own key, not that of the rule, which must have one for the cluster's sake."""
    me = space.pods["client"]
    service = space.service("hashed", {"app": "echo"}, [{"name": NAMED, "port": PORT + 4, "targetPort": PORT}])
    applied(destination_rule("hashed", service.host, loadBalancer={"consistentHash": {"httpHeaderName": "other"}}),
            meta_router("hashed", service.host, {"hashPolicy": ["user"], "route": [to(service.host)]}))
    me.has(f"meltemi.hcm.out.{service.host}:{PORT + 4}")
    eventually(me, service.ip, PORT + 4, lambda seen: set(seen) <= BOTH)

    def of_user(user: int) -> set[str]:
        headers = {"user": f"user-{user}", "other": "same"}
        return set(call(me, service.ip, PORT + 4, transport="header", headers=headers, count=5))

    def sticky():
        seen = [of_user(user) for user in range(12)]
        return seen if all(len(servers) == 1 for servers in seen) and set.union(*seen) == BOTH else None
    seen = wait_until(sticky, "each user to have one server", 30)
    assert [of_user(user) for user in range(12)] == seen, "on other connections as well"


def test_mirror(space, echo, applied):
    me = space.pods["client"]
    applied(meta_router("echo", echo.host, {"mirror": {"host": echo.host, "subset": "v2"}, "route": [to(echo.host, "v1")]}))
    eventually(me, echo.ip, PORT, {"v1: hello x"}, count=20)

    def arrived() -> int:
        return sum(space.pods["v2"].stats(rf"^cluster\.inbound.{PORT}.*upstream_rq_total$").values())
    before = arrived()
    assert set(call(me, echo.ip, PORT, count=20)) == {"v1: hello x"}
    wait_until(lambda: arrived() == before + 20, "the copies")


def test_a_pod_that_is_gone_is_retried_around(space, echo):
    """Kubernetes has not noticed yet. Nobody has to say anything for that."""
    space.start({name: {"labels": {"app": name, "half-gone": "yes"}} for name in ("stays", "goes")})
    for name in ("stays", "goes"):
        space.pods[name].thrift_server(PORT + 1)
    service = of_two(space, "half-gone", PORT + 1)
    me = space.pods["client"]
    eventually(me, service.ip, PORT + 1, {"stays: hello x", "goes: hello x"}, count=20)
    space.pods["goes"].end("agent")
    assert set(call(me, service.ip, PORT + 1, count=40)) == {"stays: hello x"}


def test_lost_calls_are_retried_if_they_may_run_twice(space, echo, applied):
    port, me = PORT + 2, space.pods["client"]
    space.start({"sick": {"labels": {"app": "sick", "flaky": "yes"}, "module": None}, "well": {"labels": {"app": "well", "flaky": "yes"}}})
    space.pods["well"].thrift_server(port)
    with space.pods["sick"].inside():
        sick = Server(lambda peer: peer.frame(), "0.0.0.0", port)
    service = of_two(space, "flaky", port)
    seen = eventually(me, service.ip, port, lambda seen: len(seen) == 2, count=20)
    assert {text.partition(":")[0] for text in seen} == {"well", "6"}, seen
    applied(meta_router("flaky", service.host, {"retries": {"attempts": 2, "idempotent": True}, "route": [to(service.host)]}))
    before = sick.connections
    eventually(me, service.ip, port, {"well: hello x"}, count=20)
    assert set(call(me, service.ip, port, count=40)) == {"well: hello x"}
    assert sick.connections > before, "it was asked"


def test_what_a_server_says_is_retried_since_envoy_1_40(space, echo, applied, envoy):
    """By what it says, behind its sidecar: that it has too much to do. Its calls may run twice."""
    port, me = PORT + 5, space.pods["client"]
    with space.pods["v1"].inside():
        Counted(lambda frame, asked: reply(frame, b"fine") if asked % 2 == 0 else failure(frame, 11, b"busy"), "0.0.0.0", port)
    service = space.service("busy", {"app": "echo", "version": "v1"}, [{"name": NAMED, "port": port}])
    me.has(f"meltemi.hcm.out.{service.host}:{port}")
    eventually(me, service.ip, port, {"fine", "11: busy"}, count=10)
    applied(meta_router("busy", service.host, {
        "name": "retried", "retries": {"attempts": 2, "idempotent": True}, "route": [to(service.host)]}))
    me.has('"name": "retried"')
    seen = call(me, service.ip, port, count=10)
    assert set(seen) == ({"fine"} if envoy.parents[2].name >= "1.40" else {"fine", "11: busy"}), seen


def test_a_server_that_is_gone_behind_its_sidecar_is_retried_since_envoy_1_40(space, echo, applied, envoy):
    """Dubbo has a word for it, CHANNEL_INACTIVE, and for one that hangs up. Calls may run twice, so it is no connect failure."""
    port, me = PORT + 7, space.pods["client"]
    space.start({name: {"labels": {"app": name, "dubbo": "yes"}} for name in ("answers", "hangs-up", "is-gone")})
    for name, answer in (("answers", Dubbo.answer), ("hangs-up", lambda frame: None)):
        with space.pods[name].inside():
            Server(per_frame(answer), "0.0.0.0", port)
    service = space.service("dubbo", {"dubbo": "yes"}, [{"name": "tcp-metaprotocol-dubbo", "port": port}])
    me.has(f"meltemi.hcm.out.{service.host}:{port}")
    for name in ("answers", "hangs-up", "is-gone"):
        space.pods[name].has(f"meltemi.hcm.in.{service.host}:{port}")

    def codes() -> set:
        seen = set()
        with me.inside():
            peer = Peer.connect(port, address=service.ip)
        for number in range(30):
            peer.send(Dubbo.call(number, "hello"))
            seen.add(Dubbo.parse(peer.frame())["code"])
        peer.close()
        return seen
    wait_until(lambda: codes() == {None, 35}, "answers of all three")
    applied(meta_router("dubbo", service.host, {"name": "twice", "retries": {"attempts": 2, "idempotent": True}, "route": [to(service.host)]}))
    me.has('"name": "twice"')
    if envoy.parents[2].name >= "1.40":
        wait_until(lambda: codes() == {None}, "nothing but answers")
    assert codes() == ({None} if envoy.parents[2].name >= "1.40" else {None, 35})


def test_circuit_breaker(space, echo, applied):
    """What exceeds the calls that wait for a connection is refused at once, in the protocol."""
    me = space.pods["client"]
    applied(destination_rule("breaker", host_of("breaker", space), connectionPool={
        "tcp": {"maxConnections": 1}, "http": {"http1MaxPendingRequests": 1}}))
    service = space.service("breaker", {"app": "echo"}, [{"name": NAMED, "port": PORT + 6, "targetPort": PORT}])
    me.has(f"meltemi.hcm.out.{service.host}:{PORT + 6}")
    eventually(me, service.ip, PORT + 6, lambda seen: set(seen) <= BOTH)

    def at_once(_):
        return next(iter(call(me, service.ip, PORT + 6, method="slow", argument=300)))

    def overflow():
        seen = in_threads(at_once, range(6))
        return any("overflow" in text for text in seen) and any("slept 300" in text for text in seen)
    wait_until(overflow, "calls that are refused beside calls that are answered", 30)
    assert set(call(me, service.ip, PORT + 6, count=10)) <= BOTH


def test_outlier_detection_ejects_what_answers_with_errors(space, echo, applied):
    """A pod whose server is gone answers in the protocol, by its sidecar."""
    port, me = PORT + 3, space.pods["client"]
    space.start({"empty": {"labels": {"app": "empty", "ejected": "yes"}}, "full": {"labels": {"app": "full", "ejected": "yes"}}})
    space.pods["full"].thrift_server(port)
    service = of_two(space, "ejected", port)
    space.pods["empty"].has(f"meltemi.hcm.in.{service.host}:{port}")
    eventually(me, service.ip, port, lambda seen: len(seen) == 2, count=20)
    applied(destination_rule("ejected", service.host, outlierDetection={
        "consecutive5xxErrors": 3, "interval": "1s", "baseEjectionTime": "600s", "maxEjectionPercent": 100}))
    eventually(me, service.ip, port, {"full: hello x"}, count=40)
    assert set(call(me, service.ip, port, count=40)) == {"full: hello x"}
    ejected = me.stats(rf"^cluster\.outbound.{port}.*ejected.*outlier_detection.ejections_active$")
    assert sum(ejected.values()) == 1


def test_nothing_was_refused(space, echo):
    there = [pod for pod in space.pods.values() if "agent" in pod.processes]
    assert {pod.name: pod.rejected() for pod in there if pod.rejected()} == {}
