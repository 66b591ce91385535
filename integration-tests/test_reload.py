"""The folder changes: what is good is served, what is bad is told, nothing is lost."""

import copy
import json
import time

import pytest
from harness import free_port, get, router, rule, service, to, wait_until
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
    # A route that is no route, among others that are.
    world.published(lambda: world.write("routes", router(
        HOST, {"name": "bad", "route": [to("nobody.test")]},
        {"name": "good", "match": {"attributes": {"method": {"exact": "other"}}}, "route": [to(HOST)]})))
    world.in_sync()
    assert kinds() == [2, 3]
    wrong = next(problem for problem in world.problems() if problem["severity"] == "error")
    assert wrong["field"] == "spec.routes[0].route[0].destination.host"
    assert wrong["reason"].endswith("still serving the last good version")


def asks(port: int):
    """A client on one connection: the kind of each reply."""
    peer = Peer.connect(port)

    def ask() -> int:
        peer.send(call(1, "hello", text(b"x")))
        return parse(peer.frame())["kind"]
    return ask


def small_world(world) -> tuple[int, dict[str, list]]:
    """A service with a subset and a route to it, each in a file; its port and the files."""
    port = free_port()
    server = Server(per_frame(lambda frame: reply(frame, b"fine")))
    files = {
        "service": [service(HOST, port, {server.port: "v1"})], "rule": [rule(HOST, "v1")],
        "routes": [router(HOST, {"route": [to(HOST, "v1")]})],
    }
    for name, objects in files.items():
        world.write(name, *objects)
    world.serve()
    world.envoy(wait_for=[port])
    return port, files


def wrong_subset(files):
    files["routes"][0]["spec"]["routes"][0]["route"] = [to(HOST, "v11")]


def wrong_condition(files):
    files["routes"][0]["spec"]["routes"].insert(0, {"deny": True, "match": {"attributes": {"method": {"regex": "(("}}}})


def wrong_kind(files):
    files["routes"][0]["kind"] = "MetaRouterr"


def wrong_group(files):
    files["service"][0]["apiVersion"] = "networking.istio.i/v1"


def wrong_endpoint(files):
    files["service"][0]["spec"]["endpoints"].append({"address": "10.0.0."})


def wrong_annotation(files):
    files["service"][0]["metadata"]["annotations"] = {"meltemi.dev/tls-certificat": "/nonexistent"}


def wrong_subset_name(files):
    files["rule"][0]["spec"]["subsets"][0]["name"] = "v11"


def wrong_policy(files):
    files["rule"][0]["spec"]["trafficPolicy"] = {"tls": {"mode": "MUTUAL"}}


def taken_port(files):
    thief = copy.deepcopy(files["service"][0])
    thief["metadata"]["name"] = "thief"
    thief["spec"]["endpoints"] = []
    files["a-thief"] = [thief]


def taken_name(files):
    thief = copy.deepcopy(files["service"][0])
    thief["spec"]["endpoints"] = []
    files["a-thief"] = [thief]


@pytest.mark.feature("configuration that changes under load, and mistakes in it")
@pytest.mark.parametrize("mistake", [
    wrong_subset, wrong_condition, wrong_kind, wrong_group, wrong_endpoint, wrong_annotation, wrong_subset_name, wrong_policy,
    taken_port, taken_name], ids=lambda mistake: mistake.__name__)
def test_a_mistake_stops_no_call(world, mistake):
    """Before and after a restart, calls go on as before, and the mistake is told."""
    port, files = small_world(world)
    ask = asks(port)
    assert ask() == 2
    changed = copy.deepcopy(files)
    mistake(changed)

    def write():
        for name, objects in changed.items():
            if objects != files.get(name):
                world.write(name, *objects)
    world.published(write)
    world.in_sync()
    assert [ask() for _ in range(5)] == [2] * 5
    assert asks(port)() == 2, "the listener is there as well"
    assert any(problem["severity"] == "error" or "last good" in problem["reason"] for problem in world.problems())
    world.stop("serve")
    world.serve()
    wait_until(lambda: json.loads(get(world.admin, "/proxies")), "Envoy to come back", 40)
    wait_until(lambda: world.in_sync() or True, "the proxy")
    assert [ask() for _ in range(5)] == [2] * 5
    assert asks(port)() == 2


def test_a_restart_with_a_broken_file(world):
    port, _ = small_world(world)
    ask = asks(port)
    assert ask() == 2
    world.stop("serve")
    world.write("service", "apiVersion: networking.istio.io/v1\nkind: ServiceEn")
    world.serve()
    wait_until(lambda: json.loads(get(world.admin, "/proxies")), "Envoy to come back", 40)
    world.in_sync()
    assert ask() == 2 and asks(port)() == 2
    assert any("last good ServiceEntry default/echo" in problem["reason"] for problem in world.problems())


def test_half_written_files(world):
    """A file that is open, or was just emptied, still says what it said."""
    port, files = small_world(world)
    world.changed("routes", router(HOST, {"deny": True}))
    ask = asks(port)
    wait_until(lambda: ask() == 3, "the denial")
    path = world.config / "routes.yaml"
    whole = path.read_text()
    with open(path, "w") as file:
        file.write(whole[:whole.index("  routes:")])
        file.flush()
        generation = world.generation()
        # Time for a look, if there were one.
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            assert ask() == 3
        assert world.generation() == generation
        file.write(whole[whole.index("  routes:"):])
    assert ask() == 3
    world.published(lambda: path.write_text(""))
    assert ask() == 3
    wait_until(lambda: ask() == 2, "the file to count as empty")
    assert world.problems() == []


def test_the_folder_is_replaced(world):
    port, _ = small_world(world)
    ask = asks(port)
    new = world.folder / "new"
    new.mkdir()
    for path in world.config.glob("*.yaml"):
        (new / path.name).write_text(path.read_text())
    world.config.rename(world.folder / "old")
    world.published(lambda: new.rename(world.config))
    world.changed("routes", router(HOST, {"deny": True}))
    wait_until(lambda: ask() == 3, "the new route")


def test_no_folder_no_configuration(world):
    """What cannot be read says nothing, least of all that there is nothing."""
    port, _ = small_world(world)
    ask = asks(port)
    assert ask() == 2
    world.stop("serve")
    world.config.rename(world.folder / "away")
    with pytest.raises(TimeoutError):
        world.serve(seconds=3)
    assert any("cannot read the folder" in problem["reason"] for problem in world.problems())
    assert ask() == 2 and asks(port)() == 2
    (world.folder / "away").rename(world.config)
    wait_until(lambda: get(world.admin, "/readyz"), "the control plane", 40)
    wait_until(lambda: json.loads(get(world.admin, "/proxies")), "Envoy to come back", 40)
    world.in_sync()
    assert ask() == 2


def test_endpoint_slices_to_none_and_back(world):
    """As the endpoint slice controller writes them."""
    port = free_port()
    server = Server(per_frame(lambda frame: reply(frame, b"fine")))
    meta = {"name": "echo-1", "labels": {"kubernetes.io/service-name": "echo"}}
    slices = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta, "addressType": "IPv4"}
    kubernetes = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "echo"},
        "spec": {"clusterIP": "127.0.0.1", "ports": [{"name": "rpc", "port": port, "appProtocol": "meltemi.dev/thrift"}]},
    }
    some = slices | {"endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
                     "ports": [{"name": "rpc", "port": server.port, "protocol": "TCP"}]}
    # As `kubectl get -o yaml` gives them.
    world.write("all", {"apiVersion": "v1", "kind": "List", "items": [kubernetes, some], "metadata": {"resourceVersion": ""}})
    world.serve()
    world.envoy(wait_for=[port])
    ask = asks(port)
    assert ask() == 2
    for nothing in ({"endpoints": None, "ports": None}, {"endpoints": [], "ports": [{"name": "rpc", "port": None}]}):
        world.changed("all", kubernetes, slices | nothing)
        assert world.problems() == []
        wait_until(lambda: ask() == 3, "no server to be there")
        world.changed("all", kubernetes, some)
        wait_until(lambda: ask() == 2, "the server")


def test_objects_of_aeraki_are_read_as_they_are(world):
    """Its group beside ours, a weight that is not there, and its way to say "present"."""
    port = free_port()
    one, two = (Server(per_frame(lambda frame: reply(frame, b"fine"))) for _ in range(2))
    world.write("service", service(HOST, port, {one.port: "v1", two.port: "v2"}, protocol="echo"), rule(HOST, "v1", "v2"))
    protocol = {
        "apiVersion": "metaprotocol.aeraki.io/v1alpha1", "kind": "ApplicationProtocol", "metadata": {"name": "echo"},
        "spec": {"protocol": "echo", "codec": "aeraki.meta_protocol.codec.thrift"},
    }
    ours = protocol | {"apiVersion": "meltemi.dev/v1alpha1", "spec": {"protocol": "other", "codec": "thrift"}}
    route = {"match": {"attributes": {"method": {"exact": ""}}}, "route": [to(HOST, "v1"), to(HOST, "v2", 100)]}
    world.write("routes", protocol, ours, router(HOST, route) | {"apiVersion": "metaprotocol.aeraki.io/v1alpha1"})
    world.serve()
    world.envoy(wait_for=[port])
    assert world.problems() == []
    ask = asks(port)
    assert [ask() for _ in range(40)] == [2] * 40
    requests = world.stats("upstream_rq_total")
    counts = {subset: [count for name, count in requests.items()
                      if f"|{subset}|{HOST}" in name and "server|" not in name] for subset in ("v1", "v2")}
    assert counts == {"v1": [0], "v2": [40]}, requests


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
