"""The folder changes: what is good is served, what is bad is told, nothing is lost."""

import json

from harness import free_port, get, router, service, to, wait_until
from servers import Server, per_frame
from wire import Peer, call, parse, reply, text

HOST = "echo.test"


def test_bad_files_keep_what_is_served(world):
    port = free_port()
    server = Server(per_frame(lambda frame: reply(frame, b"fine")))
    world.write("service", service(HOST, port, {server.port: "v1"}))
    world.write("routes", router(HOST, {"match": {"attributes": {"method": {"exact": "hello"}}}, "route": [to(HOST)]}))
    world.serve()
    world.envoy(wait_for=[port])
    peer = Peer.connect(port)

    def kinds():
        got = []
        for method in ("hello", "other"):
            peer.send(call(1, method, text(b"x")))
            got.append(parse(peer.frame())["kind"])
        return got
    assert kinds() == [2, 3]
    for broken in ("apiVersion: meltemi.dev/v1alpha1\nkind: MetaRou", "{{{", "apiVersion: meltemi.dev/v1alpha1\nkind: "
                   "MetaRouter\nmetadata: {name: echo}\nspec:\n  hosts: [echo.test]\n  routs: []\n"):
        world.published(lambda text=broken: world.write("routes", text))
        assert kinds() == [2, 3]
        assert any(problem["severity"] == "error" and problem["file"].endswith("routes.yaml") for problem in world.problems())
    assert any("routs" in problem["reason"] and problem["line"] == 6 for problem in world.problems())
    # One wrong route does not take the others away.
    world.changed("routes", router(HOST, {"name": "bad", "route": [to("nobody.test")]},
                                   {"name": "good", "match": {"attributes": {"method": {"exact": "other"}}}, "route": [to(HOST)]}))
    assert kinds() == [3, 2]
    assert any(problem["field"] == "spec.routes[0].route[0].destination.host" for problem in world.problems())


def test_what_a_proxy_refuses_is_shown(world):
    """Envoy refuses a listener on an address that is taken; the old ones stay."""
    port = free_port()
    server = Server(per_frame(lambda frame: reply(frame, b"fine")))
    world.write("service", service(HOST, port, {server.port: "v1"}))
    world.serve()
    world.envoy(wait_for=[port])
    other = service("other.test", port, {server.port: "v1"})
    other["spec"]["addresses"] = ["203.0.113.7"]
    world.published(lambda: world.write("other", other))
    refused = wait_until(lambda: json.loads(get(world.admin, "/proxies"))[0]["types"]["Listener"].get("error"), "the refusal")
    assert "203.0.113.7" in refused
    assert "meltemi_nacks_total 1" in get(world.admin, "/metrics")
    assert "refused" in get(world.admin, "/")
    peer = Peer.connect(port)
    peer.send(call(1, "hello", text(b"x")))
    assert parse(peer.frame())["kind"] == 2


def test_state_of_the_world(world):
    port = free_port()
    server = Server(per_frame(lambda frame: reply(frame, b"fine")))
    world.write("service", service(HOST, port, {server.port: "v1"}))
    world.serve()
    world.envoy("--sotw", wait_for=[port])
    peer = Peer.connect(port)
    peer.send(call(1, "hello", text(b"x")))
    assert parse(peer.frame())["kind"] == 2
    world.changed("routes", router(HOST, {"deny": True}))
    wait_until(lambda: peer.send(call(1, "hello", text(b"x"))) or parse(peer.frame())["kind"] == 3, "the new route")


def test_a_control_plane_that_restarts(world):
    port = free_port()
    server = Server(per_frame(lambda frame: reply(frame, b"fine")))
    world.write("service", service(HOST, port, {server.port: "v1"}))
    world.serve()
    world.envoy(wait_for=[port])
    peer = Peer.connect(port)

    def works():
        peer.send(call(1, "hello", text(b"x")))
        return parse(peer.frame())["kind"] == 2
    assert works()
    world.stop("serve")
    assert works()
    world.serve()
    wait_until(lambda: json.loads(get(world.admin, "/proxies")), "Envoy to come back", 40)
    assert works()
    world.changed("routes", router(HOST, {"deny": True}))
    wait_until(lambda: not works(), "the new route")
