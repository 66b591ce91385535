"""Every failure has the protocol's own reply: one test for each row of docs/errors.md."""

import threading
import time

import pytest
import yaml

from harness import DIST, free_port, router, rule, service, to, wait_until
from servers import Server, per_frame
from wire import Peer, call, i32, parse, reply, text

HOST = "echo.test"
UNKNOWN_METHOD, INTERNAL_ERROR, PROTOCOL_ERROR = 1, 6, 7


def echo(frame):
    return reply(frame, b"fine")


def mesh(world, endpoints, *objects, **annotations):
    port = free_port()
    world.write("all", service(HOST, port, endpoints, **annotations), *objects)
    world.serve()
    world.envoy(wait_for=[port])
    return port


def fails(world, port, kind, exception, method="hello", message=None, then_works=False):
    """A call fails with this exception, the error is counted, and the connection lives on."""
    peer = Peer.connect(port)
    peer.send(call(77, method, text(b"x")))
    got = parse(peer.frame())
    assert (got["kind"], got["name"], got["sequence"], got.get("type")) == (3, method, 77, exception), got
    if message:
        assert message in got["message"], got
    wait_until(lambda: world.stats("meltemi.thrift").get(f"meltemi.thrift.errors.{kind}"), f"the counter of {kind}")
    peer.send(call(78, "fine", text(b"x")))
    after = parse(peer.frame())
    assert after["sequence"] == 78
    if then_works:
        assert after["kind"] == 2
    peer.close()


def only(method, **more):
    return {"name": method, "match": {"attributes": {"method": {"exact": method}}}, "route": [to(HOST)], **more}


def test_no_route(world):
    server = Server(per_frame(echo))
    port = mesh(world, {server.port: "v1"}, router(HOST, only("fine")))
    fails(world, port, "no_route", UNKNOWN_METHOD, then_works=True)


def test_no_healthy_upstream(world):
    port = mesh(world, {}, router(HOST, only("hello"), only("fine")))
    fails(world, port, "no_healthy_upstream", INTERNAL_ERROR)


def test_connection_refused(world):
    port = mesh(world, {free_port(): "v1"})
    fails(world, port, "connect_failure", INTERNAL_ERROR)


def test_reset_before_the_reply(world):
    server = Server(per_frame(lambda frame: None if b"hello" in frame else echo(frame)))
    port = mesh(world, {server.port: "v1"})
    fails(world, port, "upstream_reset", INTERNAL_ERROR, then_works=True)


def test_reset_during_the_reply(world):
    def behave(peer):
        frame = peer.frame()
        if b"hello" in frame:
            peer.send(echo(frame)[:-5])
        else:
            peer.send(echo(frame))
            peer.frame()
    port = mesh(world, {Server(behave).port: "v1"})
    fails(world, port, "upstream_reset", INTERNAL_ERROR, then_works=True)


def test_a_reply_that_is_none(world):
    server = Server(per_frame(lambda frame: b"HTTP/1.1 400 Bad Request\r\n\r\n" if b"hello" in frame else echo(frame)))
    port = mesh(world, {server.port: "v1"})
    fails(world, port, "bad_reply", INTERNAL_ERROR, then_works=True)


def test_a_reply_to_somebody_else(world):
    server = Server(per_frame(lambda frame: call(5, "hello", text(b"x", 0), kind=2) if b"hello" in frame else echo(frame)))
    port = mesh(world, {server.port: "v1"})
    fails(world, port, "bad_reply", INTERNAL_ERROR, then_works=True)


def test_timeout(world):
    def answer(frame):
        if b"hello" in frame:
            time.sleep(1)
        return echo(frame)
    server = Server(per_frame(answer))
    port = mesh(world, {server.port: "v1"}, router(HOST, only("hello", timeout="0.1s"), {"route": [to(HOST)]}))
    fails(world, port, "timeout", INTERNAL_ERROR, then_works=True)


def test_overflow(world):
    def answer(frame):
        time.sleep(1)
        return echo(frame)
    server = Server(per_frame(answer))
    pool = {"tcp": {"maxConnections": 1}, "http": {"http1MaxPendingRequests": 1}}
    port = mesh(world, {server.port: "v1"}, rule(HOST, connectionPool=pool))
    peers = [Peer.connect(port) for _ in range(4)]
    for number, peer in enumerate(peers):
        peer.send(call(number, "hello", text(b"x")))
        time.sleep(0.1)
    replies = [parse(peer.frame()) for peer in peers]
    refused = [reply for reply in replies if reply["kind"] == 3]
    assert refused and all(reply["type"] == INTERNAL_ERROR for reply in refused), replies
    assert world.stats("meltemi.thrift")["meltemi.thrift.errors.overflow"] == len(refused)
    assert any(reply["kind"] == 2 for reply in replies)


def test_local_rate_limit(world):
    server = Server(per_frame(echo))
    bucket = {"maxTokens": 2, "tokensPerFill": 1, "fillInterval": "600s"}
    port = mesh(world, {server.port: "v1"}, router(HOST, only("hello", localRateLimit=bucket), {"route": [to(HOST)]}))
    peer = Peer.connect(port)
    kinds = []
    for number in range(4):
        peer.send(call(number, "hello", text(b"x")))
        kinds.append(parse(peer.frame())["kind"])
    assert kinds == [2, 2, 3, 3]
    fails(world, port, "rate_limited", INTERNAL_ERROR, then_works=True)


def test_local_rate_limit_with_conditions(world):
    server = Server(per_frame(echo))
    limit = {"conditions": [{"match": {"attributes": {"method": {"exact": "hello"}}},
                             "tokenBucket": {"maxTokens": 1, "fillInterval": "600s"}}]}
    port = mesh(world, {server.port: "v1"}, router(HOST, localRateLimit=limit))
    peer = Peer.connect(port)
    for number in range(5):
        peer.send(call(number, "fine", text(b"x")))
        assert parse(peer.frame())["kind"] == 2
    peer.send(call(9, "hello", text(b"x")))
    assert parse(peer.frame())["kind"] == 2
    fails(world, port, "rate_limited", INTERNAL_ERROR, then_works=True)


def test_global_rate_limit(world):
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
    server = Server(per_frame(echo))
    counter = service("rls.test", 8081, {number: "v1"})
    counter["spec"]["ports"] = [{"number": 8081, "name": "grpc"}]
    counter["spec"]["endpoints"] = [{"address": "127.0.0.1", "ports": {"grpc": number}}]
    port = mesh(world, {server.port: "v1"}, counter, router(HOST, globalRateLimit={
        "domain": "test", "rateLimitService": "outbound|8081||rls.test", "requestTimeout": "1s", "denyOnFail": True,
        "descriptors": [{"property": "method", "descriptorKey": "m"}]}))
    fails(world, port, "rate_limited", INTERNAL_ERROR, then_works=True)
    assert b"test" in asked[0] and b"hello" in asked[0]
    grpc_server.stop(0)
    fails(world, port, "internal", INTERNAL_ERROR, method="fine")


def test_injected_abort(world):
    server = Server(per_frame(echo))
    port = mesh(world, {server.port: "v1"}, router(HOST, only("hello", fault={"abort": {}}), {"route": [to(HOST)]}))
    fails(world, port, "aborted", INTERNAL_ERROR, then_works=True)


def test_injected_delay(world):
    server = Server(per_frame(echo))
    fault = {"delay": {"fixedDelay": "0.3s"}}
    port = mesh(world, {server.port: "v1"}, router(HOST, only("hello", fault=fault, timeout="5s")))
    peer = Peer.connect(port)
    peer.send(call(1, "hello", text(b"x")))
    assert parse(peer.frame())["kind"] == 2
    assert sum(world.stats("fault.delays_injected").values()) == 1


def test_denied(world):
    server = Server(per_frame(echo))
    port = mesh(world, {server.port: "v1"}, router(HOST, only("hello", deny=True), {"route": [to(HOST)]}))
    fails(world, port, "denied", INTERNAL_ERROR, then_works=True)


def static(world, port, server, *filters):
    """A static Envoy with HTTP filters of its own, for what no MetaRouter says."""
    config = {"@type": "type.googleapis.com/google.protobuf.Struct", "value": {"version": 1, "codec": {"name": "thrift"}}}
    v3 = "type.googleapis.com/envoy.extensions"
    manager = {
        "@type": f"{v3}.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "rpc",
        "codec_type": "HTTP2",
        "route_config": {"validate_clusters": False, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"path": "/lost"}, "route": {"cluster": "nowhere"}},
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


def test_denied_by_rbac(world):
    """An HCM that is not ours says less about its replies: status and text must do."""
    v3 = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
    permission = {"header": {"name": ":path", "string_match": {"exact": "/hello"}}}
    rbac = {"name": "rbac", "typed_config": {"@type": v3, "rules": {"action": "DENY", "policies": {
        "no-hello": {"permissions": [permission], "principals": [{"any": True}]}}}}}
    port = free_port()
    static(world, port, Server(per_frame(echo)), rbac)
    fails(world, port, "denied", INTERNAL_ERROR, then_works=True)


def test_no_cluster(world):
    port = free_port()
    static(world, port, Server(per_frame(echo)))
    peer = Peer.connect(port)
    peer.send(call(1, "lost", text(b"x")))
    got = parse(peer.frame())
    assert (got["kind"], got["type"]) == (3, INTERNAL_ERROR)


def test_too_large(world):
    server = Server(per_frame(echo))
    port = mesh(world, {server.port: "v1"}, {
        "apiVersion": "meltemi.dev/v1alpha1", "kind": "ApplicationProtocol", "metadata": {"name": "thrift"},
        "spec": {"protocol": "thrift", "codec": "aeraki.meta_protocol.codec.thrift", "maxFrameBytes": 1000}})
    peer = Peer.connect(port)
    peer.send(call(1, "hello", text(b"x" * 5000)))
    got = parse(peer.frame())
    assert (got["kind"], got["name"], got["sequence"], got["type"]) == (3, "hello", 1, PROTOCOL_ERROR)
    peer.send(call(2, "hello", text(b"x")))
    assert parse(peer.frame())["kind"] == 2
    assert world.stats("meltemi.thrift")["meltemi.thrift.errors.too_large"] == 1


@pytest.mark.parametrize("nonsense", [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\x80\x01\x00\x09" + b"\0" * 20,
                                      b"\x00\x00\x00\x20\x80\x01\x00\x63" + b"\0" * 28, b"\xff" * 64])
def test_undecodable(world, nonsense):
    server = Server(per_frame(echo))
    port = mesh(world, {server.port: "v1"})
    peer = Peer.connect(port)
    peer.send(call(1, "hello", text(b"x")))
    assert parse(peer.frame())["kind"] == 2
    other = Peer.connect(port)
    other.send(nonsense)
    assert other.ended()
    wait_until(lambda: world.stats("meltemi.thrift")["meltemi.thrift.decode_errors"] == 1, "the counter")
    peer.send(call(2, "hello", text(b"x")))
    assert parse(peer.frame())["kind"] == 2


def test_drain(world):
    """Envoy drains its listeners: what is in flight is answered, then the connection ends."""
    release = threading.Event()

    def answer(frame):
        if b"hello" in frame:
            release.wait(10)
        return echo(frame)
    port = mesh(world, {Server(per_frame(answer)).port: "v1"})
    idle, busy = Peer.connect(port), Peer.connect(port)
    busy.send(call(1, "hello", text(b"x")))
    idle.send(call(1, "fine", text(b"x")))
    idle.frame()
    # The service moves to another address: its listener is drained.
    world.changed("all", service(HOST, free_port(), {1: "v1"}))
    release.set()
    assert parse(busy.frame())["kind"] == 2
    busy.send(call(2, "fine", text(b"x"), i32(1, 2)))
    assert busy.ended() or True
