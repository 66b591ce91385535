"""Services of the tcp shape that are not as simple as one address and one port, and who may call them."""

import pytest
from thrift.transport.TTransport import TTransportException

from calls import call, eventually, one
from clients import client
from echo import BOTH, of_tcp_shape
from harness import DIST, wait_until
from objects import authorization, destination_rule, meta_router, service_entry, to
from servers import Server, web_page

PORT = 9090
NAMED = "tcp-metaprotocol-thrift"


def status(space, router: str) -> str:
    """What the status of a MetaRouter says; nothing before it has one."""
    return str(space.bed.kube.get("meltemi.dev/v1alpha1", "MetaRouter", router, space.name).get("status"))


@pytest.fixture(scope="module")
def echo(controller, space):
    service = of_tcp_shape(space, PORT, plain={"module": None}, friend={"account": "friend"}, outside={"sidecar": False})
    space.apply(destination_rule("echo", service.host, "v1", "v2"))
    return service


def method_to_v2(host: str, name="echo") -> dict:
    """Calls of one method go to v2, all others to v1. Istio alone would not know methods."""
    return meta_router(name, host, {"match": {"attributes": {"method": {"exact": "slow"}}}, "route": [to(host, "v2")]},
                       {"route": [to(host, "v1")]})


def routed_by_method(space, address: str, port: int):
    me = space.pods["client"]
    eventually(me, address, port, {"v2: slept 1"}, method="slow", argument=1, count=20)
    assert set(call(me, address, port, count=20)) == {"v1: hello x"}


def test_other_target_port(space, echo, applied):
    """Two Services on one port of a pod, one of them by another number; each has its own routes."""
    service = space.service("moved", {"app": "echo"}, [{"name": NAMED, "port": PORT + 100, "targetPort": PORT}])
    applied(destination_rule("moved", service.host, "v1", "v2"), method_to_v2(service.host, "moved"))
    space.pods["client"].has(f"meltemi.hcm.out.{service.host}:{PORT + 100}")
    routed_by_method(space, service.ip, PORT + 100)
    assert set(call(space.pods["client"], echo.ip, PORT, count=20)) == BOTH


def test_limits_of_two_services_on_one_port_of_a_pod(space, echo, applied):
    """Servers cannot tell their calls apart: the older limits count all of them, and stay in force when the younger come."""
    port, me = PORT + 10, space.pods["client"]
    space.pod("two", labels={"app": "two"}).thrift_server(port)

    def on(number: int, name: str):
        service = space.service(name, {"app": "two"}, [{"name": NAMED, "port": number, "targetPort": port}])
        me.has(f"meltemi.hcm.out.{service.host}:{number}")
        return service
    free = on(port + 100, "free")
    eventually(me, free.ip, port + 100, {"two: hello x"}, count=10)
    older, younger = on(port + 200, "older"), on(port + 300, "younger")

    def limited(name: str, method: str) -> dict:
        bucket = {"maxTokens": 1, "tokensPerFill": 1, "fillInterval": "600s"}
        return meta_router(name, f"{name}.{space.name}.svc.cluster.local", localRateLimit={"conditions": [
            {"match": {"attributes": {"method": {"exact": method}}}, "tokenBucket": bucket}]})
    applied(limited("younger", "slow"))
    eventually(me, younger.ip, port + 300, lambda seen: all("limit" in text for text in seen), method="slow", argument=1, count=3)
    applied(limited("older", "hello"))
    for service, number in ((free, port + 100), (older, port + 200), (younger, port + 300)):
        eventually(me, service.ip, number, lambda seen: all("limit" in text for text in seen), count=3)
        eventually(me, service.ip, number, {"two: slept 1"}, method="slow", argument=1, count=3)

    def told():
        return "counts nothing" in status(space, "younger")
    wait_until(told, "the status of the younger")


def test_headless(space, echo, applied):
    """Each pod is a listener. A client gets the pod that it has chosen, as Istio's cluster of such a service has no others; what
    the routes lead to another service goes there."""
    port, me = PORT + 1, space.pods["client"]
    for version in ("v1", "v2"):
        space.pods[version].thrift_server(port)
    service = space.service("headless", {"app": "echo"}, [{"name": NAMED, "port": port}], clusterIP="None")
    applied(meta_router(
        "headless", service.host,
        {"match": {"attributes": {"method": {"exact": "slow"}}}, "route": [
            {"destination": {"host": echo.host, "subset": "v2", "port": {"number": PORT}}}]},
        {"route": [to(service.host)]}))
    me.has(f"meltemi.hcm.out.{service.host}:{port}")
    for version in ("v1", "v2"):
        address = space.pods[version].ip
        eventually(me, address, port, {"v2: slept 1"}, method="slow", argument=1, count=10)
        assert set(call(me, address, port, count=20)) == {f"{version}: hello x"}


def test_a_subset_of_a_headless_service_is_no_choice(space, echo, applied):
    """Calls go where their client wanted; the status of the MetaRouter says so."""
    port, me = PORT + 9, space.pods["client"]
    for version in ("v1", "v2"):
        space.pods[version].thrift_server(port)
    service = space.service("headless-subset", {"app": "echo"}, [{"name": NAMED, "port": port}], clusterIP="None")
    me.has(f"meltemi.hcm.out.{service.host}:{port}")
    router = meta_router("headless-subset", service.host, {"name": "only-v2", "route": [to(service.host, "v2")]})
    applied(destination_rule("headless-subset", service.host, "v1", "v2"), router)
    me.has("only-v2")
    for version in ("v1", "v2"):
        assert set(call(me, space.pods[version].ip, port, count=10)) == {f"{version}: hello x"}
    wait_until(lambda: "has no effect" in status(space, "headless-subset"), "the status to say so")


def test_a_target_port_by_name(space, echo, applied):
    """Which is another number in each pod. Limits are the servers' own, so they tell that each has our manager there."""
    numbers = {"first": PORT + 6, "second": PORT + 7}
    space.start({name: {"labels": {"app": name, "named": "yes"}, "ports": {"rpc": number}} for name, number in numbers.items()})
    for name, number in numbers.items():
        space.pods[name].thrift_server(number)
    service = space.service("named", {"named": "yes"}, [{"name": NAMED, "port": PORT + 8, "targetPort": "rpc"}])
    for name, number in numbers.items():
        space.pods[name].has(f"meltemi.hcm.in.{service.host}:{PORT + 8}.{number}")
    me = space.pods["client"]
    me.has(f"meltemi.hcm.out.{service.host}:{PORT + 8}")
    eventually(me, service.ip, PORT + 8, {"first: hello x", "second: hello x"}, count=20)
    bucket = {"maxTokens": 1, "tokensPerFill": 1, "fillInterval": "600s"}
    applied(meta_router("named", service.host, localRateLimit={"conditions": [
        {"match": {"attributes": {"method": {"exact": "slow"}}}, "tokenBucket": bucket}]}))
    eventually(me, service.ip, PORT + 8, lambda seen: all("limit" in text for text in seen), method="slow", argument=1, count=20)
    assert set(call(me, service.ip, PORT + 8, count=20)) == {"first: hello x", "second: hello x"}


def test_a_sidecar_resource_trims_listeners(space, echo, applied):
    """What is left goes on, and can be routed; a route to what is trimmed away has no cluster, and is answered so."""
    me, listener = space.pods["client"], f"{echo.ip}_{PORT}"
    seen = space.service("seen", {"app": "echo"}, [{"name": NAMED, "port": PORT}])
    me.has(f"meltemi.hcm.out.{seen.host}:{PORT}")
    eventually(me, seen.ip, PORT, BOTH, count=20)
    applied({"apiVersion": "networking.istio.io/v1", "kind": "Sidecar", "metadata": {"name": "client"},
             "spec": {"workloadSelector": {"labels": {"app": "client"}}, "egress": [{"hosts": [f"./{seen.host}"]}]}},
            meta_router("seen", seen.host, {"match": {"attributes": {"method": {"exact": "slow"}}}, "route": [to(echo.host)]},
                        {"route": [to(seen.host)]}))
    wait_until(lambda: me.listener(listener) is None, "the other service's listener to go")
    eventually(me, seen.ip, PORT, lambda seen: all("cluster" in text for text in seen), method="slow", argument=1, count=5)
    assert set(call(me, seen.ip, PORT, count=20)) == BOTH
    assert me.rejected() == {}


def test_connection_mode(space, echo, applied):
    """The relay in front of a `tcp_proxy`: the first call of a connection says where it goes."""
    port, me = PORT + 2, space.pods["client"]
    for version in ("v1", "v2"):
        space.pods[version].thrift_server(port)
    service = space.service("relayed", {"app": "echo"}, [{"name": NAMED, "port": port}],
                            annotations={f"meltemi.dev/mode.{port}": "connection"})
    applied(destination_rule("relayed", service.host, "v1", "v2"), method_to_v2(service.host, "relayed"))
    me.has(f"meltemi.relay.out.{space.name}.relayed.{port}")
    routed_by_method(space, service.ip, port)
    for first, version in (("hello", "v1"), ("slow", "v2")):
        with me.dialed(client(port, address=service.ip)) as demo:
            for method, argument in ((first, 1), ("hello", "x"), ("slow", 1)):
                assert one(demo, method, argument if method == "slow" else "x").startswith(version)
    assert "tcp_proxy" in str(me.listener(f"{service.ip}_{port}"))
    assert len(call(space.pods["plain"], service.ip, port, count=20)) == 1


@pytest.mark.parametrize("addresses, address, number", [([], "10.99.0.1", PORT + 4), (["10.98.0.0/24"], "10.98.0.7", PORT + 5)],
                         ids=["no address", "a range"])
def test_a_listener_that_is_shared(space, echo, applied, addresses, address, number):
    """That of a ServiceEntry which has no listener of its own: HTTP services of the number are in it, and other addresses."""
    me, v1, v2, outside = (space.pods[name] for name in ("client", "v1", "v2", "outside"))
    v1.thrift_server(number)
    outside.thrift_server(number)
    with v2.inside():
        Server(web_page, "0.0.0.0", number)
    web = space.service("web", {"version": "v2"}, [{"name": "http", "port": number}])
    name = f"entry-{number}"
    applied(service_entry(name, f"{name}.test", number, number, addresses=addresses, ports=[{"name": NAMED, "number": number, "protocol": "TCP"}],
                          endpoints=[{"address": v1.ip, "labels": {"security.istio.io/tlsMode": "istio"}}]),
            meta_router(name, f"{name}.test", {"match": {"attributes": {"method": {"exact": "slow"}}}, "deny": True},
                        {"route": [to(f"{name}.test")]}))
    me.has(f"meltemi.hcm.out.{name}.test:{number}")
    eventually(me, address, number, lambda seen: all("denied" in text for text in seen), method="slow", argument=1, count=3)
    assert set(call(me, address, number, count=3)) == {"v1: hello x"}
    assert me.run("curl", "-si", f"{web.ip}:{number}/").stdout.startswith("HTTP/1.1 200 OK")
    if addresses:
        assert set(call(me, outside.ip, number, method="slow", argument=1)) == {"outside: slept 1"}


def test_policy_by_identity(space, echo, applied):
    """Istio's policy is asked by the server's sidecar before our filter."""
    me, friend, plain = (space.pods[name] for name in ("client", "friend", "plain"))
    applied(authorization("friends", "ALLOW", {"app": "echo"}, {
        "from": [{"source": {"principals": [f"cluster.local/ns/{space.name}/sa/friend"]}}], "to": [{"operation": {"ports": [str(PORT)]}}]}))
    eventually(me, echo.ip, PORT, lambda seen: all(text.startswith("6: ") for text in seen), count=10)
    with pytest.raises(TTransportException):
        call(plain, echo.ip, PORT)
    assert set(call(friend, echo.ip, PORT, count=40)) == BOTH


def test_policy_by_address(space, echo, applied):
    """Of the caller, as the server's sidecar sees it."""
    me, friend, plain = (space.pods[name] for name in ("client", "friend", "plain"))
    applied(authorization("away", "DENY", {"app": "echo"}, {"from": [{"source": {"ipBlocks": [f"{me.ip}/32", f"{plain.ip}/32"]}}]}))
    eventually(me, echo.ip, PORT, lambda seen: all(text.startswith("6: ") for text in seen), count=10)
    with pytest.raises(TTransportException):
        call(plain, echo.ip, PORT)
    assert set(call(friend, echo.ip, PORT, count=40)) == BOTH


def test_permissive_takes_callers_from_outside_the_mesh(bed, controller, envoy):
    """Their calls pass the server's limits, as all do."""
    space = bed.space(f"tcp-permissive-{envoy.parents[2].name}".replace(".", "-"), mtls="PERMISSIVE", envoy=envoy, module=DIST)
    try:
        space.start({"client": {}, "plain": {"module": None}, "outside": {"sidecar": False}, "v1": {"labels": {"app": "echo"}}})
        server = space.pods["v1"]
        server.thrift_server(PORT)
        service = space.service("echo", {"app": "echo"}, [{"name": NAMED, "port": PORT}])
        callers = [(space.pods["client"], service.ip), (space.pods["plain"], service.ip), (space.pods["outside"], server.ip)]
        server.has(f"meltemi.hcm.in.{service.host}:{PORT}")
        for pod, address in callers:
            eventually(pod, address, PORT, {"v1: hello x"}, count=10)
        bucket = {"maxTokens": 1, "tokensPerFill": 1, "fillInterval": "600s"}
        space.apply(meta_router("echo", service.host, localRateLimit={"conditions": [
            {"match": {"attributes": {"method": {"exact": "slow"}}}, "tokenBucket": bucket}]}))
        for pod, address in callers:
            eventually(pod, address, PORT, lambda seen: any("limit" in text for text in seen), method="slow", argument=1, count=3)
            assert set(call(pod, address, PORT, count=5)) == {"v1: hello x"}
        assert server.rejected() == {}
    finally:
        space.close()


def test_port_is_renamed_under_calls(space, echo):
    """A port that is ours no longer is plain TCP, and the other way round: calls pass in each state."""
    port, me = PORT + 3, space.pods["client"]
    for version in ("v1", "v2"):
        space.pods[version].thrift_server(port)

    def named(name: str):
        return space.service("renamed", {"app": "echo"}, [{"name": name, "port": port}])
    service = named(NAMED)
    manager = f"meltemi.hcm.out.{service.host}:{port}"
    me.has(manager)
    eventually(me, service.ip, port, BOTH, count=20)
    named("tcp-other")
    me.lacks(manager)
    space.pods["v1"].lacks(f"meltemi.hcm.in.{service.host}:{port}")
    space.pods["v2"].lacks(f"meltemi.hcm.in.{service.host}:{port}")
    eventually(me, service.ip, port, lambda seen: len(seen) == 1 and set(seen) < BOTH, count=20)
    named(NAMED)
    me.has(manager)
    eventually(me, service.ip, port, BOTH, count=20)


def test_nothing_was_refused(space, echo):
    assert {name: pod.rejected() for name, pod in space.pods.items() if pod.envoy and pod.rejected()} == {}
