"""Shape `native`: where a port can be: among others in a pod, under another name, behind a ServiceEntry, out of a Sidecar's sight."""

import pytest

from calls import call, eventually
from cluster_objects import events
from harness import wait_until
from objects import authorization, meta_router, service_entry, to, virtual_service
from servers import Server, per_frame, web_page
from wire import Dubbo, Peer

THRIFT, DUBBO, OTHER, WEB = 9091, 20880, 9092, 8080
DENIED = {"6: RBAC: access denied"}


def port(number: int, codec="thrift", **more) -> dict:
    return {"name": codec, "port": number, "appProtocol": f"meltemi.dev/{codec}", **more}


@pytest.fixture(scope="module")
def echo(controller, space):
    """Service `echo` of Thrift, Dubbo and HTTP on the pod `v1`. The pod `vm` is of no Service; its container calls another number
    `rpc`. `resolver` answers its own DNS."""
    space.start({"client": {}, "resolver": {"proxy_metadata": {"ISTIO_META_DNS_CAPTURE": "true"}},
                 "v1": {"labels": {"app": "echo", "named": "yes"}, "ports": {"rpc": THRIFT}},
                 "vm": {"labels": {"app": "vm", "named": "yes"}, "ports": {"rpc": OTHER}}})
    v1, vm, me = space.pods["v1"], space.pods["vm"], space.pods["client"]
    service = space.service("echo", {"app": "echo"}, [port(THRIFT), port(DUBBO, "dubbo"), {"name": "http", "port": WEB}])
    v1.thrift_server(THRIFT)
    vm.thrift_server(OTHER)
    with v1.inside():
        Server(per_frame(Dubbo.answer), "0.0.0.0", DUBBO)
        Server(web_page, "0.0.0.0", WEB)
    for number in (THRIFT, DUBBO):
        me.takes(service.host, number)
        v1.has(f"meltemi.inlet.in.{space.name}.echo.{number}")
    return service


def dubbo(pod, service) -> dict:
    with pod.inside():
        peer = Peer.connect(DUBBO, address=service.ip)
    peer.send(Dubbo.call(1, "hello"))
    answer = Dubbo.parse(peer.frame())
    peer.close()
    return answer


def web(pod, service) -> str:
    return pod.run("curl", "-si", f"{service.ip}:{WEB}/").stdout.partition("\n")[0].strip()


def test_several_protocols_in_one_pod(space, echo, applied):
    me = space.pods["client"]
    eventually(me, echo.ip, THRIFT, {"v1: hello x"})
    wait_until(lambda: dubbo(me, echo)["ok"], "Dubbo's answer")
    wait_until(lambda: web(me, echo) == "HTTP/1.1 200 OK", "HTTP's answer")
    applied(authorization("no-hello", "DENY", {"app": "echo"}, {"to": [{"operation": {"paths": ["/hello", "/"]}}]}))
    eventually(me, echo.ip, THRIFT, DENIED)
    wait_until(lambda: web(me, echo) == "HTTP/1.1 403 Forbidden", "HTTP's refusal")
    assert dubbo(me, echo)["ok"]


def test_a_meta_router_is_for_every_protocol_and_leaves_http_alone(space, echo, applied):
    """`interface` is Dubbo's own word for a service."""
    me = space.pods["client"]
    wait_until(lambda: web(me, echo) == "HTTP/1.1 200 OK", "no refusal of HTTP any more")
    applied(meta_router("echo", echo.host, {"match": {"attributes": {"interface": {"exact": "peer.Demo"}}}, "deny": True},
                        {"match": {"attributes": {"method": {"exact": "slow"}}}, "deny": True},
                        {"match": {"attributes": {"method": {"exact": "hello"}}}, "route": [to(echo.host)]}))
    eventually(me, echo.ip, THRIFT, lambda seen: all("denied" in text for text in seen), method="slow", argument=1)
    wait_until(lambda: dubbo(me, echo)["code"] == 70, "Dubbo's own refusal")
    assert set(call(me, echo.ip, THRIFT, count=5)) == {"v1: hello x"}
    assert web(me, echo) == "HTTP/1.1 200 OK"


def test_a_target_port_by_name(space, echo, applied):
    """Which is another number in each pod."""
    service = space.service("named", {"named": "yes"}, [port(THRIFT + 100, targetPort="rpc")])
    me = space.pods["client"]
    me.takes(service.host, THRIFT + 100)
    eventually(me, service.ip, THRIFT + 100, {"v1: hello x", "vm: hello x"}, count=20)
    applied(*(authorization(f"no-slow-{app}", "DENY", {"app": app}, {"to": [{"operation": {"paths": ["/slow"]}}]})
              for app in ("echo", "vm")))
    eventually(me, service.ip, THRIFT + 100, DENIED, method="slow", argument=1, count=20)


def test_a_route_to_another_service_on_another_number(space, echo, applied):
    """Which the destination must name: otherwise Istio keeps the caller's."""
    other = space.service("other", {"app": "vm"}, [port(THRIFT + 200, targetPort=OTHER)])
    there = {"destination": {"host": other.host, "port": {"number": THRIFT + 200}}}
    applied(virtual_service("echo", echo.host, {"match": [{"uri": {"exact": "/slow"}, "port": THRIFT}], "route": [there]},
                            {"route": [to(echo.host)]}))
    me = space.pods["client"]
    eventually(me, echo.ip, THRIFT, {"vm: slept 1"}, method="slow", argument=1, count=10)
    assert set(call(me, echo.ip, THRIFT, count=10)) == {"v1: hello x"}


# ServiceEntries


def vm(space) -> list[dict]:
    return [{"address": space.pods["vm"].ip, "labels": {"security.istio.io/tlsMode": "istio"}}]


def refuses_slow(host: str) -> dict:
    """So that calls are seen to be routed one by one at the caller."""
    abort = {"abort": {"httpStatus": 403, "percentage": {"value": 100}}}
    return virtual_service(host.partition(".")[0], host, {"match": [{"uri": {"exact": "/slow"}}], "route": [to(host)], "fault": abort},
                           {"route": [to(host)]})


def routed(pod, name: str, address: str, number: int):
    pod.takes(f"{name}.test", number)
    eventually(pod, address, number, {"6: fault filter abort"}, method="slow", argument=1, count=5)
    assert set(call(pod, address, number, count=5)) == {"vm: hello x"}


def test_a_service_entry_with_addresses(space, echo, applied):
    applied(service_entry("fixed", "fixed.test", 9301, OTHER, addresses=["10.97.0.1", "10.97.0.2/32"], endpoints=vm(space)),
            refuses_slow("fixed.test"))
    for address in ("10.97.0.1", "10.97.0.2"):
        routed(space.pods["client"], "fixed", address, 9301)


def test_a_service_entry_with_a_range_stays_plain_tcp(space, echo, applied):
    """Istio has no HTTP behind a range, so a bridge would fail every call."""
    me = space.pods["client"]
    applied(service_entry("range", "range.test", 9302, OTHER, addresses=["10.98.0.0/24"], endpoints=vm(space)), refuses_slow("range.test"))
    me.has("outbound|9302||range.test")
    eventually(me, "10.98.0.7", 9302, {"vm: hello x"})
    assert set(call(me, "10.98.0.7", 9302, method="slow", argument=1)) == {"vm: slept 1"}
    wait_until(lambda: events(space.bed.kube, "range"), "an event that says so")


def test_a_service_entry_without_addresses(space, echo, applied):
    """istiod assigns one, which proxies have a listener for that answer DNS themselves; at others the port number is all."""
    entry = service_entry("free", "free.test", 9303, OTHER, endpoints=vm(space))
    applied(entry, refuses_slow("free.test"))
    routed(space.pods["client"], "free", "10.99.0.1", 9303)

    def assigned():
        stored = space.bed.kube.get(entry["apiVersion"], "ServiceEntry", "free", space.name)
        return [one["value"] for one in stored.get("status", {}).get("addresses", []) if "." in one["value"]]
    [address] = wait_until(assigned, "an address from istiod")
    routed(space.pods["resolver"], "free", address, 9303)


def test_a_service_entry_that_selects_workloads(space, echo, applied):
    """Their sidecars have the server's side."""
    applied(service_entry("picked", "picked.test", 9304, OTHER, addresses=["10.97.0.4"], workloadSelector={"labels": {"app": "vm"}}),
            authorization("no-slow", "DENY", {"app": "vm"}, {"to": [{"operation": {"paths": ["/slow"]}}]}))
    me = space.pods["client"]
    me.takes("picked.test", 9304)
    eventually(me, "10.97.0.4", 9304, DENIED, method="slow", argument=1, count=5)
    assert set(call(me, "10.97.0.4", 9304, count=5)) == {"vm: hello x"}


def test_a_sidecar_resource_trims_listeners(space, echo, applied):
    me, listener = space.pods["client"], f"{echo.ip}_{THRIFT}"
    seen = space.service("seen", {"app": "echo"}, [port(THRIFT)])
    me.takes(seen.host, THRIFT)
    eventually(me, seen.ip, THRIFT, {"v1: hello x"})
    applied({"apiVersion": "networking.istio.io/v1", "kind": "Sidecar", "metadata": {"name": "client"},
             "spec": {"workloadSelector": {"labels": {"app": "client"}}, "egress": [{"hosts": [f"./{seen.host}"]}]}},
            authorization("no-slow", "DENY", {"app": "echo"}, {"to": [{"operation": {"paths": ["/slow"]}}]}))
    wait_until(lambda: me.listener(listener) is None, "the other service's listener to go")
    eventually(me, seen.ip, THRIFT, DENIED, method="slow", argument=1)
    eventually(me, seen.ip, THRIFT, {"v1: hello x"}, count=5)
    assert {name: pod.rejected() for name, pod in space.pods.items() if pod.rejected()} == {}
