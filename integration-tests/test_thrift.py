"""Real Apache Thrift clients and servers through real Envoys."""

import pytest
from thrift.Thrift import TApplicationException

from clients import client
from harness import FILTER_HOST, free_port, router, rule, service, to
from peer.ttypes import Oops, Order

HOST = "echo.test"
FORMS = [("framed", "binary", False), ("framed", "binary-old", False), ("framed", "compact", False),
         ("unframed", "binary", False), ("unframed", "compact", False), ("header", "binary", False),
         ("header", "compact", False), ("header", "binary", True)]


def mesh(world, *routes, transport="framed", protocol="binary", **policy):
    """Two versions of a server behind one service; gives the service's port."""
    port, one, two = free_port(), free_port(), free_port()
    world.thrift_server("v1", one, transport, protocol)
    world.thrift_server("v2", two, transport, protocol)
    world.write("service", service(HOST, port, {one: "v1", two: "v2"}), rule(HOST, "v1", "v2", **policy))
    world.write("routes", router(HOST, *routes or [{"name": "all", "route": [to(HOST, "v1")]}]))
    world.serve()
    world.envoy(wait_for=[port])
    return port


@pytest.mark.feature("Thrift in every form")
@pytest.mark.parametrize("transport, protocol, zlib", FORMS)
def test_every_form_works(world, transport, protocol, zlib):
    port = mesh(world, transport=transport, protocol=protocol)
    with client(port, transport, protocol, zlib) as demo:
        for _ in range(3):
            assert demo.hello("world") == "v1: hello world"
            order = demo.place(Order(7, "book", 9.5, [{"a": 1}, {}]), [1, 2], {"k": "v"})
            assert (order.id, order.price, order.nested) == (8, 19.0, [{"a": 1}, {}])
            demo.fire("one-way")
            with pytest.raises(Oops, match="because"):
                demo.fail("because")
            with pytest.raises(TApplicationException) as raised:
                demo.crash("boom")
            assert raised.value.type == TApplicationException.INTERNAL_ERROR
            assert demo.slow(5) == "v1: slept 5"
    world.counted("thrift", {"requests": 15, "one_way": 3, "exceptions": 3, "failures": 3, "in_flight": 0, "decode_errors": 0})
    assert world.log("v1").count("fire one-way") == 3


@pytest.mark.feature("routes by method, weight and header")
def test_routing_by_method_weight_and_header(world):
    port = mesh(world,
                {"name": "gray", "match": {"attributes": {"env": {"exact": "gray"}}}, "route": [to(HOST, "v2")]},
                {"name": "pinned", "match": {"attributes": {"method": {"prefix": "slo"}}}, "route": [to(HOST, "v2")]},
                {"name": "rest", "route": [to(HOST, "v1", 20), to(HOST, "v2", 80)]}, transport="header")
    with client(port, "header") as demo:
        assert demo.slow(1) == "v2: slept 1"
        seen = [demo.hello("x")[:2] for _ in range(400)]
        assert 0.70 < seen.count("v2") / 400 < 0.90
    with client(port, "header", headers={"env": "gray"}) as demo:
        assert {demo.hello("x")[:2]} == {"v2"}


def test_conditions(world):
    def route(name, subset, **condition):
        return {"name": name, "match": {"attributes": {"tag": condition}}, "route": [to(HOST, subset)]}
    port = mesh(world, route("suffix", "v2", suffix="-end"), route("regex", "v2", regex="[0-9]+x"),
                route("range", "v2", range={"start": 10, "end": 20}), route("case", "v2", exact="CASE", ignoreCase=True),
                route("not", "v2", exact="keep", invert=True), {"name": "rest", "route": [to(HOST, "v1")]},
                transport="header")

    def version(**headers):
        with client(port, "header", headers=headers) as demo:
            return demo.hello("x")[:2]
    for tag in ("the-end", "17x", "15", "case", "whatever"):
        assert version(tag=tag) == "v2", tag
    assert version(tag="keep") == "v1"
    assert version() == "v2", "what is missing is not `keep`"


@pytest.mark.feature("changes of headers, both ways")
def test_mutation_reaches_the_server_and_the_client(world):
    """The server is a Thrift client's mirror: a raw THeader server that shows what it got."""
    import struct
    from servers import Server
    from wire import text, call
    got = []

    def behave(peer):
        while True:
            frame = peer.frame()
            got.append(frame)
            message = call(0, "hello", text(b"ok", field=0), kind=2)[4:]
            infos = b"\x00\x00\x01\x01\x03old\x01x"
            infos += b"\0" * (-len(infos) % 4)
            body = struct.pack(">HHIH", 0x0FFF, 0, struct.unpack(">I", frame[8:12])[0], len(infos) // 4) + infos + message
            peer.send(struct.pack(">I", len(body)) + body)
    server, port = Server(behave), free_port()
    world.write("all", service(HOST, port, {server.port: "v1"}), router(HOST, {
        "requestMutation": [{"key": "env", "value": "100%"}, {"key": "traceId", "value": "t 1"}, {"key": "drop", "remove": True}],
        "responseMutation": [{"key": "old", "value": "y"}, {"key": "served-by", "value": "meltemi"}],
        "route": [to(HOST)]}))
    world.serve()
    world.envoy(wait_for=[port])
    with client(port, "header", headers={"env": "gray", "drop": "1", "keep": "Kept"}) as demo:
        assert demo.hello("x") == "ok"
        assert demo.encoding.get_headers() == {b"old": b"y", b"served-by": b"meltemi"}
    assert b"\x03env\x04100%" in got[0] and b"\x07traceId\x03t 1" in got[0] and b"\x04keep\x04Kept" in got[0]
    assert b"drop" not in got[0] and b"gray" not in got[0]


@pytest.mark.feature("retries around servers that are gone")
def test_a_dead_version_is_retried_around(world):
    port = mesh(world, {"name": "both", "route": [to(HOST)]})
    world.stop("v2")
    with client(port) as demo:
        assert {demo.hello("x")[:2] for _ in range(50)} == {"v1"}


@pytest.mark.feature("mirrors")
def test_mirror(world):
    port = mesh(world, {"name": "all", "route": [to(HOST, "v1")], "mirror": {"host": HOST, "subset": "v2"}})
    with client(port) as demo:
        for _ in range(5):
            demo.fire("copied")
            assert demo.hello("x") == "v1: hello x"
    from harness import wait_until
    wait_until(lambda: world.log("v2").count("fire copied") == 5, "the copies")
    assert world.log("v1").count("fire copied") == 5


@pytest.mark.feature("consistent hashing")
def test_hash_keeps_callers_at_their_server(world):
    port = mesh(world, {"name": "all", "route": [to(HOST)], "hashPolicy": ["user"]}, transport="header",
                loadBalancer={"consistentHash": {"httpHeaderName": "user"}})
    homes = {}
    for _ in range(3):
        for user in range(20):
            with client(port, "header", headers={"user": f"u{user}"}) as demo:
                homes.setdefault(user, set()).add(demo.hello("x")[:2])
    assert all(len(home) == 1 for home in homes.values())
    assert len(set.union(*homes.values())) == 2


@pytest.mark.feature("one-way calls")
def test_one_way_calls_of_all_sizes_arrive(world):
    from harness import wait_until
    port = mesh(world)
    sizes = [100, 5_000, 20_000, 1_000_000, 8_000_000] * 3

    def arrived():
        return sorted(int(line.split()[1]) for line in world.log("v1").splitlines() if "fire" in line) == sorted(sizes)
    with client(port) as demo:
        for size in sizes:
            demo.fire("x" * size)
        assert demo.hello("x") == "v1: hello x"
        # In Wasm, a client that closes takes what is under way along.
        if FILTER_HOST == "wasm":
            wait_until(arrived, "the calls")
    wait_until(arrived, "the calls")
