"""Many calls, large and small, in any cutting, while things change."""

import random
import socket
import threading
import time
import urllib.request

import pytest

from harness import MOST_HELD, free_port, router, rule, service, to, wait_until
from load import Load, in_threads
from servers import Server, per_frame
from wire import Dubbo, Peer, Thrift, call, parse, reply, text

HOST = "echo.test"
WIRES = pytest.mark.parametrize("wire", [Thrift, Dubbo], ids=lambda wire: wire.name)
MODES = pytest.mark.parametrize("mode", ["request", "connection"])
KIB, MIB = 1024, 1024 * 1024


def mesh(world, server, wire=Thrift, mode="request"):
    port = free_port()
    world.write("service", service(HOST, port, {server.port: "v1"}, wire.name, **{f"meltemi.dev/mode.{port}": mode}))
    world.serve()
    world.envoy(wait_for=[port])
    return port


@MODES
def test_200_pipelined_in_order(world, mode):
    def answer(frame):
        # All calls of a connection have one server in connection mode.
        time.sleep(random.random() / (20 if mode == "request" else 100))
        return Thrift.mirror(frame)
    peer = Peer.connect(mesh(world, Server(per_frame(answer)), mode=mode))
    # Sequence numbers repeat: order alone tells replies apart.
    peer.send(b"".join(call(number % 3, "hello", text(b"%d" % number)) for number in range(200)))
    for number in range(200):
        frame = peer.frame()
        assert (Thrift.value(frame), parse(frame)["sequence"]) == (b"%d" % number, number % 3)
    world.counted("thrift", {"in_flight": 0})


@MODES
def test_sizes_and_cuttings(world, mode):
    peer = Peer.connect(mesh(world, Server(per_frame(Thrift.mirror)), mode=mode), timeout=60)
    limit = 16 * MIB
    overhead = len(call(1, "hello", text(b"")))
    for size in [0, 1, 100, 16_383, 16_384, 16_385, 65_535, 300_000, 1_000_000, 5_000_000, limit - overhead]:
        value = random.randbytes(1000) * (size // 1000) + b"x" * (size % 1000)
        frame = call(1, "hello", text(value))
        sender = threading.Thread(target=peer.send, args=(frame,))
        sender.start()
        got = peer.frame()
        sender.join()
        assert Thrift.value(got) == value, size
    frame = call(7, "hello", text(b"cut")) * 3
    for cut in range(1, len(frame), 5):
        peer.send(frame[:cut])
        # Gives the pieces a chance to arrive apart.
        time.sleep(0.001)
        peer.send(frame[cut:])
        assert [Thrift.value(peer.frame()) for _ in range(3)] == [b"cut"] * 3
    for byte in frame:
        peer.send(bytes([byte]))
    assert [Thrift.value(peer.frame()) for _ in range(3)] == [b"cut"] * 3


@pytest.mark.feature("a client that reads nothing", module="is asked for nothing more",
                     wasm="is served on, within bounds, until Envoy, from 1.38, closes it after a minute "
                          "(`per_connection_buffer_high_watermark_timeout`)", why="nobody tells a plugin that the client does not read")
@MODES
def test_a_client_that_never_reads(world, mode):
    port = mesh(world, Server(per_frame(lambda frame: reply(frame, b"y" * 100_000))), mode=mode)
    other = Peer.connect(port)
    other.send(call(1, "hello", text(b"x")))
    other.frame()
    before = world.resident()
    rude = Peer.connect(port)
    rude.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    rude.socket.settimeout(2)
    # 3,000 calls ask for 300 MB. Sooner or later nobody reads what it asks for.
    with pytest.raises(TimeoutError):
        for number in range(100_000):
            rude.send(call(number, "hello", text(b"x" * 1000)))
            if number % 1000 == 0:
                assert world.resident() - before < MOST_HELD
    # At most the calls in flight (256 by default) are held, not all that were asked for.
    assert world.resident() - before < MOST_HELD
    other.send(call(2, "hello", text(b"x")))
    assert parse(other.frame())["sequence"] == 2
    rude.reset()
    other.send(call(3, "hello", text(b"x")))
    assert parse(other.frame())["sequence"] == 3
    wait_until(lambda: world.in_flight() == 0, "the rude client's calls to end")


@WIRES
def test_servers_that_take_nothing(world, wire):
    """48 calls of 8 MiB on one connection, to a server that reads none of them: Envoy does not take them either."""
    release = threading.Event()
    port = mesh(world, Server(lambda _: release.wait(60)), wire)
    before = world.resident()
    peer = Peer.connect(port)
    peer.socket.settimeout(2)
    with pytest.raises(TimeoutError):
        for number in range(48):
            peer.send(wire.call(number, "hello", b"x" * (8 * MIB)))
    assert world.resident() - before < 150 * MIB
    assert 1 <= world.in_flight(wire.name) <= 5
    # Whether the client is still there is not looked at while it is not read: its calls end with the server.
    peer.reset()
    release.set()
    wait_until(lambda: world.in_flight(wire.name) == 0, "the calls to end")


@pytest.mark.parametrize("wire, mode, count", [(Thrift, "request", 10_000), (Dubbo, "request", 2000), (Thrift, "connection", 1000),
                                               (Dubbo, "connection", 1000)], ids=lambda value: getattr(value, "name", str(value)))
def test_connections_opened_and_closed(world, wire, mode, count):
    port = mesh(world, Server(per_frame(wire.mirror)), wire, mode)

    def some(count):
        for number in range(count):
            peer = Peer.connect(port)
            match number % 5:
                case 0 | 1 | 2:
                    peer.send(wire.call(number, "hello"))
                    assert wire.parse(peer.frame())["id"] == number
                    peer.close()
                case 3:
                    peer.send(wire.call(number, "hello")[:9])
                    peer.close()
                case _:
                    peer.send(wire.call(number, "hello"))
                    peer.reset()
        return count

    def all_end():
        wait_until(lambda: world.in_flight(wire.name) == 0, "all calls to end")
        wait_until(lambda: world.counter(f"listener.{HOST}_{port}.downstream_cx_active") == 0, "all connections to end")
        return world.allocated()
    in_threads(some, [count // 20] * 4)
    before = all_end()
    assert sum(in_threads(some, [count // 5] * 4)) == count // 5 * 4
    kept = (all_end() - before) / (count // 5 * 4)
    assert kept <= 200


@pytest.mark.feature("configuration that changes under load, and mistakes in it")
@pytest.mark.parametrize("wire, mode", [(Thrift, "request"), (Dubbo, "request"), (Thrift, "connection")],
                         ids=lambda value: getattr(value, "name", str(value)))
def test_changes_under_load(world, wire, mode):
    one, two = (Server(per_frame(lambda frame, name=name: wire.answer(frame, name))) for name in (b"v1", b"v2"))
    port = free_port()

    def entry(*servers):
        versions = {one.port: "v1", two.port: "v2"}
        return service(HOST, port, {server.port: versions[server.port] for server in servers}, wire.name,
                       **{f"meltemi.dev/mode.{port}": mode})

    def routes(first, second):
        return router(HOST, {"route": [to(HOST, "v1", first), to(HOST, "v2", second)]})
    world.write("service", entry(one, two), rule(HOST, "v1", "v2"))
    world.write("routes", routes(100, 0))
    world.serve()
    world.envoy(wait_for=[port])
    # In connection mode, connections stay where they went, and others go elsewhere.
    load = Load(port, wire, renew=5 if mode == "connection" else None)

    def some_calls():
        wait_until(lambda: load.more(60), "calls")
    some_calls()
    for first in (50, 0, 30, 100, 0):
        world.changed("routes", routes(first, 100 - first))
        some_calls()
    assert set(load.seen) == {b"v1", b"v2"}
    # All to v2, then v1 is no endpoint any more and goes.
    world.changed("service", entry(two), rule(HOST, "v1", "v2"))
    one.close()
    some_calls()
    # Subsets come and go with the routes that name them.
    world.changed("routes", router(HOST, {"route": [to(HOST)]}))
    world.changed("service", entry(two))
    some_calls()
    load.end()
    assert load.failures == []


@pytest.mark.feature("drain")
@pytest.mark.parametrize("how", ["replaced", "drained"])
@WIRES
def test_listener_drain_under_load(world, wire, how):
    """Envoy replaces the listener (its filter chain changes), or is told to drain its listeners: no call fails.

    Where the protocol has no word for it, the connection is closed behind a reply: a client sees that when it thinks for longer
    than the kernel may keep Envoy from its next system call.
    """
    server = Server(per_frame(lambda frame: wire.answer(frame, b"v1")))
    port = mesh(world, server, wire)
    load = Load(port, wire, think=0.06)
    wait_until(lambda: load.more(60), "calls")
    before = load.connections
    if how == "replaced":
        log = world.folder / "access.log"
        world.changed("service", service(HOST, port, {server.port: "v1"}, wire.name, **{"meltemi.dev/access-log": str(log)}))
        wait_until(log.exists, "the new listener")
        wait_until(lambda: sum(world.stats("total_filter_chains_draining").values()) == 0
                   and sum(world.stats("listener_manager.total_listeners_draining").values()) == 0, "the old one to go")
    else:
        admin = f"http://127.0.0.1:{world.envoy_admin}/drain_listeners?graceful"
        urllib.request.urlopen(urllib.request.Request(admin, method="POST"), timeout=10).close()
    wait_until(lambda: load.more(100), "calls")
    load.end()
    assert load.failures == []
    # Each was told to go elsewhere.
    assert load.connections >= before + 4
