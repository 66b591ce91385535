"""One listener for several destinations, as sidecars have: `declare` picks the chain, others pass untouched."""

import socket

import pytest

from by_hand import cluster, declare, listener, manager, ours, route, start, tcp
from harness import free_port
from servers import Server, per_frame
from wire import Peer


def shared(chain):
    """One listener with two ports of ours and one of others: without redirection, the address that a connection was for is
    the listener's own."""
    ports = [free_port() for _ in range(3)]
    main = listener(ports[0], *chain["ours"](ports))
    main["additional_addresses"] = [{"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
                                    for port in ports[1:]]
    main["listener_filters"] = [declare(destinations=[{"port": port} for port in ports[:2]])]
    main["filter_chains"][0]["filter_chain_match"] = {"application_protocols": ["h2c"]}
    main["default_filter_chain"] = {"filters": chain["others"](ports)}
    return ports, main


def http(peer: Peer):
    """A server that answers one HTTP request with what it was sent."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        data += peer.socket.recv(4096)
    peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(data) + data)


def ask(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        got = b""
        while piece := connection.recv(4096):
            got += piece
        return got


REQUEST = b"GET /hello HTTP/1.1\r\nhost: other.test\r\n\r\n"


@pytest.mark.feature("shared HTTP ports (`declare`)", why="Envoy runs no Wasm in listener filters")
def test_declared_destinations_get_the_chain_for_http(world, wire):
    servers = [Server(per_frame(lambda frame, name=name: wire.answer(frame, name))) for name in (b"one", b"two")]
    other = Server(http)
    ports, main = shared({
        "ours": lambda ports: [
            ours("inlet", codec={"name": wire.name}, destinations=[
                {"port": ports[0], "authority": "one.test"}, {"port": ports[1], "authority": "two.test"}]),
            manager(route("one", {"prefix": "/", "headers": [{"name": ":authority", "string_match": {"exact": "one.test"}}]}),
                    route("two", {"prefix": "/", "headers": [{"name": ":authority", "string_match": {"exact": "two.test"}}]}))],
        "others": lambda _: [tcp("other")]})
    start(world, [main], [cluster(servers[0].port, wire.name, name="one"), cluster(servers[1].port, wire.name, name="two"),
                          cluster(other.port, name="other")])
    for _ in range(3):
        for port, name in zip(ports, (b"one", b"two")):
            peer = Peer.connect(port)
            for number in range(5):
                peer.send(wire.call(number, "hello"))
                frame = peer.frame()
                assert wire.parse(frame)["id"] == number and name in frame
            peer.close()
        assert ask(ports[2], REQUEST).endswith(REQUEST), "byte for byte"
    assert world.stats("meltemi")[f"meltemi.{wire.name}.requests"] == 30


@pytest.mark.parametrize("kind", ["inlet", "relay"])
def test_foreign_traffic_passes_our_filters(world, wire, kind):
    """Without `declare` too: a filter that stands in the way of others lets them pass, plain HTTP and bytes of any kind."""
    server = Server(per_frame(wire.answer))
    other = Server(http)
    blob = bytes(range(256)) * 4000 + b"\r\n\r\n"
    front, foreign = free_port(), free_port()
    destinations = [{"port": front}]
    routes = {"routes": [{"name": "all", "clusters": [{"name": "servers", "weight": 1}]}]} if kind == "relay" else {}
    filters = [ours(kind, codec={"name": wire.name}, destinations=destinations, **routes), tcp("other")]
    main = listener(front, *filters)
    main["additional_addresses"] = [{"address": {"socket_address": {"address": "127.0.0.1", "port_value": foreign}}}]
    start(world, [main], [cluster(server.port), cluster(other.port, name="other")])
    assert ask(foreign, REQUEST).endswith(REQUEST)
    assert ask(foreign, blob).endswith(blob)
    stats = world.stats("meltemi")
    assert stats.get(f"meltemi.{wire.name}.bytes_in", 0) == 0
    if kind == "relay":
        peer = Peer.connect(front)
        peer.send(wire.call(1, "hello"))
        assert wire.parse(peer.frame())["ok"]
