"""Dubbo: many calls at once on one connection, in any order, of any size."""

import random
import struct
import threading
import time

import pytest

from harness import MOST_HELD, free_port, service, wait_until
from load import in_threads
from servers import Server, per_frame
from wire import Dubbo, Peer, hessian_bytes

HOST = "echo.test"
LIMIT = 16 * 1024 * 1024


MODES = pytest.mark.parametrize("mode", ["request", "connection"])


def mesh(world, server, mode="request"):
    port = free_port()
    world.write("all", service(HOST, port, {server.port: "v1"}, "dubbo", **{f"meltemi.dev/mode.{port}": mode}))
    world.serve()
    world.envoy(wait_for=[port])
    return port


def number_of(frame: bytes) -> int:
    return struct.unpack(">Q", frame[4:12])[0]


def own(frame: bytes) -> bytes:
    """A reply that only this request can have."""
    return Dubbo.answer(frame, b"for %d" % number_of(frame))


def binary(frame: bytes, value: bytes) -> bytes:
    """A reply with bytes of any length."""
    body = b"\x91" + hessian_bytes(value)
    return struct.pack(">HBB", 0xDABB, 0x02, 20) + frame[4:12] + struct.pack(">I", len(body)) + body


@pytest.mark.feature("many calls at once on one connection")
@MODES
def test_200_at_once_each_gets_its_own(world, mode):
    def answer(frame):
        # All calls of a connection have one server in connection mode.
        time.sleep(random.random() / (10 if mode == "request" else 100))
        return own(frame)
    peer = Peer.connect(mesh(world, Server(per_frame(answer)), mode))
    numbers = random.sample(range(1 << 62), 200)
    peer.send(b"".join(Dubbo.call(number, "hello") for number in numbers))
    replies = [peer.frame() for _ in numbers]
    assert sorted(number_of(frame) for frame in replies) == sorted(numbers)
    assert all(frame == own(frame) for frame in replies)
    world.counted("dubbo", {"in_flight": 0})


def test_a_slow_call_holds_no_other(world):
    release = threading.Event()

    def answer(frame):
        if b"slow" in frame:
            release.wait(10)
        return own(frame)
    peer = Peer.connect(mesh(world, Server(per_frame(answer))))
    peer.send(Dubbo.call(1, "slow"))
    for number in range(2, 30):
        peer.send(Dubbo.call(number, "hello"))
        assert number_of(peer.frame()) == number
    release.set()
    assert number_of(peer.frame()) == 1


def test_equal_ids_of_several_connections_are_kept_apart(world):
    def answer(frame):
        time.sleep(random.random() / 50)
        return Dubbo.mirror(frame)
    port = mesh(world, Server(per_frame(answer)))

    def talk(name):
        peer = Peer.connect(port)
        for number in range(50):
            request = Dubbo.call(number, "hello", b"%d of %d" % (number, name))
            peer.send(request)
            assert peer.frame() == Dubbo.mirror(request), (name, number)
        return name
    assert in_threads(talk, range(20)) == list(range(20))
    world.counted("dubbo", {"replies": 20 * 50})


@MODES
def test_sizes_and_cuttings(world, mode):
    peer = Peer.connect(mesh(world, Server(per_frame(Dubbo.mirror)), mode), timeout=60)
    # Payload whose request is as long as a frame may be: after the header, chunks with a head of 3 bytes each.
    most = LIMIT - (LIMIT // 0xFFFF + 1) * 3 - 200
    for size in [0, 1, 100, 16_383, 16_384, 16_385, 65_535, 300_000, 5_000_000, most]:
        request = Dubbo.call(size, "hello", random.randbytes(1000) * (size // 1000) + b"x" * (size % 1000))
        sender = threading.Thread(target=peer.send, args=(request,))
        sender.start()
        assert peer.frame() == Dubbo.mirror(request), size
        sender.join()
    requests = [Dubbo.call(number, "hello", b"cut") for number in range(3)]
    frame, expected = b"".join(requests), sorted(Dubbo.mirror(request) for request in requests)
    for cut in range(1, len(frame), 7):
        peer.send(frame[:cut])
        # Gives the pieces a chance to arrive apart.
        time.sleep(0.001)
        peer.send(frame[cut:])
        assert sorted(peer.frame() for _ in requests) == expected
    for byte in frame:
        peer.send(bytes([byte]))
    assert sorted(peer.frame() for _ in requests) == expected


@MODES
def test_a_client_that_never_reads(world, mode):
    port = mesh(world, Server(per_frame(lambda frame: binary(frame, b"y" * 100_000))), mode)
    rude, other = Peer.connect(port), Peer.connect(port)
    rude.socket.settimeout(2)
    before = world.resident()
    # Sooner or later nobody reads what it asks for: its replies are not read either.
    with pytest.raises(TimeoutError):
        for number in range(100_000):
            rude.send(Dubbo.call(number, "hello", b"x" * 10_000))
    assert world.resident() - before < MOST_HELD
    other.send(Dubbo.call(7, "hello"))
    assert number_of(other.frame()) == 7
    rude.reset()
    wait_until(lambda: world.in_flight("dubbo") == 0, "the rude client's calls to end")


def test_a_client_that_goes_ends_its_calls(world):
    release = threading.Event()

    def answer(frame):
        release.wait(10)
        return own(frame)
    server = Server(per_frame(answer))
    port = mesh(world, server)
    peer = Peer.connect(port)
    peer.send(b"".join(Dubbo.call(number, "hello") for number in range(20)))
    wait_until(lambda: server.connections == 20, "all calls to be at the server")
    peer.reset()
    wait_until(lambda: world.in_flight("dubbo") == 0, "the calls to end")
    release.set()
    other = Peer.connect(port)
    other.send(Dubbo.call(99, "hello"))
    assert number_of(other.frame()) == 99
