"""What the control plane tells Envoy, and when: restarts under load, expressions, wrong objects, names."""

import collections
import json
import os
import subprocess
import threading
import urllib.error
import urllib.request

import pytest

from clients import client
from harness import DIST, free_port, get, router, rule, service, to, wait_until
from servers import Server, per_frame
from thrift.Thrift import TApplicationException
from wire import Peer, call, parse, reply, text

HOST = "echo.test"


def version(frame):
    """Which server answered, or the error's kind."""
    got = parse(frame)
    if got["kind"] != 2:
        return f"error {got}"
    return "v1" if b"v1" in frame else "v2"


def ask(port, method="hello"):
    peer = Peer.connect(port)
    peer.send(call(1, method, text(b"x")))
    answer = version(peer.frame())
    peer.close()
    return answer


def two_servers():
    return [Server(per_frame(lambda frame, name=name: reply(frame, name))) for name in (b"v1", b"v2")]


class Load:
    """Calls one after the other on a few connections, and counts who answered."""

    def __init__(self, port, connections=3):
        self.port, self.stopped, self.seen = port, threading.Event(), collections.Counter()
        self.threads = [threading.Thread(target=self.run) for _ in range(connections)]
        for thread in self.threads:
            thread.start()

    def run(self):
        peer = Peer.connect(self.port)
        while not self.stopped.is_set():
            try:
                peer.send(call(1, "hello", text(b"x")))
                self.seen[version(peer.frame())] += 1
            except (OSError, EOFError) as error:
                self.seen[repr(error)] += 1
                return

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join()
        return self.seen


@pytest.mark.parametrize("options", [(), ("--sotw",)], ids=["delta", "sotw"])
def test_a_restart_with_other_routes_fails_no_call(world, options):
    """The new control plane knows nothing of the subset that the proxy still routes to."""
    one, two = two_servers()
    port = free_port()

    def write(subset):
        world.write("all", service(HOST, port, {one.port: "v1", two.port: "v2"}), rule(HOST, subset),
                    router(HOST, {"route": [to(HOST, subset)]}))
    write("v1")
    world.serve()
    world.envoy(*options, wait_for=[port])
    assert ask(port) == "v1"
    load = Load(port)
    for subset in ("v2", "v1", "v2"):
        world.stop("serve")
        write(subset)
        world.serve()
        wait_until(lambda: json.loads(get(world.admin, "/proxies")), "Envoy to come back", 60)
        wait_until(lambda: ask(port) == subset, f"routes to {subset}", 30)
        world.in_sync()
    seen = load.stop()
    assert set(seen) == {"v1", "v2"}, seen
    # What the proxy no longer names is gone.
    gone = f"outbound|{port}|v1|{HOST}"
    wait_until(lambda: gone not in get(world.envoy_admin, "/clusters"), "the old cluster to go")


def test_expressions(world):
    """What `check` lets through, Envoy takes; what Envoy would refuse is found before."""
    port = free_port()
    good = ["|".join(["someMethodName"] * 100), r"\p{Greek}\PL", r"\x{61}[[:alpha:]\d_-]*?", "(a{10}){100}", "(?i:[^/]+)/(?P<x>a|%c3%a9)",
            r"\p{L}{8}", r"(?s:.{300})", r"[^a]{200}", r"\W\S\D\b\B", r"(?i)[a-z]{500}"]
    bad = ["(?x) a", r"\u{61}", r"\p{Alphabetic}", "[a-z&&[^b]]", "a**", "a{,5}", "é", r"\x{100}", r"\p{L}{900}"]
    one, _ = two_servers()

    def route(regex):
        return {"match": {"attributes": {"method": {"regex": regex}}}, "deny": True}
    world.write("all", service(HOST, port, {one.port: "v1"}), router(HOST, *map(route, good), {"route": [to(HOST)]}))
    world.serve()
    world.envoy(wait_for=[port])
    world.in_sync()
    assert (world.problems(), world.refused()) == ([], [])
    assert ask(port) == "v1"
    assert "error" in ask(port, "someMethodName")
    world.changed("all", service(HOST, port, {one.port: "v1"}), router(HOST, *map(route, bad), {"route": [to(HOST)]}))
    reasons = [problem["reason"] for problem in world.problems() if problem["severity"] == "error"]
    assert len(reasons) == len(bad) and all("regex" in reason for reason in reasons), reasons
    assert world.refused() == []


def test_a_wrong_route_does_not_let_its_requests_through(world):
    port = free_port()
    one, _ = two_servers()
    world.write("all", service(HOST, port, {one.port: "v1"}), router(
        HOST, {"match": {"attributes": {"method": {"exact": "secret"}}}, "route": [to("lost.test")]}, {"route": [to(HOST)]}))
    world.serve()
    world.envoy(wait_for=[port])
    assert "error" in ask(port, "secret")
    assert ask(port) == "v1"
    assert [problem["field"] for problem in world.problems()] == ["spec.routes[0].route[0].destination.host"]


@pytest.mark.parametrize("options", [(), ("--sotw",)], ids=["delta", "sotw"])
def test_endpoints_and_control_plane_by_name(world, options):
    port = free_port()
    one, _ = two_servers()
    entry = service(HOST, port, {one.port: "v1"})
    entry["spec"]["resolution"] = "DNS"
    entry["spec"]["endpoints"][0]["address"] = "localhost"
    world.write("all", entry)
    world.serve()
    bootstrap = subprocess.run([DIST / "meltemi", "bootstrap", "--xds", f"localhost:{world.xds}", "--node", "n", *options],
                               check=True, capture_output=True, text=True).stdout
    world.static_envoy(bootstrap, wait_for=[port])
    wait_until(lambda: ask(port) == "v1", "localhost")


def test_rules_cannot_be_avoided_by_odd_values(world):
    """Whatever is in a header, it stands under its one name."""
    port, one = free_port(), free_port()
    world.thrift_server("v1", one, "header")

    def deny(**condition):
        return {"match": {"attributes": condition}, "deny": True}
    world.write("all", service(HOST, port, {one: "v1"}), router(
        HOST, deny(debug={"present": True}), deny(user={"regex": ".*admin.*"}), deny(role={"prefix": "rööt"}), {"route": [to(HOST)]}))
    world.serve()
    world.envoy(wait_for=[port])

    def call_with(**headers):
        with client(port, "header", headers=headers) as demo:
            try:
                return demo.hello("x")
            except TApplicationException:
                return "denied"
    assert call_with() == call_with(user="me") == call_with(role="röt") == "v1: hello x"
    for headers in ({"debug": "1"}, {"debug": "é"}, {"debug": " 1"}, {"debug": ""}, {"user": "xadminx"}, {"user": "admin "},
                    {"user": "é admin"}, {"role": "rööt"}, {"role": "rööté "}):
        assert call_with(**headers) == "denied", headers


def test_resources_are_shown(world):
    port = free_port()
    one, _ = two_servers()
    world.write("all", service(HOST, port, {one.port: "v1"}), rule(HOST, "v1"))
    world.serve()
    everything = json.loads(get(world.admin, "/resources"))
    assert set(everything) == {"Secret", "Cluster", "Endpoints", "Listener", "ExtensionConfig", "Route"}
    filters = everything["Listener"][0]["content"]["filter_chains"][0]["filters"]
    assert filters[1]["typed_config"]["http_filters"][-1]["typed_config"]["suppress_envoy_headers"] is True
    name = urllib.request.quote(f"outbound|{port}|v1|{HOST}")
    one_only = json.loads(get(world.admin, f"/resources?type=cluster&name={name}"))
    assert [resource["content"]["connect_timeout"] for resource in one_only["Cluster"]] == ["10s"]
    assert one_only["Cluster"][0]["content"]["upstream_config"]["typed_config"]["bridge_config"]["value"]["version"] == 1
    assert len(one_only) == 1
    with pytest.raises(urllib.error.HTTPError):
        get(world.admin, "/resources?type=nonsense")
    with urllib.request.urlopen(f"http://127.0.0.1:{world.admin}/metrics") as answer:
        assert answer.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        assert answer.read().endswith(b"# EOF\n")


def test_output_that_cannot_be_written():
    """Nobody reads on, as behind `| head`: that is said by the exit code alone. A full disk is said aloud."""
    def crds(stdout):
        done = subprocess.run([DIST / "meltemi", "crds"], stdout=stdout, stderr=subprocess.PIPE, text=True)
        return done.returncode, done.stderr
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as closed, open("/dev/full", "w") as full:
        assert crds(closed) == (141, "")
        code, said = crds(full)
    assert code == 2 and "No space left on device" in said, said
