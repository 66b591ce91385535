"""Connection mode: our route table in front of tcp_proxy."""

import pytest

from clients import client
from harness import FILTER_HOST, free_port, router, rule, service, to, wait_until
from servers import Server, per_frame
from wire import Peer, Thrift

HOST = "echo.test"
MODE = "meltemi.dev/mode."


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


@pytest.mark.feature("connection mode: deny, fault, limit, no route, malformed")
def test_connections_are_routed_by_their_first_request(world, wire):
    port = mesh(world, wire, on("deny", deny=True), on("abort", fault={"abort": {}}),
                on("limited", localRateLimit={"maxTokens": 1, "fillInterval": "600s"}), on("hello"),
                {"match": {"attributes": {"method": {"prefix": "two"}}}, "route": [to(HOST, "v2")]})

    def talk(*methods):
        peer, got = Peer.connect(port), []
        for number, method in enumerate(methods):
            peer.send(wire.call(number, method))
            try:
                frame = peer.frame()
            except EOFError:
                return [*got, "closed"]
            reply = wire.parse(frame)
            assert reply["id"] == number
            got.append(("v1" if b"v1" in frame else "v2") if reply["ok"] else reply["code"])
        peer.close()
        return got
    code = lambda kind: wire.codes.get(kind, wire.other)  # noqa: E731
    assert talk("hello", "hello", "two") == ["v1", "v1", "v1"], "the connection stays where it went"
    assert talk("two", "hello") == ["v2", "v2"]
    if FILTER_HOST == "wasm":
        # Before the server says something nothing can be written: the connection ends instead.
        assert [talk(method) for method in ("deny", "abort", "nowhere")] == [["closed"]] * 3
        assert talk("limited", "limited", "hello") == ["v1", "closed"]
        world.counted(wire.name, {"unanswered": 4})
    else:
        assert talk("deny", "two", "abort", "nowhere") == [code("denied"), "v2", code("aborted"), code("no_route")]
        assert talk("limited", "limited", "hello") == ["v1", code("rate_limited"), "v1"]
    world.counted(wire.name, {"in_flight": 0, "errors.denied": 1})


def single(world, wire, server_port, *objects):
    """One server, and no route that says more than where it is; gives the service's port."""
    port = free_port()
    world.write("all", service(HOST, port, {server_port: "v1"}, wire.name, **{f"{MODE}{port}": "connection"}), *objects)
    world.serve()
    world.envoy(wait_for=[port])
    return port


def works(wire, peer, number=1):
    peer.send(wire.call(number, "fine"))
    reply = wire.parse(peer.frame())
    return (reply["id"], reply["ok"]) == (number, True)


def errors(world, wire, kind):
    return world.counter(f"meltemi.{wire.name}.errors.{kind}")


# What a server does with a call, what the client is told, and how that is counted.
ENDS = {
    "dies": (lambda wire, peer, frame: peer.close(), "upstream_reset"),
    "dies-within": (lambda wire, peer, frame: (peer.send(wire.answer(frame)[:-5]), peer.close()), "upstream_reset"),
    "nonsense": (lambda wire, peer, frame: (peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), peer.exactly(1)), "bad_reply"),
}


@pytest.mark.parametrize("end", ENDS)
def test_servers_that_fail(world, wire, end):
    """The call is answered, and the connection, which has no other server, ends."""
    fail, kind = ENDS[end]

    def behave(peer):
        while b"hello" not in (frame := peer.frame()):
            peer.send(wire.answer(frame))
        fail(wire, peer, frame)
    port = single(world, wire, Server(behave).port)
    peer = Peer.connect(port)
    assert works(wire, peer)
    peer.send(wire.call(2, "hello"))
    reply = wire.parse(peer.frame())
    assert (reply["id"], reply["ok"], reply["code"]) == (2, False, wire.codes.get(kind, wire.other))
    assert peer.ended()
    world.counted(wire.name, {f"errors.{kind}": 1, "in_flight": 0})
    assert works(wire, Peer.connect(port))


def test_a_server_that_resets(world, wire):
    """Envoy's `tcp_proxy` closes the client's connection without letting anybody say why; it is counted."""
    def behave(peer):
        while b"hello" not in (frame := peer.frame()):
            peer.send(wire.answer(frame))
        peer.reset()
    port = single(world, wire, Server(behave).port)
    peer = Peer.connect(port)
    assert works(wire, peer)
    peer.send(wire.call(2, "hello"))
    assert hung_up(peer)
    wait_until(lambda: errors(world, wire, "upstream_reset") == 1, "the counter")
    world.counted(wire.name, {"in_flight": 0})
    assert works(wire, Peer.connect(port))


def hung_up(peer) -> bool:
    """The connection ends, politely or not, without another byte."""
    try:
        return peer.ended()
    except ConnectionResetError:
        return True


def test_connection_refused(world, wire):
    peer = Peer.connect(single(world, wire, free_port()))
    peer.send(wire.call(1, "hello"))
    assert hung_up(peer)
    wait_until(lambda: sum(world.stats(rf"^cluster\..*{HOST}\.upstream_cx_connect_fail$").values()) > 0, "the counter")
    wait_until(lambda: errors(world, wire, "upstream_reset") == 1, "the counter")
    world.counted(wire.name, {"in_flight": 0})


def test_a_reply_to_somebody_else(world, wire):
    """Where ids tell replies apart; else it is the reply to the oldest call, whatever its id."""
    def behave(peer):
        frame = peer.frame()
        peer.send(wire.foreign(frame))
        peer.exactly(1)
    peer = Peer.connect(single(world, wire, Server(behave).port))
    peer.send(wire.call(2, "hello"))
    frame = peer.frame()
    if wire is Thrift:
        assert frame == wire.foreign(frame)
    else:
        assert (wire.parse(frame)["id"], wire.parse(frame)["code"]) == (2, wire.codes["bad_reply"])
        assert peer.ended()


@pytest.mark.feature("connection mode: deny, fault, limit, no route, malformed", module="answered",
                     wasm="the connection is closed, counted as `unanswered`",
                     why="`tcp_proxy` writes nothing that could be replaced; an answer in the turn of the server's goes with it")
def test_too_large(world, wire):
    server = Server(per_frame(wire.answer))
    port = single(world, wire, server.port, {
        "apiVersion": "meltemi.dev/v1alpha1", "kind": "ApplicationProtocol", "metadata": {"name": wire.name},
        "spec": {"protocol": wire.name, "codec": f"aeraki.meta_protocol.codec.{wire.name}", "maxFrameBytes": 1000}})
    peer = Peer.connect(port)
    # Before and after the connection has a server.
    for number in (1, 3):
        peer.send(wire.call(number, "hello", b"x" * 50_000))
        if FILTER_HOST == "wasm":
            with pytest.raises((EOFError, ConnectionResetError)):
                peer.frame()
            peer = Peer.connect(port)
            assert works(wire, peer, number + 1)
            continue
        reply = wire.parse(peer.frame())
        assert (reply["id"], reply["ok"], reply["code"]) == (number, False, wire.codes["too_large"])
        assert works(wire, peer, number + 1)
    world.counted(wire.name, {"errors.too_large": 2})
    assert server.connections == (2 if FILTER_HOST == "wasm" else 1)


@pytest.mark.parametrize("calls", [0, 1])
def test_undecodable(world, wire, calls):
    """The connection ends, in both directions."""
    seen = []

    def behave(peer):
        try:
            while True:
                frame = peer.frame()
                seen.append(frame)
                peer.send(wire.answer(frame))
        except EOFError:
            seen.append("end")
    port = single(world, wire, Server(behave).port)
    other, peer = Peer.connect(port), Peer.connect(port)
    for number in range(calls):
        assert works(wire, peer, number)
    peer.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    assert peer.ended()
    wait_until(lambda: world.counter(f"meltemi.{wire.name}.decode_errors") == 1, "the counter")
    asked = [wire.call(number, "fine") for number in range(calls)]
    wait_until(lambda: seen == asked + ["end"] * calls, "the server to see the end")
    assert works(wire, other)


def test_drain(world, wire):
    """The listener goes: connections are served on until Envoy's drain time is over."""
    server = Server(per_frame(wire.answer))
    port, new = single(world, wire, server.port), free_port()
    peer = Peer.connect(port)
    assert works(wire, peer)
    world.changed("all", service(HOST, new, {server.port: "v1"}, wire.name, **{f"{MODE}{new}": "connection"}))
    wait_until(lambda: world.counter("listener_manager.total_listeners_draining") == 1, "the drain")
    assert works(wire, peer, 2)
    assert works(wire, Peer.connect(new))
    assert hung_up(peer)
    world.counted(wire.name, {"errors.upstream_reset": 0, "in_flight": 0})


@pytest.mark.feature("connection mode: routes, changes, counts")
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
