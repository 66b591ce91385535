"""Connection mode: our route table in front of tcp_proxy."""

import pytest

from clients import client
from harness import free_port, router, rule, service, to
from servers import Server, per_frame
from wire import Dubbo, Peer, Thrift

HOST = "echo.test"
MODE = "meltemi.dev/mode."


@pytest.fixture(params=[Thrift, Dubbo], ids=lambda wire: wire.name)
def wire(request):
    return request.param


def mesh(world, wire, *routes):
    """Two servers that say who they are; gives the service's port."""
    one, two = (Server(per_frame(lambda frame, name=name: wire.answer(frame, name))) for name in (b"v1", b"v2"))
    port = free_port()
    world.write("all", service(HOST, port, {one.port: "v1", two.port: "v2"}, wire.name, **{f"{MODE}{port}": "connection"}),
                rule(HOST, "v1", "v2"), router(HOST, *routes))
    world.serve()
    world.envoy(wait_for=[port])
    assert world.problems() == []
    return port


def on(method, **more):
    return {"match": {"attributes": {"method": {"exact": method}}}, "route": [to(HOST, "v1")], **more}


def test_connections_are_routed_by_their_first_request(world, wire):
    port = mesh(world, wire, on("deny", deny=True), on("abort", fault={"abort": {}}),
                on("limited", localRateLimit={"maxTokens": 1, "fillInterval": "600s"}), on("hello"),
                {"match": {"attributes": {"method": {"prefix": "two"}}}, "route": [to(HOST, "v2")]})

    def talk(*methods):
        peer, got = Peer.connect(port), []
        for number, method in enumerate(methods):
            peer.send(wire.call(number, method))
            frame = peer.frame()
            reply = wire.parse(frame)
            assert reply["id"] == number
            got.append(("v1" if b"v1" in frame else "v2") if reply["ok"] else reply["code"])
        peer.close()
        return got
    code = lambda kind: wire.codes.get(kind, wire.other)  # noqa: E731
    assert talk("hello", "hello", "two") == ["v1", "v1", "v1"], "the connection stays where it went"
    assert talk("two", "hello") == ["v2", "v2"]
    assert talk("deny", "two", "abort", "nowhere") == [code("denied"), "v2", code("aborted"), code("no_route")]
    assert talk("limited", "limited", "hello") == ["v1", code("rate_limited"), "v1"]
    stats = world.stats(f"meltemi.{wire.name}")
    assert stats[f"meltemi.{wire.name}.in_flight"] == 0 and stats[f"meltemi.{wire.name}.errors.denied"] == 1


def test_a_server_that_dies(world, wire):
    def behave(peer):
        frame = peer.frame()
        peer.send(wire.answer(frame))
        peer.frame()
    port = free_port()
    world.write("all", service(HOST, port, {Server(behave).port: "v1"}, wire.name, **{f"{MODE}{port}": "connection"}))
    world.serve()
    world.envoy(wait_for=[port])
    peer = Peer.connect(port)
    peer.send(wire.call(1, "hello"))
    assert wire.parse(peer.frame())["ok"]
    peer.send(wire.call(2, "hello"))
    reply = wire.parse(peer.frame())
    assert (reply["id"], reply["code"]) == (2, wire.other)
    assert peer.ended()


@pytest.mark.parametrize("transport, protocol", [("framed", "binary"), ("unframed", "compact"), ("header", "binary")])
def test_real_thrift(world, transport, protocol):
    port, one = free_port(), free_port()
    world.thrift_server("v1", one, transport, protocol)
    world.write("all", service(HOST, port, {one: "v1"}, **{f"{MODE}{port}": "connection"}))
    world.serve()
    world.envoy(wait_for=[port])
    with client(port, transport, protocol) as demo:
        for _ in range(20):
            assert demo.hello("x") == "v1: hello x"
            demo.fire("y")
        assert demo.hello("z" * 3_000_000) == "v1: hello " + "z" * 3_000_000
