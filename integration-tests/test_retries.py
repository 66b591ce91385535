"""Failures that the server itself said, under retry policies; connections that must not be used again."""

import struct

import pytest

from by_hand import cluster, listener, manager, ours, route, start
from harness import FILTER_HOST, free_port, router, service, to, wait_until
from servers import Counted, Server, per_frame
from wire import Dubbo, Peer, Thrift, failure, hessian

HOST = "echo.test"


@pytest.fixture
def retries(envoy_version):
    """Up to Envoy 1.39, what a server says is final: a retry would use a bridge that it has destroyed. In Wasm there is none."""
    return envoy_version >= "1.40" or FILTER_HOST == "wasm"


def overloaded(wire, frame: bytes) -> bytes:
    """The server's own word for it: LOADSHEDDING of Thrift, status 100 of Dubbo; 503 by our table."""
    if wire is Dubbo:
        body = hessian("busy")
        return struct.pack(">HBB", 0xDABB, 2, 100) + frame[4:12] + struct.pack(">I", len(body)) + body
    return failure(frame, 11, b"busy")


def inlet(wire):
    return ours("inlet", codec={"name": wire.name})


POLICIES = [
    {"retry_on": "5xx"},
    {"retry_on": "connect-failure,reset,gateway-error"},
    {"retry_on": "retriable-status-codes", "retriable_status_codes": [503]},
]


@pytest.mark.feature("retry of a reply by its status", module="from Envoy 1.40", why="a bug of Envoy's bridges")
@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy["retry_on"])
@pytest.mark.parametrize("behind", [b"", b"\xda\xbbxx"], ids=["whole", "with bytes behind it"])
def test_a_failure_that_the_server_said(world, wire, retries, policy, behind):
    server = Counted(lambda frame, _: overloaded(wire, frame) + behind)
    port = free_port()
    fast = {"num_retries": 2, "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.002s"}}
    start(world, [listener(port, inlet(wire), manager(route(retry_policy=policy | fast)))],
          [cluster(server.port, wire.name, outlier_detection={
              "consecutive_5xx": 60, "enforcing_consecutive_5xx": 0, "interval": "600s"})])
    peer = Peer.connect(port)
    for number in range(20):
        sent = wire.call(number, "hello")
        peer.send(sent)
        assert peer.frame() == overloaded(wire, sent), "the server's own bytes"
    assert server.asked == (60 if retries else 20)
    if not retries:
        for number in range(40):
            peer.send(wire.call(number, "hello"))
            assert wire.parse(peer.frame())["message"] == "busy"
    ejections = "cluster.servers.outlier_detection.ejections_detected_consecutive_5xx"
    assert world.stats(ejections)[ejections] == 1, "60 failures are seen as such"


def test_idempotent_calls(world, wire, retries):
    """By our own control plane: said failures, and lost connections."""
    def answer(frame, asked):
        if asked % 2 == 0:
            return wire.answer(frame)
        return None if b"lose" in frame else overloaded(wire, frame)
    server = Counted(answer)
    port = free_port()
    world.write("all", service(HOST, port, {server.port: "v1"}, wire.name),
                router(HOST, {"retries": {"attempts": 2, "idempotent": True}, "route": [to(HOST)]}))
    world.serve()
    world.envoy(wait_for=[port])
    peer = Peer.connect(port)
    for number in range(10):
        peer.send(wire.call(number, "lose"))
        got = wire.parse(peer.frame())
        assert (got["id"], got["ok"]) == (number, True)
    outcomes = []
    for number in range(10):
        peer.send(wire.call(number, "hello"))
        outcomes.append(wire.parse(peer.frame())["ok"])
    assert outcomes == ([True] * 10 if retries else [False, True] * 5)


def test_a_mirror_whose_replies_give_their_connection_up(world, wire):
    good = Server(per_frame(wire.answer))
    loud = Counted(lambda frame, _: wire.answer(frame) + b"\0\0\0\x01x")
    port = free_port()
    mirrored = route(request_mirror_policies=[{"cluster": "mirror"}])
    start(world, [listener(port, inlet(wire), manager(mirrored))],
          [cluster(good.port, wire.name), cluster(loud.port, wire.name, name="mirror")])
    peer = Peer.connect(port)
    for number in range(50):
        peer.send(wire.call(number, "hello"))
        assert wire.parse(peer.frame())["ok"]

    def left():
        stats = world.stats("cluster.mirror.upstream_(cx|rq)_active$")
        return stats["cluster.mirror.upstream_cx_active"], stats["cluster.mirror.upstream_rq_active"]
    wait_until(lambda: loud.asked == 50 and left() == (0, 0), "the mirror's streams and connections to end")


MIB = 1 << 20


def large(world, limit: int, size: int) -> dict:
    """Sends a call of `size` bytes that Envoy keeps for a retry, so that the outlet gets it in one go, in many pieces."""
    server = Counted(lambda frame, asked: None if asked == 1 else Thrift.answer(frame, frame[-size:]))
    port, limits = free_port(), {"max_frame_bytes": limit}
    retried = route(retry_policy={"retry_on": "reset", "num_retries": 1})
    # What Envoy keeps of a request is bounded by the stream's window.
    window = {"initial_stream_window_size": 2 * limit, "initial_connection_window_size": 2 * limit}
    start(world, [listener(port, ours("inlet", codec={"name": "thrift"}, limits=limits),
                           manager(retried, http2_protocol_options=window), per_connection_buffer_limit_bytes=2 * limit)],
          [cluster(server.port, "thrift", limits=limits, per_connection_buffer_limit_bytes=2 * limit)])
    peer = Peer.connect(port)
    peer.send(Thrift.call(1, "hello", b"x" * size))
    return Thrift.parse(peer.frame()) | {"asked": server.asked}


def test_the_largest_frames_of_every_envoy(world):
    got = large(world, 32 * MIB, 31 * MIB)
    assert got["ok"] and got["asked"] == 2, got


@pytest.mark.feature("frames above 32 MiB", module="from Envoy 1.39", why="a bug of Envoy's bridges")
def test_larger_frames_where_envoy_counts_its_pieces(world, envoy_version):
    counts = envoy_version >= "1.39" or FILTER_HOST == "wasm"
    got = large(world, 72 * MIB, 70 * MIB if counts else 1 * MIB)
    if not counts:
        assert not got["ok"] and got["asked"] == 0, got
        assert "field `limits.max_frame_bytes`" in world.log("envoy")
    else:
        assert got["ok"] and got["asked"] == 2, got
