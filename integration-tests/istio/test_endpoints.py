"""Where a service's endpoints come from, on both shapes: names that proxies resolve, nowhere, and a Sidecar that says its pod's own ports."""

import pathlib

import pytest

from calls import call, eventually
from objects import authorization, meta_router, service_entry, to, virtual_service

PORT = 9090
SHAPES = ["native", "tcp"]
NAMES = {"native": "rpc", "tcp": "tcp-metaprotocol-thrift"}


@pytest.fixture(scope="module")
def pods(controller, space):
    """The pod `vm` is of no Service, `outside` is of no mesh. The client's resolver knows a name of both."""
    space.start({"client": {}, "vm": {"labels": {"app": "vm"}}, "outside": {"sidecar": False}})
    for name in ("vm", "outside"):
        space.pods[name].thrift_server(PORT)
    with (pathlib.Path("/etc/netns") / space.pods["client"].netns / "hosts").open("a") as hosts:
        hosts.writelines(f"{space.pods[name].ip} {name}.example.test\n" for name in ("vm", "outside"))
    return space.pods


def entry(shape: str, name: str, number: int, **spec) -> dict:
    ports = [{"name": NAMES[shape], "number": number, "targetPort": PORT} | ({"protocol": "TCP"} if shape == "tcp" else {})]
    return service_entry(name, f"{name}.test", number, PORT, ports=ports, **spec)


def refuses_slow(shape: str, host: str) -> dict:
    """So that calls are seen to be routed one by one at the caller."""
    name = host.partition(".")[0]
    if shape == "tcp":
        return meta_router(name, host, {"match": {"attributes": {"method": {"exact": "slow"}}}, "deny": True}, {"route": [to(host)]})
    abort = {"abort": {"httpStatus": 403, "percentage": {"value": 100}}}
    return virtual_service(name, host, {"match": [{"uri": {"exact": "/slow"}}], "route": [to(host)], "fault": abort}, {"route": [to(host)]})


def routed(pod, address: str, number: int, server: str):
    def refused(seen) -> bool:
        return all(text.startswith("6: ") and ("denied" in text or "fault" in text) for text in seen)
    eventually(pod, address, number, refused, method="slow", argument=1, count=5)
    assert set(call(pod, address, number, count=5)) == {f"{server}: hello x"}


@pytest.mark.parametrize("resolution", ["DNS", "DNS_ROUND_ROBIN"])
@pytest.mark.parametrize("shape", SHAPES)
def test_endpoints_by_name(space, pods, applied, shape, resolution):
    """In the mesh and out of it."""
    me, number = pods["client"], PORT + 10 + 4 * SHAPES.index(shape) + 2 * (resolution != "DNS")
    for offset, (server, labels) in enumerate((("vm", {"security.istio.io/tlsMode": "istio"}), ("outside", {}))):
        name, address = f"{shape}-{server}-{resolution.lower().replace('_', '-')}", f"10.97.1.{number + offset - PORT}"
        applied(entry(shape, name, number + offset, resolution=resolution, addresses=[address],
                      endpoints=[{"address": f"{server}.example.test", "labels": labels}]),
                refuses_slow(shape, f"{name}.test"))
        me.takes(f"{name}.test", number + offset)
        routed(me, address, number + offset, server)
    assert me.rejected() == {}


@pytest.mark.parametrize("shape", SHAPES)
def test_no_endpoints(space, pods, applied, shape):
    """Resolution NONE: each call goes to the address that its client chose."""
    me, outside, name = pods["client"], pods["outside"], f"{shape}-none"
    number = PORT + 30 + SHAPES.index(shape)
    outside.thrift_server(number)
    item = entry(shape, name, number, resolution="NONE", location="MESH_EXTERNAL", addresses=[outside.ip])
    del item["spec"]["ports"][0]["targetPort"]
    applied(item, refuses_slow(shape, f"{name}.test"))
    me.takes(f"{name}.test", number)
    routed(me, outside.ip, number, "outside")
    assert me.rejected() == {}


@pytest.mark.parametrize("shape, protocol", [("native", ""), ("native", "HTTP"), ("tcp", "TCP")])
def test_a_sidecar_says_its_own_ports(space, pods, applied, shape, protocol):
    """`ingress` of a Sidecar: the pod's port leads to another one of its application."""
    me, name = pods["client"], f"own-{shape}-{protocol.lower() or 'unsaid'}"
    number = PORT + 40 + 2 * len(space.pods)
    pod = space.pod(name, labels={"app": name})
    pod.thrift_server(number + 1, address="127.0.0.1")
    port = {"name": NAMES[shape], "port": number} | ({"appProtocol": "meltemi.dev/thrift"} if shape == "native" else {})
    service = space.service(name, {"app": name}, [port])
    own = {"number": number, "name": "rpc"} | ({"protocol": protocol} if protocol else {})
    limits = {} if shape == "native" else {"localRateLimit": {"conditions": [
        {"match": {"attributes": {"method": {"exact": "slow"}}}, "tokenBucket": {"maxTokens": 1, "tokensPerFill": 1, "fillInterval": "600s"}}]}}
    applied({"apiVersion": "networking.istio.io/v1", "kind": "Sidecar", "metadata": {"name": name},
             "spec": {"workloadSelector": {"labels": {"app": name}}, "egress": [{"hosts": ["./*"]}],
                      "ingress": [{"port": own, "defaultEndpoint": f"127.0.0.1:{number + 1}"}]}},
            authorization("no-slow", "DENY", {"app": name}, {"to": [{"operation": {"paths": ["/slow"]}}]})
            if shape == "native" else meta_router(name, service.host, **limits))
    me.takes(service.host, number)
    eventually(me, service.ip, number, {f"{name}: hello x"}, count=5)
    refused = "RBAC" if shape == "native" else "limit"
    eventually(me, service.ip, number, lambda seen: all(refused in text for text in seen), method="slow", argument=1, count=5)
    assert set(call(me, service.ip, number, count=5)) == {f"{name}: hello x"}
    assert pod.rejected() == {}
