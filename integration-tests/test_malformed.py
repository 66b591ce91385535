"""Bytes that are no calls, or more than may be: rows of docs/errors.md, as in test_errors.py."""

import struct

import pytest
from harness import free_port, service, wait_until
from servers import Server, per_frame
from wire import Dubbo, Peer, Thrift

HOST = "echo.test"


def served(world, wire, *objects):
    """A service with one server, which answers; gives its port, and the server."""
    server, port = Server(per_frame(wire.answer)), free_port()
    world.write("all", service(HOST, port, {server.port: "v1"}, wire.name), *objects)
    world.serve()
    world.envoy(wait_for=[port])
    return port, server


@pytest.mark.feature("malformed and too large frames are refused")
def test_too_large(world, wire):
    port, _ = served(world, wire, {
        "apiVersion": "meltemi.dev/v1alpha1", "kind": "ApplicationProtocol", "metadata": {"name": wire.name},
        "spec": {"protocol": wire.name, "codec": f"aeraki.meta_protocol.codec.{wire.name}", "maxFrameBytes": 1000}})
    peer = Peer.connect(port)
    peer.send(wire.call(1, "hello", b"x" * 5000))
    got = wire.parse(peer.frame())
    assert (got["ok"], got["id"], got["code"]) == (False, 1, wire.codes["too_large"])
    peer.send(wire.call(2, "hello"))
    assert wire.parse(peer.frame())["ok"]
    world.counted(wire.name, {"errors.too_large": 1})


# Bytes that say no number to answer to.
NONSENSE = [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\x80\x01\x00\x01\x7f\xff\xff\xff" + b"\0" * 16,
            b"\x00\x00\x00\x20\x80\x01\x00\x01\x7f\xff\xff\xff" + b"\0" * 24, b"\xff" * 64]


@pytest.mark.parametrize("nonsense", NONSENSE, ids=range(len(NONSENSE)))
def test_undecodable(world, wire, nonsense):
    port, _ = served(world, wire)
    peer = Peer.connect(port)
    peer.send(wire.call(1, "hello"))
    assert wire.parse(peer.frame())["ok"]
    other = Peer.connect(port)
    other.send(nonsense)
    assert other.ended()
    counter = f"meltemi.{wire.name}.decode_errors"
    wait_until(lambda: world.stats(counter)[counter] == 1, "the counter")
    peer.send(wire.call(2, "hello"))
    assert wire.parse(peer.frame())["ok"]


def thrift_frame(message: bytes) -> bytes:
    return struct.pack(">I", len(message)) + message


def with_header(transform: int, protocol: int) -> bytes:
    """Call 9 in the THeader transport."""
    info = bytes([protocol, 1, transform, 0])
    return thrift_frame(struct.pack(">HHIH", 0x0FFF, 0, 9, len(info) // 4) + info + Thrift.call(9, "hello")[4:])


# Requests that are none, but say whom to answer: the code of the answer, and whether the connection ends with it.
MALFORMED = {
    "thrift-type": (Thrift, thrift_frame(b"\x80\x01\x00\x09" + Thrift.call(9, "hello")[8:]), 2, False),
    "thrift-transform": (Thrift, with_header(transform=9, protocol=0), 8, False),
    "thrift-protocol": (Thrift, with_header(transform=1, protocol=7), 9, False),
    "thrift-unframed": (Thrift, Thrift.call(9, "hello")[4:-1] + b"\x7f\x00\x01", 7, True),
    "dubbo-body": (Dubbo, Dubbo.call(9, "hello")[:16] + b"\xff" * (len(Dubbo.call(9, "hello")) - 16), 40, False),
    "dubbo-length": (Dubbo, Dubbo.call(9, "hello")[:12] + b"\xff\xff\xff\xff", 40, True),
}


@pytest.mark.feature("malformed and too large frames are refused")
@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(world, name):
    wire, request, code, ends = MALFORMED[name]
    port, server = served(world, wire)
    peer = Peer.connect(port)
    # Twice, where the connection lives on.
    peer.send(request if ends else request * 2)
    for answer in [to_the_end(peer)] if ends else [peer.frame(), peer.frame()]:
        if wire is Thrift:
            # Whatever it came in.
            answer = thrift_frame(answer[answer.index(b"\x80\x01\x00\x03"):])
        got = wire.parse(answer)
        assert (got["id"], got["ok"], got["code"]) == (9, False, code), got
    count = 1 if ends else 2
    world.counted(wire.name, {"errors.malformed": count, "decode_errors": count})
    assert server.connections == 0
    other = Peer.connect(port)
    other.send(wire.call(10, "hello"))
    got = wire.parse(other.frame())
    assert (got["id"], got["ok"]) == (10, True)


def to_the_end(peer) -> bytes:
    data = b""
    while piece := peer.socket.recv(4096):
        data += piece
    return data
