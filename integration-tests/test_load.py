"""Many calls, large and small, in any cutting, while things change."""

import random
import socket
import threading
import time

from harness import free_port, router, rule, service, to, wait_until
from servers import Server, per_frame
from wire import Peer, call, parse, reply, text

HOST = "echo.test"


def mirror(frame):
    """A reply with the request's own string argument."""
    length = int.from_bytes(frame[8:12], "big")
    start = 16 + length + 7
    return reply(frame, frame[start:-1])


def mesh(world, endpoints, *objects):
    port = free_port()
    world.write("service", service(HOST, port, endpoints), *objects)
    world.serve()
    world.envoy(wait_for=[port])
    return port


def argument(frame):
    length = int.from_bytes(frame[8:12], "big")
    return frame[16 + length + 7:-1]


def test_200_pipelined_in_order(world):
    def answer(frame):
        time.sleep(random.random() / 20)
        return mirror(frame)
    port = mesh(world, {Server(per_frame(answer)).port: "v1"})
    peer = Peer.connect(port)
    # Sequence numbers repeat: order alone tells replies apart.
    peer.send(b"".join(call(number % 3, "hello", text(b"%d" % number)) for number in range(200)))
    for number in range(200):
        frame = peer.frame()
        assert (argument(frame), parse(frame)["sequence"]) == (b"%d" % number, number % 3)
    assert world.stats("meltemi.thrift")["meltemi.thrift.in_flight"] == 0


def test_sizes_and_cuttings(world):
    port = mesh(world, {Server(per_frame(mirror)).port: "v1"})
    peer = Peer.connect(port, timeout=60)
    limit = 16 * 1024 * 1024
    overhead = len(call(1, "hello", text(b"")))
    for size in [0, 1, 100, 16_383, 16_384, 16_385, 65_535, 300_000, 1_000_000, 5_000_000, limit - overhead]:
        value = random.randbytes(1000) * (size // 1000) + b"x" * (size % 1000)
        frame = call(1, "hello", text(value))
        sender = threading.Thread(target=peer.send, args=(frame,))
        sender.start()
        got = peer.frame()
        sender.join()
        assert argument(got) == value, size
    frame = call(7, "hello", text(b"cut")) * 3
    for cut in range(1, len(frame), 5):
        peer.send(frame[:cut])
        time.sleep(0.001)
        peer.send(frame[cut:])
        assert [argument(peer.frame()) for _ in range(3)] == [b"cut"] * 3
    for byte in frame:
        peer.send(bytes([byte]))
    assert [argument(peer.frame()) for _ in range(3)] == [b"cut"] * 3


def resident(world) -> int:
    """Memory of Envoy, in bytes."""
    status = open(f"/proc/{world.processes['envoy'].pid}/status").read()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def test_a_client_that_never_reads(world):
    port = mesh(world, {Server(per_frame(lambda frame: reply(frame, b"y" * 100_000))).port: "v1"})
    other = Peer.connect(port)
    other.send(call(1, "hello", text(b"x")))
    other.frame()
    before = resident(world)
    rude = Peer.connect(port)
    rude.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    rude.socket.settimeout(2)
    sent = 0
    try:
        # 3,000 calls ask for 300 MB.
        while sent < 3000:
            rude.send(call(sent, "hello", text(b"x" * 1000)))
            sent += 1
    except (TimeoutError, OSError):
        pass
    time.sleep(0.5)
    # At most the calls in flight (256 by default) are held, not all that were asked for.
    assert resident(world) - before < 100 * 1024 * 1024
    other.send(call(2, "hello", text(b"x")))
    assert parse(other.frame())["sequence"] == 2
    rude.reset()
    wait_until(lambda: world.stats("meltemi.thrift")["meltemi.thrift.in_flight"] == 0, "the rude client's calls to end")


def test_10000_connections(world):
    port = mesh(world, {Server(per_frame(mirror)).port: "v1"})

    def some(count):
        for number in range(count):
            peer = Peer.connect(port)
            match number % 5:
                case 0 | 1 | 2:
                    peer.send(call(number, "hello", text(b"x")))
                    assert parse(peer.frame())["sequence"] == number
                    peer.close()
                case 3:
                    peer.send(call(number, "hello", text(b"x"))[:9])
                    peer.close()
                case _:
                    peer.send(call(number, "hello", text(b"x")))
                    peer.reset()
    some(500)
    before = resident(world)
    threads = [threading.Thread(target=some, args=(2375,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: world.stats("meltemi.thrift")["meltemi.thrift.in_flight"] == 0, "all calls to end")
    wait_until(lambda: sum(world.stats("downstream_cx_active").values()) <= 2 * 2, "all connections to end")
    assert resident(world) - before < 30 * 1024 * 1024


class Load:
    """Calls without a pause from several connections; every failure is kept."""

    def __init__(self, port, clients=4):
        self.port, self.failures, self.calls, self.stopped = port, [], 0, False
        self.seen: dict[bytes, int] = {}
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def run(self):
        peer = Peer.connect(self.port)
        while not self.stopped:
            try:
                peer.send(call(1, "hello", text(b"x")))
                frame = peer.frame()
                got = parse(frame)
                if got["kind"] != 2:
                    self.failures.append(got)
                else:
                    value = argument(frame)
                    self.seen[value] = self.seen.get(value, 0) + 1
            except (OSError, EOFError) as error:
                self.failures.append(error)
                peer = Peer.connect(self.port)
            self.calls += 1

    def end(self):
        self.stopped = True
        for thread in self.threads:
            thread.join()


def test_changes_under_load(world):
    one, two = (Server(per_frame(lambda frame, name=name: reply(frame, name))) for name in (b"v1", b"v2"))
    both = service(HOST, 0, {one.port: "v1", two.port: "v2"})

    def routes(first, second):
        return router(HOST, {"route": [to(HOST, "v1", first), to(HOST, "v2", second)]})
    port = free_port()
    both["spec"]["ports"][0]["number"] = port
    world.write("service", both, rule(HOST, "v1", "v2"))
    world.write("routes", routes(100, 0))
    world.serve()
    world.envoy(wait_for=[port])
    load = Load(port)
    time.sleep(0.3)
    for first in (50, 0, 30, 100, 0):
        world.changed("routes", routes(first, 100 - first))
        time.sleep(0.1)
    assert set(load.seen) == {b"v1", b"v2"}
    # All to v2, then v1 is no endpoint any more and goes.
    world.changed("service", service(HOST, port, {two.port: "v2"}), rule(HOST, "v1", "v2"))
    one.close()
    time.sleep(0.3)
    # Subsets come and go with the routes that name them.
    world.changed("routes", router(HOST, {"route": [to(HOST)]}))
    world.changed("service", service(HOST, port, {two.port: "v2"}))
    time.sleep(0.3)
    load.end()
    assert load.failures == [] and load.calls > 100


def test_listener_drain_under_load(world):
    """Envoy replaces the listener (its filter chain changes): calls in flight and later ones succeed, on the old connections
    until these are drained, on new ones after."""
    server = Server(per_frame(lambda frame: reply(frame, b"v1")))
    port = free_port()
    world.write("service", service(HOST, port, {server.port: "v1"}))
    world.serve()
    world.envoy(wait_for=[port])
    load = Load(port)
    time.sleep(0.3)
    world.changed("service", service(HOST, port, {server.port: "v1"},
                                     **{"meltemi.dev/access-log": str(world.folder / "access.log")}))
    wait_until(lambda: (world.folder / "access.log").exists(), "the new listener")
    time.sleep(3.5)
    load.end()
    # A connection that is closed between two calls is no failed call; one that is closed with a call in flight is.
    assert [failure for failure in load.failures if not isinstance(failure, EOFError | OSError)] == []
    assert len(load.failures) <= 4 and load.calls > 100
