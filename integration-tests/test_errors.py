"""Every failure has the protocol's own reply: one test for each row of docs/errors.md."""

import contextlib
import threading
import urllib.request

import pytest
from by_hand import cluster, listener, manager, ours, route, start
from harness import FILTER_HOST, free_port, router, rule, service, to, wait_until
from servers import Server, per_frame
from wire import Dubbo, Peer

HOST = "echo.test"


@pytest.fixture
def mesh(world, wire):
    """Makes a service with these endpoints and objects; gives its port."""
    def make(endpoints, *objects):
        port = free_port()
        world.write("all", service(HOST, port, endpoints, wire.name), *objects)
        world.serve()
        world.envoy(wait_for=[port])
        return port
    return make


@pytest.fixture
def fails(world, wire):
    """A call fails with the protocol's own error, the error is counted, and the connection lives on."""
    def check(port, kind, then_works=True, method="hello"):
        peer = Peer.connect(port)
        peer.send(wire.call(77, method))
        got = wire.parse(peer.frame())
        assert (got["ok"], got["id"], got["code"]) == (False, 77, wire.codes.get(kind, wire.other)), got
        assert got["message"]
        counter = f"meltemi.{wire.name}.errors.{kind}"
        wait_until(lambda: world.stats(counter).get(counter), f"the counter of {kind}")
        peer.send(wire.call(78, "fine"))
        after = wire.parse(peer.frame())
        assert after["id"] == 78
        assert after["ok"] or not then_works
        peer.close()
    return check


def only(method, **more):
    return {"name": method, "match": {"attributes": {"method": {"exact": method}}}, "route": [to(HOST)], **more}


@pytest.mark.feature("errors in the protocol: no route, no server, reset")
def test_no_route(mesh, fails, wire):
    server = Server(per_frame(wire.answer))
    fails(mesh({server.port: "v1"}, router(HOST, only("fine"))), "no_route")


def test_no_healthy_upstream(mesh, fails):
    fails(mesh({}, router(HOST, only("hello"), only("fine"))), "no_healthy_upstream", then_works=False)


def test_connection_refused(mesh, fails):
    fails(mesh({free_port(): "v1"}), "connect_failure", then_works=False)


HOWS = pytest.mark.parametrize("how", [Peer.close, Peer.reset], ids=["fin", "rst"])


@pytest.mark.feature("errors in the protocol: no route, no server, reset")
@HOWS
def test_reset_before_the_reply(mesh, fails, wire, how):
    def behave(peer):
        while b"hello" not in (frame := peer.frame()):
            peer.send(wire.answer(frame))
        how(peer)
    fails(mesh({Server(behave).port: "v1"}), "upstream_reset")


@HOWS
def test_reset_during_the_reply(world, mesh, fails, wire, how):
    def behave(peer):
        while b"hello" not in (frame := peer.frame()):
            peer.send(wire.answer(frame))
        peer.send(wire.answer(frame)[:-5])
        # Lost bytes would make it a reset before the reply.
        wait_until(lambda: sum(world.stats(r"^cluster\..*upstream_cx_rx_bytes_total$").values()) > 0, "Envoy to read it")
        how(peer)
    fails(mesh({Server(behave).port: "v1"}), "upstream_reset")


def test_a_reply_that_is_none(mesh, fails, wire):
    nonsense = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    server = Server(per_frame(lambda frame: nonsense if b"hello" in frame else wire.answer(frame)))
    fails(mesh({server.port: "v1"}), "bad_reply")


def test_a_reply_to_somebody_else(mesh, fails, wire):
    server = Server(per_frame(lambda frame: wire.foreign(frame) if b"hello" in frame else wire.answer(frame)))
    fails(mesh({server.port: "v1"}), "bad_reply")


@pytest.mark.feature("timeouts")
def test_timeout(mesh, fails, wire):
    release = threading.Event()

    def answer(frame):
        if b"hello" in frame:
            release.wait(10)
        return wire.answer(frame)
    server = Server(per_frame(answer))
    fails(mesh({server.port: "v1"}, router(HOST, only("hello", timeout="0.1s"), {"route": [to(HOST)]})), "timeout")
    release.set()


# Pools, and whether calls are refused: without a bound on those that wait, they wait. Behind the module's bridge, Envoy counts no
# requests, because each has a connection of its own.
POOLS = {
    "pending": ({"tcp": {"maxConnections": 1}, "http": {"http1MaxPendingRequests": 1}}, True),
    "connections": ({"tcp": {"maxConnections": 1}}, False),
    "requests": ({"http": {"http2MaxRequests": 1}}, FILTER_HOST == "wasm"),
}


@pytest.mark.feature("circuit breaker `http2MaxRequests`", module="no", why="behind a bridge, Envoy counts connections")
@pytest.mark.parametrize("pool", POOLS)
def test_overflow(world, mesh, wire, pool):
    """Two calls on a connection and one on each of two more, at once."""
    policy, refuses = POOLS[pool]
    release = threading.Event()

    def answer(frame):
        if b"hello" in frame:
            release.wait(10)
        return wire.answer(frame)
    server = Server(per_frame(answer))
    port = mesh({server.port: "v1"}, rule(HOST, connectionPool=policy))
    together = Peer.connect(port)
    peers = [together, together, *(Peer.connect(port) for _ in range(2))]
    for number, peer in enumerate(peers):
        peer.send(wire.call(number, "hello"))
    wait_until(lambda: world.counter(f"meltemi.{wire.name}.requests") == 4, "Envoy to have all calls")
    if refuses:
        wait_until(lambda: sum(world.stats("echo.test.upstream_rq_(pending|active)_overflow$").values()), "an overflow")
    release.set()
    replies = [wire.parse(peer.frame()) for peer in peers]
    assert {reply["id"] for reply in replies[:2]} == {0, 1} and [reply["id"] for reply in replies[2:]] == [2, 3]
    refused = [reply["code"] for reply in replies if not reply["ok"]]
    assert bool(refused) == refuses and len(refused) < 4
    assert set(refused) <= {wire.codes.get("overflow", wire.other)}
    world.counted(wire.name, {"errors.overflow": len(refused)})
    for number, peer in enumerate(peers, 4):
        peer.send(wire.call(number, "fine"))
        got = wire.parse(peer.frame())
        assert (got["id"], got["ok"]) == (number, True)


@pytest.mark.feature("local and global rate limits")
def test_local_rate_limit(mesh, fails, wire):
    server = Server(per_frame(wire.answer))
    bucket = {"maxTokens": 2, "tokensPerFill": 1, "fillInterval": "600s"}
    port = mesh({server.port: "v1"}, router(HOST, only("hello", localRateLimit=bucket), {"route": [to(HOST)]}))
    peer = Peer.connect(port)
    outcomes = []
    for number in range(4):
        peer.send(wire.call(number, "hello"))
        outcomes.append(wire.parse(peer.frame())["ok"])
    assert outcomes == [True, True, False, False]
    fails(port, "rate_limited")


def test_local_rate_limit_with_conditions(mesh, fails, wire):
    server = Server(per_frame(wire.answer))
    limit = {"conditions": [{"match": {"attributes": {"method": {"exact": "hello"}}},
                             "tokenBucket": {"maxTokens": 1, "fillInterval": "600s"}}]}
    port = mesh({server.port: "v1"}, router(HOST, localRateLimit=limit))
    peer = Peer.connect(port)
    for method in ["fine"] * 5 + ["hello"]:
        peer.send(wire.call(1, method))
        assert wire.parse(peer.frame())["ok"]
    fails(port, "rate_limited")


@pytest.mark.feature("local and global rate limits")
def test_global_rate_limit(mesh, fails, wire):
    """Against a gRPC server of the test's own with Envoy's API: it says no to every request about `hello`."""
    import grpc
    from concurrent import futures
    asked = []

    def limit(request, _):
        asked.append(request)
        return b"\x08\x02" if b"hello" in request else b"\x08\x01"

    handler = grpc.method_handlers_generic_handler(
        "envoy.service.ratelimit.v3.RateLimitService", {"ShouldRateLimit": grpc.unary_unary_rpc_method_handler(limit)})
    grpc_server = grpc.server(futures.ThreadPoolExecutor(4))
    grpc_server.add_generic_rpc_handlers((handler,))
    number = grpc_server.add_insecure_port("127.0.0.1:0")
    grpc_server.start()
    server = Server(per_frame(wire.answer))
    counter = service("rls.test", 8081, {})
    counter["spec"]["ports"] = [{"number": 8081, "name": "grpc"}]
    counter["spec"]["endpoints"] = [{"address": "127.0.0.1", "ports": {"grpc": number}}]
    port = mesh({server.port: "v1"}, counter, router(HOST, globalRateLimit={
        "domain": "test", "rateLimitService": "outbound|8081||rls.test", "requestTimeout": "1s", "denyOnFail": True,
        "descriptors": [{"property": "method", "descriptorKey": "m"}]}))
    fails(port, "rate_limited")
    assert b"test" in asked[0] and b"hello" in asked[0]
    grpc_server.stop(0)
    fails(port, "internal", method="fine", then_works=False)


@pytest.mark.feature("faults")
def test_injected_abort(mesh, fails, wire):
    server = Server(per_frame(wire.answer))
    fails(mesh({server.port: "v1"}, router(HOST, only("hello", fault={"abort": {}}), {"route": [to(HOST)]})), "aborted")


@pytest.mark.feature("faults")
def test_injected_delay(world, mesh, wire):
    server = Server(per_frame(wire.answer))
    fault = {"delay": {"fixedDelay": "0.3s"}}
    peer = Peer.connect(mesh({server.port: "v1"}, router(HOST, only("hello", fault=fault, timeout="5s"))))
    peer.send(wire.call(1, "hello"))
    assert wire.parse(peer.frame())["ok"]
    assert sum(world.stats("fault.delays_injected").values()) == 1


@pytest.mark.feature("denied calls, and RBAC")
def test_denied(mesh, fails, wire):
    server = Server(per_frame(wire.answer))
    fails(mesh({server.port: "v1"}, router(HOST, only("hello", deny=True), {"route": [to(HOST)]})), "denied")


@pytest.fixture
def static(world, wire):
    """A static Envoy with HTTP filters of its own, for what no MetaRouter says."""
    def make(server, *filters, marked=True):
        port = free_port()
        mapper = {
            "filter": {"status_code_filter": {"comparison": {"op": "GE", "value": {"default_value": 100, "runtime_key": "none"}}}},
            "headers_to_add": [{"header": {"key": "x-meltemi-details", "value": "%RESPONSE_CODE_DETAILS%"}},
                               {"header": {"key": "x-meltemi-flags", "value": "%RESPONSE_FLAGS%"}}]}
        lost = route("nowhere", {"headers": [{"name": "x-meltemi-method", "string_match": {"exact": "lost"}}], "prefix": "/"})
        http = manager(filters=filters, drain_timeout="0.2s", local_reply_config={"mappers": [mapper] if marked else []},
                       route_config={"validate_clusters": False, "virtual_hosts": [
                           {"name": "all", "domains": ["*"], "routes": [lost, route()]}]})
        start(world, [listener(port, ours("inlet", codec={"name": wire.name}), http)], [cluster(server.port, wire.name)])
        return port
    return make


@pytest.mark.feature("denied calls, and RBAC")
def test_denied_by_rbac(static, fails, wire):
    """An HCM that is not ours says less about its replies: status and text must do."""
    v3 = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
    permission = {"header": {"name": ":path", "string_match": {"suffix": "/hello"}}}
    rbac = {"name": "rbac", "typed_config": {"@type": v3, "rules": {"action": "DENY", "policies": {
        "no-hello": {"permissions": [permission], "principals": [{"any": True}]}}}}}
    fails(static(Server(per_frame(wire.answer)), rbac, marked=False), "denied")


def test_no_cluster(static, fails, wire):
    fails(static(Server(per_frame(wire.answer))), "no_cluster", method="lost")


def test_draining(world, static, wire):
    """What comes when Envoy takes no more is answered so, behind what it took, and then the connection ends."""
    release, there = threading.Event(), threading.Event()

    def answer(frame):
        if b"slow" in frame:
            there.set()
            release.wait(10)
        return wire.answer(frame)
    peer = Peer.connect(static(Server(per_frame(answer))))
    peer.send(wire.call(1, "slow"))
    assert there.wait(10)
    drain_listeners(world)
    # The notice comes with a response, and a little later the end.
    peer.send(wire.call(2, "hello"))
    wait_until(lambda: world.counter("http2.goaway_sent"), "the end")
    peer.send(wire.call(3, "hello"))
    asked = sum(len(wire.call(1, method)) for method in ("slow", "hello", "hello"))
    wait_until(lambda: world.counter(f"meltemi.{wire.name}.bytes_in") == asked, "Envoy to have read it")
    release.set()
    frames = []
    with contextlib.suppress(EOFError):
        while True:
            frames.append(peer.frame())
    replies = sorted((wire.parse(frame) for frame in frames if not wire.is_read_only(frame)), key=lambda reply: reply["id"])
    outcomes = [(reply["id"], reply["ok"], reply["code"]) for reply in replies]
    assert outcomes == [(1, True, None), (2, True, None), (3, False, wire.codes.get("draining", wire.other))]
    assert sum(map(wire.is_read_only, frames)) == (1 if wire is Dubbo else 0)
    world.counted(wire.name, {"errors.draining": 1})


def drain_listeners(world):
    """Envoy begins to go away."""
    address = f"http://127.0.0.1:{world.envoy_admin}/drain_listeners?graceful"
    urllib.request.urlopen(urllib.request.Request(address, method="POST"), timeout=10).close()


@pytest.mark.feature("drain")
def test_drain(world, mesh, wire):
    """A listener goes: what is in flight is answered, then the connection ends. Dubbo clients are told before."""
    release = threading.Event()

    def answer(frame):
        if b"hello" in frame:
            release.wait(10)
        return wire.answer(frame)
    server = Server(per_frame(answer))
    peer = Peer.connect(mesh({server.port: "v1"}))
    peer.send(wire.call(1, "hello"))
    # The service moves to another address: its old listener is drained.
    world.changed("all", service(HOST, free_port(), {server.port: "v1"}, wire.name))
    release.set()
    frames = []
    with contextlib.suppress(EOFError):
        while True:
            frames.append(peer.frame())
    replies = [wire.parse(frame) for frame in frames if not wire.is_read_only(frame)]
    assert [(reply["id"], reply["ok"]) for reply in replies] == [(1, True)]
    assert sum(map(wire.is_read_only, frames)) == (1 if wire is Dubbo else 0)
