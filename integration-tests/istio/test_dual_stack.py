"""Services with an IPv6 address, alone and beside one of IPv4, in pods that have both; and pods of one family."""

import pytest

from calls import eventually
from harness import wait_until
from objects import service_entry

TCP, NATIVE, SHARED = 9090, 9091, 9092
NO_ADDRESS = {"tcp": 9093, "native": 9094}
PORTS = [{"name": "tcp-metaprotocol-thrift", "port": TCP}, {"name": "thrift", "port": NATIVE, "appProtocol": "meltemi.dev/thrift"},
         {"name": "http-thrift", "port": SHARED}]
FAMILIES = {"both": ["IPv4", "IPv6"], "both-6-first": ["IPv6", "IPv4"], "only-6": ["IPv6"]}


@pytest.fixture(scope="module")
def services(controller, space):
    """The addresses of each Service."""
    space.start({"client": {"dual_stack": True}, "old-client": {}, "plain": {"dual_stack": True, "module": None},
                 "v1": {"dual_stack": True, "labels": {"app": "echo"}}})
    for port in (TCP, NATIVE, SHARED):
        space.pods["v1"].thrift_server(port, address="::")
    found = {}
    for name, families in FAMILIES.items():
        policy = {"ipFamilyPolicy": "RequireDualStack" if len(families) == 2 else "SingleStack", "ipFamilies": families}
        service = space.service(name, {"app": "echo"}, PORTS, annotations={"meltemi.dev/codec": "thrift"}, **policy)
        found[name] = space.bed.kube.get("v1", "Service", service.name, space.name)["spec"]["clusterIPs"]
        space.pods["client"].has(f"meltemi.hcm.out.{service.host}:{TCP}")
        for port in (NATIVE, SHARED):
            space.pods["client"].takes(service.host, port)
    return found


def routed(pod, address: str, port: int):
    """An answer is not enough: without our filters it comes as well."""
    def counted() -> int:
        return sum(pod.stats(r"meltemi.thrift.requests$").values())
    before = counted()
    eventually(pod, address, port, {"v1: hello x"}, count=5)
    wait_until(lambda: counted() >= before + 5, f"calls to {address} port {port} to pass our filter")


@pytest.mark.parametrize("port", [TCP, NATIVE, SHARED], ids=["tcp", "native", "http"])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_address(space, services, name, port):
    for address in services[name]:
        routed(space.pods["client"], address, port)


@pytest.mark.parametrize("port", [TCP, NATIVE, SHARED], ids=["tcp", "native", "http"])
def test_pods_of_one_family(space, services, port):
    for name in ("both", "both-6-first"):
        [address] = [address for address in services[name] if ":" not in address]
        routed(space.pods["old-client"], address, port)


@pytest.mark.parametrize("port", [TCP, NATIVE], ids=["tcp", "native"])
def test_pods_without_the_module(space, services, port):
    for name in FAMILIES:
        for address in services[name]:
            eventually(space.pods["plain"], address, port, {"v1: hello x"}, count=5)


@pytest.mark.parametrize("shape", ["tcp", "native"])
def test_a_proxy_of_one_family_and_a_service_without_an_address(space, services, shape):
    """The listener that all have who have no other: in a proxy of IPv6 alone it has another name."""
    number = NO_ADDRESS[shape]
    v1 = space.pods["v1"]
    v1.thrift_server(number, address="::")
    ports = {"tcp": [{"name": "tcp-metaprotocol-thrift", "number": number, "protocol": "TCP"}], "native": [{"name": "rpc", "number": number}]}
    host = f"anywhere-{number}.test"
    space.apply(service_entry(f"anywhere-{number}", host, number, number, ports=ports[shape],
                              endpoints=[{"address": v1.ip_6, "labels": {"security.istio.io/tlsMode": "istio"}}]))
    if "only-6" not in space.pods:
        space.pod("only-6", only_6=True)
    me = space.pods["only-6"]
    me.takes(host, number)
    assert me.listener(f"::_{number}") and not me.listener(f"0.0.0.0_{number}")
    routed(me, "fd92::7", number)


def test_nothing_was_refused(space, services):
    assert {name: pod.rejected() for name, pod in space.pods.items() if pod.rejected()} == {}
