"""Every failure has the protocol's own reply: one test for each row of docs/errors.md."""

import threading
import time

import pytest
import yaml

from harness import free_port, router, rule, service, to, wait_until
from servers import Server, per_frame
from wire import Dubbo, Peer, Thrift

HOST = "echo.test"


@pytest.fixture(params=[Thrift, Dubbo], ids=lambda wire: wire.name)
def wire(request):
    return request.param


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


def test_no_route(mesh, fails, wire):
    server = Server(per_frame(wire.answer))
    fails(mesh({server.port: "v1"}, router(HOST, only("fine"))), "no_route")


def test_no_healthy_upstream(mesh, fails):
    fails(mesh({}, router(HOST, only("hello"), only("fine"))), "no_healthy_upstream", then_works=False)


def test_connection_refused(mesh, fails):
    fails(mesh({free_port(): "v1"}), "connect_failure", then_works=False)


def test_reset_before_the_reply(mesh, fails, wire):
    server = Server(per_frame(lambda frame: None if b"hello" in frame else wire.answer(frame)))
    fails(mesh({server.port: "v1"}), "upstream_reset")


def test_reset_during_the_reply(mesh, fails, wire):
    def behave(peer):
        frame = peer.frame()
        if b"hello" in frame:
            peer.send(wire.answer(frame)[:-5])
        else:
            peer.send(wire.answer(frame))
            peer.frame()
    fails(mesh({Server(behave).port: "v1"}), "upstream_reset")


def test_a_reply_that_is_none(mesh, fails, wire):
    nonsense = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    server = Server(per_frame(lambda frame: nonsense if b"hello" in frame else wire.answer(frame)))
    fails(mesh({server.port: "v1"}), "bad_reply")


def test_a_reply_to_somebody_else(mesh, fails, wire):
    server = Server(per_frame(lambda frame: wire.foreign(frame) if b"hello" in frame else wire.answer(frame)))
    fails(mesh({server.port: "v1"}), "bad_reply")


def late(wire, seconds):
    def answer(frame):
        if b"hello" in frame:
            time.sleep(seconds)
        return wire.answer(frame)
    return answer


def test_timeout(mesh, fails, wire):
    server = Server(per_frame(late(wire, 1)))
    fails(mesh({server.port: "v1"}, router(HOST, only("hello", timeout="0.1s"), {"route": [to(HOST)]})), "timeout")


def test_overflow(world, mesh, wire):
    server = Server(per_frame(late(wire, 1)))
    pool = {"tcp": {"maxConnections": 1}, "http": {"http1MaxPendingRequests": 1}}
    port = mesh({server.port: "v1"}, rule(HOST, connectionPool=pool))
    peers = [Peer.connect(port) for _ in range(4)]
    for number, peer in enumerate(peers):
        peer.send(wire.call(number, "hello"))
    replies = [wire.parse(peer.frame()) for peer in peers]
    refused = [reply for reply in replies if not reply["ok"]]
    assert refused and all(reply["code"] == wire.codes.get("overflow", wire.other) for reply in refused), replies
    assert world.stats(f"meltemi.{wire.name}.errors")[f"meltemi.{wire.name}.errors.overflow"] == len(refused)
    assert any(reply["ok"] for reply in replies)


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


def test_injected_abort(mesh, fails, wire):
    server = Server(per_frame(wire.answer))
    fails(mesh({server.port: "v1"}, router(HOST, only("hello", fault={"abort": {}}), {"route": [to(HOST)]})), "aborted")


def test_injected_delay(world, mesh, wire):
    server = Server(per_frame(wire.answer))
    fault = {"delay": {"fixedDelay": "0.3s"}}
    peer = Peer.connect(mesh({server.port: "v1"}, router(HOST, only("hello", fault=fault, timeout="5s"))))
    peer.send(wire.call(1, "hello"))
    assert wire.parse(peer.frame())["ok"]
    assert sum(world.stats("fault.delays_injected").values()) == 1


def test_denied(mesh, fails, wire):
    server = Server(per_frame(wire.answer))
    fails(mesh({server.port: "v1"}, router(HOST, only("hello", deny=True), {"route": [to(HOST)]})), "denied")


@pytest.fixture
def static(world, wire):
    """A static Envoy with HTTP filters of its own, for what no MetaRouter says."""
    def make(server, *filters):
        port = free_port()
        config = {"@type": "type.googleapis.com/google.protobuf.Struct", "value": {"version": 1, "codec": {"name": wire.name}}}
        v3 = "type.googleapis.com/envoy.extensions"
        manager = {
            "@type": f"{v3}.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "rpc",
            "codec_type": "HTTP2",
            "route_config": {"validate_clusters": False, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                {"match": {"headers": [{"name": "x-meltemi-method", "string_match": {"exact": "lost"}}], "prefix": "/"},
                 "route": {"cluster": "nowhere"}},
                {"match": {"prefix": "/"}, "route": {"cluster": "servers"}}]}]},
            "http_filters": [*filters, {"name": "router", "typed_config": {"@type": f"{v3}.filters.http.router.v3.Router"}}],
        }
        inlet = {"@type": f"{v3}.filters.network.dynamic_modules.v3.DynamicModuleNetworkFilter",
                 "dynamic_module_config": {"name": "meltemi"}, "filter_name": "inlet", "filter_config": config}
        bridge = {"@type": f"{v3}.upstreams.http.dynamic_modules.v3.Config", "dynamic_module_config": {"name": "meltemi"},
                  "bridge_name": "outlet", "bridge_config": config}

        def address(number):
            return {"socket_address": {"address": "127.0.0.1", "port_value": number}}
        world.static_envoy(yaml.safe_dump({
            "admin": {"address": address(world.envoy_admin)},
            "static_resources": {
                "listeners": [{"name": "all", "address": address(port), "filter_chains": [{"filters": [
                    {"name": "inlet", "typed_config": inlet}, {"name": "manager", "typed_config": manager}]}]}],
                "clusters": [{"name": "servers", "type": "STATIC", "upstream_config": {"name": "bridge", "typed_config": bridge},
                              "load_assignment": {"cluster_name": "servers", "endpoints": [{"lb_endpoints": [
                                  {"endpoint": {"address": address(server.port)}}]}]}}],
            },
        }), wait_for=[port])
        return port
    return make


def test_denied_by_rbac(static, fails, wire):
    """An HCM that is not ours says less about its replies: status and text must do."""
    v3 = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
    permission = {"header": {"name": ":path", "string_match": {"suffix": "/hello"}}}
    rbac = {"name": "rbac", "typed_config": {"@type": v3, "rules": {"action": "DENY", "policies": {
        "no-hello": {"permissions": [permission], "principals": [{"any": True}]}}}}}
    fails(static(Server(per_frame(wire.answer)), rbac), "denied")


def test_no_cluster(static, wire):
    peer = Peer.connect(static(Server(per_frame(wire.answer))))
    peer.send(wire.call(1, "lost"))
    got = wire.parse(peer.frame())
    assert not got["ok"] and got["code"] == wire.other


def test_too_large(world, mesh, wire):
    server = Server(per_frame(wire.answer))
    port = mesh({server.port: "v1"}, {
        "apiVersion": "meltemi.dev/v1alpha1", "kind": "ApplicationProtocol", "metadata": {"name": wire.name},
        "spec": {"protocol": wire.name, "codec": f"aeraki.meta_protocol.codec.{wire.name}", "maxFrameBytes": 1000}})
    peer = Peer.connect(port)
    peer.send(wire.call(1, "hello", b"x" * 5000))
    got = wire.parse(peer.frame())
    assert (got["ok"], got["id"], got["code"]) == (False, 1, wire.codes["too_large"])
    peer.send(wire.call(2, "hello"))
    assert wire.parse(peer.frame())["ok"]
    assert world.stats(f"meltemi.{wire.name}.errors")[f"meltemi.{wire.name}.errors.too_large"] == 1


# Bytes that say no number to answer to.
NONSENSE = [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\x80\x01\x00\x01\x7f\xff\xff\xff" + b"\0" * 16,
            b"\x00\x00\x00\x20\x80\x01\x00\x01\x7f\xff\xff\xff" + b"\0" * 24, b"\xff" * 64]


@pytest.mark.parametrize("nonsense", NONSENSE, ids=range(len(NONSENSE)))
def test_undecodable(world, mesh, wire, nonsense):
    server = Server(per_frame(wire.answer))
    port = mesh({server.port: "v1"})
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


def test_a_dubbo_body_that_is_none_is_answered(world):
    """The header tells whom to answer, whatever the body is."""
    server, port = Server(per_frame(Dubbo.answer)), free_port()
    world.write("all", service(HOST, port, {server.port: "v1"}, "dubbo"))
    world.serve()
    world.envoy(wait_for=[port])
    peer = Peer.connect(port)
    frame = Dubbo.call(9, "hello")
    peer.send(frame[:16] + b"\xff" * (len(frame) - 16))
    got = Dubbo.parse(peer.frame())
    assert (got["id"], got["code"]) == (9, 40)
    peer.send(Dubbo.call(10, "hello"))
    assert Dubbo.parse(peer.frame())["ok"]


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
    frames = [peer.frame()]
    while True:
        try:
            frames.append(peer.frame())
        except EOFError:
            break
    read_only = [frame for frame in frames if frame[:4] == b"\xda\xbb\xa2\x00"]
    replies = [wire.parse(frame) for frame in frames if frame not in read_only]
    assert [(reply["id"], reply["ok"]) for reply in replies] == [(1, True)]
    assert len(read_only) == (1 if wire is Dubbo else 0)
