"""Gateways: calls from outside the mesh, routed one by one by Istio's own objects."""

import ssl
import subprocess
from contextlib import contextmanager

import pytest
from thrift.protocol.TBinaryProtocol import TBinaryProtocol
from thrift.transport.TSSLSocket import TSSLSocket
from thrift.transport.TTransport import TFramedTransport, TTransportException

import setup
from authority import Authority
from calls import call, eventually, one
from clients import client
from echo import two_versions
from harness import DIST, wait_until
from objects import NETWORKING, authorization, destination_rule, meta_router, to, virtual_service
from peer import Demo
from processes import sh

PORT, TCP, DUBBO = 9091, 9092, 20880
# Of the Service in front of the gateway, and what it is in pods.
FRONT, INSIDE = 9090, 19090
MESH_HOST, OLD, BRIEF, API, TLS, TCP_SHAPE = range(9301, 9307)
HOST = "rpc.test"


def thrift():
    return [{"name": "thrift", "port": PORT, "appProtocol": "meltemi.dev/thrift"}]


def server(port: int, host: str, protocol="HTTP", **more) -> dict:
    return {"port": {"number": port, "name": f"{protocol.lower()}-{port}", "protocol": protocol}, "hosts": [host], **more}


def gateway(name: str, labels: dict, *servers: dict, codec: str | None = "thrift") -> dict:
    """Istio's."""
    annotations = {"meltemi.dev/codec": codec} if codec else {}
    return {"apiVersion": NETWORKING, "kind": "Gateway", "metadata": {"name": name, "annotations": annotations},
            "spec": {"selector": labels, "servers": list(servers)}}


def behind(gateway: str, name: str, host: str, *routes: dict) -> dict:
    item = virtual_service(name, host, *routes)
    item["spec"]["gateways"] = [gateway]
    return item


def on(method: str, *destinations: dict) -> dict:
    return {"match": [{"uri": {"exact": f"/{method}"}}], "route": list(destinations)}


@pytest.fixture(scope="module")
def labels(space):
    """Of the gateway's pods: gateways are for pods of all namespaces."""
    return {"gateway": space.name}


@pytest.fixture(scope="module")
def echo(controller, space, labels):
    """Service `echo` and a server without the module, both behind a gateway whose pods are `edge`, and `bare` without the module.
    The client is outside the mesh."""
    proxy = {"gateway": True, "labels": labels}
    service = two_versions(space, PORT, thrift(), outside={"sidecar": False},
                           edge=proxy, bare=proxy | {"module": None}, old={"module": None})
    space.pods["old"].thrift_server(PORT)
    old = space.service("old", {"app": "old"}, thrift())
    space.service("front", labels, [{"name": "rpc", "port": FRONT, "targetPort": INSIDE}])
    space.apply(
        gateway("edge", labels, server(FRONT, HOST), server(MESH_HOST, service.host), server(OLD, "old.test")),
        destination_rule("echo", service.host, "v1", "v2"),
        behind("edge", "edge", HOST, on("slow", to(service.host, "v2")), on("hello", to(service.host, "v1"))),
        behind("edge", "old", "old.test", {"route": [to(old.host)]}))
    space.pods["edge"].has(f"meltemi.inlet.gateway.{space.name}.edge.0")
    return service


def test_each_call_of_a_connection_is_routed(space, echo):
    me, edge = space.pods["outside"], space.pods["edge"]
    eventually(me, edge.ip, INSIDE, {"v1: hello x"})
    with me.dialed(client(INSIDE, address=edge.ip)) as demo:
        assert [one(demo), one(demo, "slow", 1), one(demo)] == ["v1: hello x", "v2: slept 1", "v1: hello x"]
    for name, authority, cluster in (("edge", f"{HOST}:{FRONT}", f"outbound|{PORT}|v2|{echo.host}"),
                                     ("v2", f"{echo.host}:{PORT}", f"inbound|{PORT}||")):
        line = wait_until(lambda name=name: [one for one in space.pods[name].access_log() if one["path"] == "/slow"], "access log")[-1]
        assert (line["response_code"], line["authority"], line["upstream_cluster"]) == (200, authority, cluster)
    assert {name: pod.rejected() for name, pod in space.pods.items() if pod.envoy and pod.rejected()} == {}


def test_what_has_no_route_is_answered_in_the_protocol(space, echo):
    [answer] = call(space.pods["outside"], space.pods["edge"].ip, INSIDE, method="crash")
    assert answer.startswith("1: "), f"UNKNOWN_METHOD, not {answer}"


def test_a_server_without_the_module(space, echo):
    eventually(space.pods["outside"], space.pods["edge"].ip, OLD, {"old: hello x"})


def test_policy_by_method(space, echo, labels, applied):
    me, edge = space.pods["outside"], space.pods["edge"]
    applied(authorization("no-slow", "DENY", labels, {"to": [{"operation": {"paths": ["/slow"]}}]}))
    eventually(me, edge.ip, INSIDE, {"6: RBAC: access denied"}, method="slow", argument=1)
    assert set(call(me, edge.ip, INSIDE)) == {"v1: hello x"}


def test_meta_router_for_sidecars_and_a_gateway(space, echo, applied):
    item = meta_router("echo", echo.host, {"match": {"attributes": {"method": {"exact": "slow"}}}, "route": [to(echo.host, "v2")]},
                       {"route": [to(echo.host, "v1")]}, gateways=["edge"])
    applied(item)
    for pod, address, port in (("outside", space.pods["edge"].ip, MESH_HOST), ("client", echo.ip, PORT)):
        eventually(space.pods[pod], address, port, {"v1: hello x"}, count=10)
        assert set(call(space.pods[pod], address, port, method="slow", argument=1, count=5)) == {"v2: slept 1"}


def test_meta_router_of_the_tcp_shape(space, echo, labels, applied):
    for version in ("v1", "v2"):
        space.pods[version].thrift_server(TCP)
    service = space.service("bills", {"app": "echo"}, [{"name": "tcp-metaprotocol-thrift", "port": TCP}])
    routes = {"match": {"attributes": {"method": {"exact": "slow"}}}, "route": [to(service.host, "v2")]}, {"route": [to(service.host, "v1")]}
    applied(gateway("bills", labels, server(TCP_SHAPE, service.host)), destination_rule("bills", service.host, "v1", "v2"),
            meta_router("bills", service.host, *routes, gateways=["bills"]))
    for pod, address, port in (("outside", space.pods["edge"].ip, TCP_SHAPE), ("client", service.ip, TCP)):
        eventually(space.pods[pod], address, port, {"v1: hello x"}, count=10)
        eventually(space.pods[pod], address, port, {"v2: slept 1"}, method="slow", argument=1, count=5)


def test_http_route_of_a_gateway_of_the_gateway_api(space, echo, labels, applied):
    for version in ("v1", "v2"):
        space.service(f"echo-{version}", {"app": "echo", "version": version}, thrift())
    space.service("front-api", labels, [{"name": "rpc", "port": API, "targetPort": API + 10_000}])
    group = "gateway.networking.k8s.io/v1"

    def rule(service: str, **match) -> dict:
        return match | {"backendRefs": [{"name": service, "port": PORT}]}
    applied({"apiVersion": group, "kind": "Gateway", "metadata": {"name": "api", "annotations": {"meltemi.dev/codec": "thrift"}},
             "spec": {"gatewayClassName": "istio", "listeners": [{"name": "rpc", "port": API, "protocol": "HTTP"}],
                      "addresses": [{"type": "Hostname", "value": f"front-api.{space.name}.svc.cluster.local"}]}},
            {"apiVersion": group, "kind": "HTTPRoute", "metadata": {"name": "api"},
             "spec": {"parentRefs": [{"name": "api"}], "rules": [
                 rule("echo-v2", matches=[{"path": {"type": "Exact", "value": "/slow"}}]), rule("echo-v1")]}})
    me, edge = space.pods["outside"], space.pods["edge"]
    eventually(me, edge.ip, API + 10_000, {"v1: hello x"})
    assert set(call(me, edge.ip, API + 10_000, method="slow", argument=1, count=5)) == {"v2: slept 1"}


@contextmanager
def over_tls(port: int, address: str, authority: Authority):
    context = ssl.create_default_context(cafile=authority.path)
    context.check_hostname = False
    transport = TFramedTransport(TSSLSocket(address, port, ssl_context=context, server_hostname="secure.test",
                                            validate_callback=lambda certificate, name: None))
    transport.open()
    try:
        yield Demo.Client(TBinaryProtocol(transport))
    finally:
        transport.close()


def test_tls_ends_at_the_gateway(space, echo, labels, applied):
    me, edge = space.pods["outside"], space.pods["edge"]
    authority = Authority(edge.folder)
    files = authority.issue("secure")
    sh("chown", "1337:1337", *files)
    tls = {"mode": "SIMPLE", "serverCertificate": str(files[0]), "privateKey": str(files[1])}
    applied(gateway("secure", labels, server(TLS, "secure.test", "HTTPS", tls=tls)),
            behind("secure", "secure", "secure.test", {"route": [to(echo.host, "v1")]}))

    def answer():
        try:
            with me.dialed(over_tls(TLS, edge.ip, authority)) as demo:
                return one(demo) == "v1: hello x"
        except (OSError, EOFError, TTransportException):
            return False
    wait_until(answer, "a call in TLS", 30)


@pytest.mark.skipif(not setup.dubbo_classpath().exists(), reason="SKIPPED Dubbo: java and mvn were not there when `make setup` ran")
def test_dubbo(space, echo, labels, applied):
    space.pods["v1"].dubbo_server(DUBBO)
    service = space.service("dubbo", {"app": "echo", "version": "v1"},
                            [{"name": "dubbo", "port": DUBBO, "appProtocol": "meltemi.dev/dubbo"}])
    applied(gateway("dubbo", labels, server(DUBBO, "*"), codec="dubbo"),
            behind("dubbo", "dubbo", "*", {"match": [{"uri": {"exact": "/peer.Demo/hello"}}], "route": [to(service.host)]}))
    me, edge = space.pods["outside"], space.pods["edge"]
    edge.has(f"meltemi.inlet.gateway.{space.name}.dubbo.0")
    space.pods["v1"].has(f"meltemi.inlet.in.{space.name}.dubbo.{DUBBO}")

    def answers():
        found = me.dubbo_calls(edge.ip, DUBBO, "hello", "slow=1")
        return found if "served-by=v1" in found["hello"] else None
    found = wait_until(answers, "a call of Dubbo", 60)
    assert "forwarded" not in found["hello"] and "envoy" not in found["hello"], "what a gateway tells servers of HTTP is in no attachment"
    assert found["slow=1"].startswith("EXC"), found


def test_a_gateway_without_the_module_is_as_without_us(space, echo):
    bare = space.pods["bare"]
    configured = bare.config("dynamic_listeners"), bare.config("dynamic_active_clusters")
    assert bare.rejected() == {} and "meltemi" not in str(configured)
    answer = space.pods["outside"].run("curl", "-si", "-H", f"host: {HOST}", f"{bare.ip}:{INSIDE}/nowhere").stdout
    assert answer.startswith("HTTP/1.1 404") and "istio-envoy" in answer, answer


def test_without_the_annotation_it_is_http_again(space, echo, labels):
    edge, me = space.pods["edge"], space.pods["outside"]
    brief = gateway("brief", labels, server(BRIEF, "*"))
    space.apply(brief, behind("brief", "brief", "*", {"route": [to(echo.host, "v1")]}))
    eventually(me, edge.ip, BRIEF, {"v1: hello x"})
    space.apply(gateway("brief", labels, server(BRIEF, "*"), codec=None))
    edge.lacks("meltemi.inlet.gateway." + space.name + ".brief")
    wait_until(lambda: me.run("curl", "-si", f"{edge.ip}:{BRIEF}/").stdout.startswith("HTTP/1.1"), "HTTP", 20)
    eventually(me, edge.ip, INSIDE, {"v1: hello x"})


def test_check_knows_gateways(bed, space, echo):
    told = subprocess.run([DIST / "meltemi", "istio", "plan", "--kubeconfig", bed.kubeconfig], capture_output=True, text=True).stdout
    part = told.split(f"Gateway {space.name}/edge:{FRONT}")[1].split("\nGateway")[0]
    for words in ("thrift, shape native", f"host name {HOST}:{FRONT}", f"workload: {space.name}/edge",
                  f"writes: EnvoyFilter istio-system/meltemi-gateway-{space.name}-edge"):
        assert words in part, part
    assert f"Gateway {space.name}/edge: spec.selector: 1 of its pods have no module" in told and "(bare)" in told
