"""Proxies older than Istio 1.31 run our filters in Wasm, others in the module: both in one STRICT mesh, tcp shape."""

import contextlib
import hashlib
import http.server
import itertools
import threading

import pytest
from thrift.transport.TTransport import TTransportException

import controller as control
import registry
import setup
from calls import call, eventually
from clients import client
from echo import BOTH
from harness import DIST, wait_until
from load import in_threads
from objects import destination_rule, host_of, meta_router, to
from oci_archive import Image, make
from steady import Steady

PORT = 9090
NAMED = "tcp-metaprotocol-thrift"
PLUGIN = DIST / "meltemi.wasm"
# Istio 1.28 runs on Envoy 1.36, 1.29 on 1.37. 1.38 is not there with Wasm.
OLD = {"1.39.3": ("1.29.0", "1.37.0"), "1.40.0": ("1.28.1", setup.OLDEST)}
CLIENTS = ["module", "wasm"]
NUMBERS = itertools.count()


class Plugins(control.Controller):
    """Our control plane, told where proxies find the plugin."""

    def find(self, *place):
        self.options = ("--stock-envoy", "--wasm", *place)
        return self


@pytest.fixture(scope="module")
def controller(bed):
    control.prepare(bed)
    if not PLUGIN.exists():
        pytest.skip(f"SKIPPED the plugins in a mesh: no {PLUGIN.name} (make wasm)")
    controller = Plugins(bed).find(PLUGIN).start()
    yield controller
    controller.stop()


@pytest.fixture(scope="module")
def wasm(envoy):
    """Options of a pod whose sidecar is of an older Istio."""
    version, of = OLD[envoy.parents[2].name]

    def options(**labels) -> dict:
        return {"module": None, "istio_version": version, "envoy": setup.envoy(of), "labels": {"meltemi.dev/wasm": "1"} | labels}
    return options


@pytest.fixture(scope="module")
def echo(controller, space, wasm):
    """The server v1 has the module, v2 the plugin."""
    space.start({"module": {}, "wasm": wasm(app="wasm"), "plain": {"module": None},
                 "v1": {"labels": {"app": "echo", "version": "v1"}}, "v2": wasm(app="echo", version="v2")})
    for version in ("v1", "v2"):
        space.pods[version].thrift_server(PORT)
    service = space.service("echo", {"app": "echo"}, [{"name": NAMED, "port": PORT}])
    space.apply(destination_rule("echo", service.host, "v1", "v2"))
    for name in ("module", "wasm", "v1", "v2"):
        space.pods[name].takes(service.host, PORT)
    space.pods["wasm"].has(f"hop|outbound|{PORT}|v2|{service.host}")
    for name in CLIENTS:
        eventually(space.pods[name], service.ip, PORT, lambda seen: set(seen) <= BOTH, count=20)
    return service


def leads(space, echo, applied, version: str, **more):
    """All calls go to one version, and callers know: in Wasm a caller's first calls may all go to one anyway."""
    name = f"to-{version}-{next(NUMBERS)}"
    applied(meta_router("echo", echo.host, {"name": name, "route": [to(echo.host, version)]} | more))
    for caller in CLIENTS:
        space.pods[caller].has(f'"name": "{name}"')


def refused(space) -> dict:
    """What any sidecar has refused of its configuration."""
    return {name: pod.rejected() for name, pod in space.pods.items() if "agent" in pod.processes and pod.rejected()}


@pytest.mark.parametrize("server", ["v1", "v2"])
@pytest.mark.parametrize("caller", CLIENTS)
def test_every_mix(space, echo, applied, caller, server):
    leads(space, echo, applied, server)
    assert set(call(space.pods[caller], echo.ip, PORT, count=250)) == {f"{server}: hello x"}
    assert refused(space) == {}


def test_pods_with_neither(space, echo):
    seen = call(space.pods["plain"], echo.ip, PORT, count=10)
    assert len(seen) == 1 and set(seen) <= BOTH, "TCP: one server a connection"


def test_routes_by_call(space, echo, applied):
    """On one connection: by method, by weight. What is denied, late or faulty fails in the protocol."""
    me, both = space.pods["wasm"], {"route": [to(echo.host, "v1", 20), to(echo.host, "v2", 80)]}

    def slow(**more) -> dict:
        return {"match": {"attributes": {"method": {"exact": "slow"}}}, "route": [to(echo.host, "v1")], **more}
    for more, said in ((dict(deny=True), "denied"), (dict(timeout="0.2s"), "timeout"),
                       (dict(fault={"abort": {"percentage": {"value": 100}}}), "fault")):
        applied(meta_router("echo", echo.host, slow(**more), both))
        eventually(me, echo.ip, PORT, lambda seen, said=said: said in next(iter(seen)).lower(), method="slow", argument=1000)
        seen = call(me, echo.ip, PORT, count=400)
        assert set(seen) == BOTH and 0.70 < seen["v2: hello x"] / 400 < 0.90, seen
    applied(meta_router("echo", echo.host, slow(timeout="5s"), both))
    eventually(me, echo.ip, PORT, {"v1: slept 1"}, method="slow", argument=1)


def fired(space, version: str, what: str) -> int:
    return space.pods[version].log(f"thrift-{PORT}").count(f"fire {what}\n")


def test_one_way_calls_are_delivered(space, echo, applied):
    leads(space, echo, applied, "v2")
    me = space.pods["wasm"]
    with me.dialed(client(PORT, address=echo.ip)) as demo:
        for _ in range(20):
            demo.fire("plugin")
        assert demo.hello("x") == "v2: hello x"
    wait_until(lambda: fired(space, "v2", "plugin") == 20, "what was fired")


def test_limits_are_counted_at_the_server(space, echo, applied):
    """In its plugin, whoever the caller is."""
    bucket = {"maxTokens": 3, "tokensPerFill": 1, "fillInterval": "600s"}
    host = host_of("limited", space)
    applied(meta_router("limited", host, {"route": [to(host)]}, localRateLimit={"tokenBucket": bucket}))
    space.pods["v2"].thrift_server(PORT + 1)
    service = space.service("limited", {"app": "echo", "version": "v2"}, [{"name": NAMED, "port": PORT + 1}])
    space.pods["v2"].has(f"meltemi.wasm.hcm.in.{service.host}:{PORT + 1}")
    for name in CLIENTS:
        space.pods[name].has(f".out.{service.host}:{PORT + 1}")
        eventually(space.pods[name], service.ip, PORT + 1, lambda seen: any("limit" in text for text in seen), count=10)


def test_mirror(space, echo, applied):
    me = space.pods["wasm"]
    leads(space, echo, applied, "v1", mirror={"host": echo.host, "subset": "v2"})
    with me.dialed(client(PORT, address=echo.ip)) as demo:
        for _ in range(20):
            demo.fire("a copy")
        assert demo.hello("x") == "v1: hello x"
    for version in ("v1", "v2"):
        wait_until(lambda version=version: fired(space, version, "a copy") == 20, f"what was fired at {version}")


def test_a_pod_that_is_gone_is_retried_around(space, echo, wasm):
    """Kubernetes has not noticed yet. Nobody has to say anything for that."""
    space.start({"stays": wasm(app="stays", **{"half-gone": "yes"}), "goes": {"labels": {"app": "goes", "half-gone": "yes"}}})
    for name in ("stays", "goes"):
        space.pods[name].thrift_server(PORT + 2)
    service = space.service("half-gone", {"half-gone": "yes"}, [{"name": NAMED, "port": PORT + 2}])
    me = space.pods["wasm"]
    me.has(f"hop|outbound|{PORT + 2}||{service.host}")
    seen = set()
    eventually(me, service.ip, PORT + 2, lambda more: seen.update(more) or seen == {"stays: hello x", "goes: hello x"}, count=1)
    space.pods["goes"].end("agent")
    for _ in range(10):
        assert set(call(me, service.ip, PORT + 2, count=120)) == {"stays: hello x"}


def test_two_services_on_one_port(space, echo, applied):
    """Nothing of theirs collides in a server's sidecar."""
    twin = space.service("twin", {"app": "echo"}, [{"name": NAMED, "port": PORT + 6, "targetPort": PORT}])
    space.pods["v2"].has(f"hop|inbound|{PORT}||{twin.host}:{PORT + 6}")
    leads(space, echo, applied, "v2")
    for name in CLIENTS:
        space.pods[name].has(f".out.{twin.host}:{PORT + 6}")
        eventually(space.pods[name], twin.ip, PORT + 6, lambda seen: set(seen) <= BOTH, count=20)
        assert set(call(space.pods[name], echo.ip, PORT, count=20)) == {"v2: hello x"}
    assert refused(space) == {}


def test_headless(space, echo, applied):
    """Pods by their own addresses."""
    port = PORT + 3
    for version in ("v1", "v2"):
        space.pods[version].thrift_server(port)
    service = space.service("headless", {"app": "echo"}, [{"name": NAMED, "port": port}], clusterIP="None")
    me = space.pods["wasm"]
    for version in ("v1", "v2"):
        ip = space.pods[version].ip
        wait_until(lambda ip=ip: f"meltemi.wasm.hcm.out.{service.host}:{port}" in str(me.listener(f"{ip}_{port}")), f"listener of {ip}")
        eventually(me, ip, port, {f"{version}: hello x"}, count=20)
        assert set(call(me, ip, port, count=50)) == {f"{version}: hello x"}


def test_a_route_to_a_port_of_the_native_shape(space, echo, applied):
    space.pods["v1"].thrift_server(PORT + 4)
    native = space.service("native", {"version": "v1"}, [{"name": "rpc", "port": PORT + 4, "appProtocol": "meltemi.dev/thrift"}])
    applied(meta_router("echo", echo.host, {"route": [{"destination": {"host": native.host, "port": {"number": PORT + 4}}}]}))
    for name in CLIENTS:
        eventually(space.pods[name], echo.ip, PORT, {"v1: hello x"}, count=20)
    space.pods["wasm"].has(f"hop|outbound|{PORT + 4}||{native.host}")
    assert set(call(space.pods["wasm"], echo.ip, PORT, count=50)) == {"v1: hello x"}


def test_connection_mode(space, echo, applied, envoy):
    """From Istio 1.29 on: in older proxies such a port stays what it was."""
    port, me = PORT + 5, space.pods["wasm"]
    has_relay = OLD[envoy.parents[2].name][0] >= "1.29"
    for version in ("v1", "v2"):
        space.pods[version].thrift_server(port)
    service = space.service("relayed", {"app": "echo"}, [{"name": NAMED, "port": port}],
                            annotations={f"meltemi.dev/mode.{port}": "connection"})
    space.apply(destination_rule("relayed", service.host, "v1", "v2"))
    for version in ("v1", "v2"):
        applied(meta_router("relayed", service.host, {"route": [to(service.host, version)]}))
        for name in CLIENTS if has_relay else ["module"]:
            eventually(space.pods[name], service.ip, port, {f"{version}: hello x"}, count=20)
    if has_relay:
        me.has(f"meltemi.wasm.relay.out.{space.name}.relayed.{port}")
    else:
        assert set(call(me, service.ip, port, count=20)) <= BOTH
        assert f".relay.out.{space.name}.relayed" not in me.admin("/config_dump")


def test_changes_under_load(space, echo, applied):
    """Routes and subsets come and go, and with them listeners and clusters of the hops: no call fails."""
    port, me = PORT + 8, space.pods["wasm"]
    for version in ("v1", "v2"):
        space.pods[version].thrift_server(port, transport="header")
    service = space.service("loaded", {"app": "echo"}, [{"name": NAMED, "port": port}])

    def subsets(*more: str):
        applied(destination_rule("loaded", service.host, "v1", "v2", *more))
    subsets()
    me.has(f"hop|outbound|{port}|v2|{service.host}")
    load = Steady(me, service.ip, port)
    try:
        load.settles("v1", "v2")
        for _ in range(2):
            for version in ("v1", "v2"):
                applied(meta_router("loaded", service.host, {"route": [to(service.host, version)]}))
                load.settles(version)
                subsets("v3")
                me.has(f"hop|outbound|{port}|v3|{service.host}")
                load.more(500)
                subsets()
                me.lacks(f"hop|outbound|{port}|v3|{service.host}")
                load.more(500)
    finally:
        load.end()
    assert set(load.seen) == {"v1", "v2"}, load.seen
    assert me.rejected() == {}


def test_without_the_control_plane(space, echo, applied, controller, wasm):
    """Routes stay where they are, a new sidecar starts with the service itself, and no call fails."""
    me = space.pods["wasm"]
    leads(space, echo, applied, "v2")
    controller.stop()
    try:
        for _ in range(10):
            assert set(call(me, echo.ip, PORT, count=10)) == {"v2: hello x"}
        late = space.pod("late", **wasm(app="late"))
        assert set(call(late, echo.ip, PORT, count=20)) <= BOTH
    finally:
        controller.start()
    assert set(call(me, echo.ip, PORT, count=20)) == {"v2: hello x"}


def test_a_label_too_many_does_no_harm(space, echo, applied, wasm):
    """While a fleet is upgraded its pods may say both: the proxy's version decides."""
    leads(space, echo, applied, "v1")
    both = {"meltemi.dev/wasm": "1", "meltemi.dev/module": "1"}
    space.start({"both-new": {"labels": {"app": "both-new"} | both}, "both-old": wasm(app="both-old", **both)})
    for name in ("both-new", "both-old"):
        space.pods[name].takes(echo.host, PORT)
        eventually(space.pods[name], echo.ip, PORT, {"v1: hello x"}, count=20)
    assert "hop|" not in space.pods["both-new"].admin("/config_dump")
    assert "dynamic_module_config" not in space.pods["both-old"].admin("/config_dump")


class Plugin(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(PLUGIN.read_bytes())

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def served(bed):
    """The plugin on an HTTP server of the bed's; gives its URL."""
    with http.server.ThreadingHTTPServer((bed.host, 0), Plugin) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{bed.host}:{server.server_address[1]}/meltemi.wasm"
        server.shutdown()


@pytest.mark.skipif(not setup.dubbo_classpath().exists(),
                    reason="SKIPPED the Dubbo parts: java and mvn were not there when `make setup` ran")
def test_java_dubbo(space, echo, applied):
    """Two-way, by attachment, and what is denied fails in the protocol."""
    port, me = 20880, space.pods["wasm"]
    in_threads(lambda version: space.pods[version].dubbo_server(port), ("v1", "v2"))
    service = space.service("demo", {"app": "echo"}, [{"name": "tcp-metaprotocol-dubbo", "port": port}])
    applied(destination_rule("demo", service.host, "v1", "v2"), meta_router(
        "demo", service.host, {"match": {"attributes": {"method": {"exact": "place"}}}, "deny": True, "route": [to(service.host)]},
        {"match": {"attributes": {"env": {"exact": "gray"}}}, "route": [to(service.host, "v2")]}, {"route": [to(service.host, "v1")]}))
    for name, host in (("wasm", "wasm."), ("module", "")):
        space.pods[name].has(f"meltemi.{host}hcm.out.{service.host}:{port}")
        space.pods[name].has(f"outbound|{port}|v2|{service.host}")
    for caller in CLIENTS:
        def gray(me=space.pods[caller]):
            got = me.dubbo_calls(service.ip, port, "hello", "many=50", "place", "slow=20", attach="env=gray")
            return got if "served-by=v2" in got["hello"] else None
        got = wait_until(gray, f"an answer of v2 in {caller}", 60)
        assert got["many=50"] == "50 calls" and got["slow=20"] == "slept 20", got
        assert got["place"].startswith("EXC org.apache.dubbo.rpc.RpcException") and "denied" in got["place"], got
    assert "served-by=v1" in me.dubbo_calls(service.ip, port, "hello", attach="env=red")["hello"]


def test_code_over_http(space, echo, applied, bed, controller, wasm):
    """Fetched by Istio's agent, which compares the hash."""
    sha256 = hashlib.sha256(PLUGIN.read_bytes()).hexdigest()
    leads(space, echo, applied, "v1")
    with served(bed) as url, told(controller, url, "--wasm-sha256", sha256):
        fetches(space, echo, wasm, "http")


def test_code_with_another_hash(space, echo, applied, bed, controller, wasm):
    """Pods keep the plugin that they have. The ports of new ones that need it let nobody in; all others work."""
    plain = space.service("bare", {"app": "echo"}, [{"name": "tcp-bare", "port": PORT + 7, "targetPort": PORT}])
    leads(space, echo, applied, "v2")
    with served(bed) as url, told(controller, url, "--wasm-sha256", "0" * 64):
        pod = space.pod("wrong", **wasm(app="wrong"))
        pod.has(f"hop|outbound|{PORT}||{echo.host}")
        said = "cannot fetch Wasm module"
        for old in (pod, space.pods["wasm"], space.pods["v2"]):
            wait_until(lambda old=old: said in old.log("agent"), f"the agent of {old.name} to say what is wrong")
        with pytest.raises((OSError, EOFError, TTransportException)):
            call(pod, echo.ip, PORT)
        eventually(pod, plain.ip, PORT + 7, lambda seen: set(seen) <= BOTH, count=5)
        assert set(call(space.pods["wasm"], echo.ip, PORT, count=20)) == {"v2: hello x"}


@pytest.mark.parametrize("by", ["tag", "digest"])
def test_code_from_a_registry(space, echo, applied, bed, controller, wasm, tmp_path, by):
    """An image, fetched by Istio's agent."""
    if reason := registry.obstacle():
        pytest.skip(f"SKIPPED a registry: {reason}")
    leads(space, echo, applied, "v1")
    archive = tmp_path / "plugin.tar"
    make("plugin.py", "--wasm", PLUGIN, "--out", archive)
    with registry.Registry(tmp_path / "registry.log", bed.host) as store:
        image = store.push(archive, "meltemi-wasm:test")
        if by == "digest":
            image = f"{image.removesuffix(':test')}@{Image(archive).descriptor['digest']}"
        with told(controller, f"oci://{image}"):
            fetches(space, echo, wasm, f"image-by-{by}", WASM_INSECURE_REGISTRIES=store.name)


@contextlib.contextmanager
def told(controller, *place: str):
    """The control plane names another place of the plugin meanwhile."""
    controller.stop()
    controller.find(*place).start()
    try:
        yield
    finally:
        controller.stop()
        controller.find(PLUGIN).start()


def fetches(space, echo, wasm, name: str, **metadata: str):
    """A new pod `name` finds the plugin there."""
    pod = space.pod(name, **wasm(app=name), proxy_metadata=metadata)
    pod.takes(echo.host, PORT)
    eventually(pod, echo.ip, PORT, {"v1: hello x"}, count=20)
    assert pod.rejected() == {}
