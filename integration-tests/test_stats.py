"""What operators see: counters, the histogram, access logs, and rules by method."""

import json
import struct

import pytest

from by_hand import V3, cluster, listener, manager, ours, route, start, tcp
from harness import FILTER_HOST, STATE, free_port, get, wait_until
from servers import Server, per_frame
from wire import Dubbo, Peer, call, text


def one_way(wire, number: int) -> bytes:
    return wire.call(number, "fire", two_way=False) if wire is Dubbo else call(number, "fire", text(b"x"), kind=4)


HEARTBEAT = struct.pack(">HBBQI", 0xDABB, 0xE2, 0, 99, 1) + b"N"


def read(world, name: str, value: int) -> None:
    wait_until(lambda: world.stats(f"{name}$").get(name) == value, f"{name} to be {value}")


@pytest.mark.feature("statistics", module="`dynamicmodulescustom.meltemi.…`", wasm="`wasmcustom.meltemi.…`; no `panics`: a panic ends the VM",
                     why="Envoy's prefix")
@pytest.mark.parametrize("mode", ["request", "connection"])
def test_counters(world, wire, mode):
    slow = {}

    def behave(peer):
        while True:
            frame = peer.frame()
            if b"wait" in frame:
                slow["peer"], slow["frame"] = peer, frame
            elif b"fire" not in frame:
                peer.send(wire.answer(frame))
    server, port = Server(behave), free_port()
    if mode == "request":
        filters = [ours("inlet", codec={"name": wire.name}), manager(route())]
        servers = cluster(server.port, wire.name)
    else:
        routes = [{"name": "all", "clusters": [{"name": "servers", "weight": 1}]}]
        filters = [ours("relay", codec={"name": wire.name}, routes=routes), tcp()]
        servers = cluster(server.port)
    start(world, [listener(port, *filters)], [servers])
    peer = Peer.connect(port)
    sent = received = 0
    for number in range(5):
        frame = wire.call(number, "hello")
        peer.send(frame)
        sent, received = sent + len(frame), received + len(peer.frame())
    peer.send(one_way(wire, 7))
    sent += len(one_way(wire, 7))
    name = f"meltemi.{wire.name}"
    if wire is Dubbo and mode == "request":
        peer.send(HEARTBEAT)
        sent, received = sent + len(HEARTBEAT), received + len(peer.frame())
        read(world, f"{name}.heartbeats", 1)
    waiting = wire.call(8, "wait")
    peer.send(waiting)
    sent += len(waiting)
    read(world, f"{name}.in_flight", 1)
    wait_until(lambda: slow, "the server to be asked")
    slow["peer"].send(wire.answer(slow["frame"]))
    received += len(peer.frame())
    for counter, value in [("in_flight", 0), ("requests", 6), ("one_way", 1), ("replies", 6), ("bytes_in", sent),
                           ("bytes_out", received), ("decode_errors", 0), ("failures", 0)]:
        read(world, f"{name}.{counter}", value)
    # In Wasm a panic ends the VM, and what it has counted with it.
    assert world.stats("panics") == ({f"{name}.panics": 0} if FILTER_HOST == "module" else {})

    def durations():
        text = get(world.envoy_admin, "/stats/prometheus?filter=duration_us")
        counts = [line.split()[-1] for line in text.splitlines() if "duration_us_count" in line]
        return counts and sum(int(count) for count in counts)
    wait_until(lambda: durations() in (6, 7), "the histogram to have all calls")


def test_calls_lost_with_their_server(world, wire):
    """In connection mode nobody can be told, but it is counted."""
    def behave(peer):
        peer.frame()
        peer.reset()
    server, port = Server(behave), free_port()
    routes = [{"name": "all", "clusters": [{"name": "servers", "weight": 1}]}]
    start(world, [listener(port, ours("relay", codec={"name": wire.name}, routes=routes), tcp())], [cluster(server.port)])
    peer = Peer.connect(port)
    peer.send(wire.call(1, "hello"))
    with pytest.raises((EOFError, ConnectionResetError)):
        peer.frame()
    read(world, f"meltemi.{wire.name}.errors.upstream_reset", 1)
    read(world, f"meltemi.{wire.name}.in_flight", 0)


def access_log(path) -> list:
    line = {"method": "%REQ(x-meltemi-method)%", "service": "%REQ(x-meltemi-service)%", "protocol": "%REQ(x-meltemi-protocol)%",
            "reply": "%RESP(x-meltemi-reply)%", "state": f"%FILTER_STATE({STATE}meltemi.method:PLAIN)%",
            "code": "%RESPONSE_CODE%"}
    return [{"name": "file", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": str(path),
        "log_format": {"json_format": line}}}]


def lines(path, count: int) -> list[dict]:
    wait_until(lambda: path.exists() and len(path.read_text().splitlines()) >= count, "the access log")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.feature("service and method in access logs", module="`%FILTER_STATE(meltemi.method:PLAIN)%`",
                     wasm="`%FILTER_STATE(wasm.meltemi.method:PLAIN)%`", why="Envoy's prefix")
def test_access_log_and_rules_by_method(world, wire, tmp_path):
    server, port, path = Server(per_frame(wire.answer)), free_port(), tmp_path / "access.log"
    header = {"name": "x-meltemi-method", "string_match": {"exact": "secret"}}
    rbac = {"name": "rbac", "typed_config": {"@type": f"{V3}.filters.http.rbac.v3.RBAC", "rules": {
        "action": "DENY", "policies": {"secret": {"permissions": [{"header": header}], "principals": [{"any": True}]}}}}}
    http = manager(route(), filters=[rbac], access_log=access_log(path))
    start(world, [listener(port, ours("inlet", codec={"name": wire.name}), http)], [cluster(server.port, wire.name)])
    peer = Peer.connect(port)
    outcomes = []
    for number, method in enumerate(("hello", "secret", "other")):
        peer.send(wire.call(number, method))
        outcomes.append(wire.parse(peer.frame())["ok"])
    assert outcomes == [True, False, True]
    read(world, f"meltemi.{wire.name}.errors.denied", 1)
    peer.close()
    world.stop("envoy")
    logged = lines(path, 3)
    assert [line["method"] for line in logged] == ["hello", "secret", "other"]
    assert [line["state"] for line in logged] == ["hello", "secret", "other"], "calls one after the other"
    assert [line["reply"] for line in logged] == ["ok", None, "ok"]
    assert [line["code"] for line in logged] == [200, 403, 200]
    assert all(line["protocol"] == wire.name for line in logged)
    service = "peer.Demo" if wire is Dubbo else None
    assert all(line["service"] == service for line in logged)


def test_access_log_of_a_connection(world, wire, tmp_path):
    server, port, path = Server(per_frame(wire.answer)), free_port(), tmp_path / "access.log"
    routes = [{"name": "all", "clusters": [{"name": "servers", "weight": 1}]}]
    proxy = tcp()
    proxy["typed_config"]["access_log"] = access_log(path)
    start(world, [listener(port, ours("relay", codec={"name": wire.name}, routes=routes), proxy)], [cluster(server.port)])
    peer = Peer.connect(port)
    for number, method in enumerate(("hello", "other")):
        peer.send(wire.call(number, method))
        assert wire.parse(peer.frame())["ok"]
    peer.close()
    wait_until(lambda: world.stats("tcp.tcp.downstream_cx_total") and world.stats("cluster.servers.upstream_cx_active")[
        "cluster.servers.upstream_cx_active"] == 0, "the connection to end")
    world.stop("envoy")
    # The first connection was the harness's: Envoy listens.
    assert [line["state"] for line in lines(path, 2)] == [None, "hello"], "the call that was routed"
