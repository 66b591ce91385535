"""A fleet in which not all pods have the module, and one that cannot load it: both shapes."""

import pytest
from thrift.Thrift import TApplicationException
from thrift.transport.TTransport import TTransportException

from calls import call, eventually
from echo import BOTH
from harness import wait_until
from servers import Server, web_page

TCP, NATIVE, SHARED, PLAIN, WEB = 9090, 9091, 9092, 7777, 8080
PORTS = [{"name": "tcp-metaprotocol-thrift", "port": TCP}, {"name": "thrift", "port": NATIVE, "appProtocol": "meltemi.dev/thrift"},
         {"name": "tcp-plain", "port": PLAIN}, {"name": "http", "port": WEB}]


@pytest.fixture(scope="module")
def fleet(bed, controller, space):
    """Services `new` and `old`, whose servers have the module and do not, `both` in front of the two, and `broken`, whose server
    says that it has the module and does not. Clients `client`, `plain` and `broken` are the same three."""
    # Readable: Envoy dies of a folder that it may not read.
    empty = bed.folder / "empty"
    empty.mkdir(0o755, exist_ok=True)
    space.start({"client": {}, "plain": {"module": None}, "new": {"labels": {"app": "new", "fleet": "yes"}},
                 "old": {"labels": {"app": "old", "fleet": "yes"}, "module": None}, "broken": {"module": empty}})
    services = {name: space.service(name, {"app": name}, PORTS) for name in ("new", "old", "broken")}
    services["both"] = space.service("both", {"fleet": "yes"}, PORTS)
    for name in ("new", "old", "broken"):
        for port in (TCP, NATIVE, PLAIN):
            space.pods[name].thrift_server(port)
        with space.pods[name].inside():
            Server(web_page, "0.0.0.0", WEB)
    for name, service in services.items():
        space.pods["client"].has(f"meltemi.hcm.out.{service.host}:{TCP}")
        space.pods["client"].takes(service.host, NATIVE)
    space.pods["new"].has(f"meltemi.hcm.in.{services['new'].host}:{TCP}")
    space.pods["new"].has(f"meltemi.inlet.in.{space.name}.new.{NATIVE}")
    space.pods["broken"].has(f"meltemi.inlet.in.{space.name}.broken.{TCP}")
    space.pods["broken"].has(f"meltemi.inlet.in.{space.name}.broken.{NATIVE}")
    return services


def gets_page(pod, address: str, port: int):
    def got() -> bool:
        return "200" in pod.run("curl", "-si", "-m", "10", f"{address}:{port}/").stdout.partition("\n")[0]
    wait_until(got, f"the page from {address}:{port} in {pod.name}")


@pytest.mark.parametrize("port", [TCP, NATIVE], ids=["tcp", "native"])
@pytest.mark.parametrize("server", ["new", "old"])
@pytest.mark.parametrize("caller", ["client", "plain"])
def test_every_mix(space, fleet, caller, server, port):
    eventually(space.pods[caller], fleet[server].ip, port, {f"{server}: hello x"}, count=10)
    for _ in range(5):
        assert set(call(space.pods[caller], fleet[server].ip, port, count=10)) == {f"{server}: hello x"}


@pytest.mark.parametrize("port", [TCP, NATIVE], ids=["tcp", "native"])
def test_servers_with_and_without_behind_one_service(space, fleet, port):
    servers = {"new: hello x", "old: hello x"}
    eventually(space.pods["client"], fleet["both"].ip, port, servers, count=20)
    assert set(call(space.pods["client"], fleet["both"].ip, port, count=40)) == servers
    for _ in range(5):
        seen = call(space.pods["plain"], fleet["both"].ip, port, count=10)
        assert len(seen) == 1 and set(seen) < servers, "TCP: one server a connection"


def test_a_server_whose_module_does_not_load_keeps_its_other_ports(space, fleet):
    broken = fleet["broken"]
    for name in ("client", "plain"):
        me = space.pods[name]
        for _ in range(3):
            eventually(me, broken.ip, PLAIN, {"broken: hello x"}, count=5)
            gets_page(me, broken.ip, WEB)


@pytest.mark.parametrize("port", [TCP, NATIVE], ids=["tcp", "native"])
def test_a_server_whose_module_does_not_load_loses_its_meltemi_ports(space, fleet, port):
    """As an error in the protocol where the caller has the module, as the end of the connection where it has not."""
    me = space.pods["client"]
    eventually(me, fleet["broken"].ip, port, lambda seen: all(text.startswith("6: ") for text in seen), count=5)
    with pytest.raises((TTransportException, OSError)):
        call(space.pods["plain"], fleet["broken"].ip, port)


def test_a_client_whose_module_does_not_load_keeps_its_other_ports(space, fleet):
    me = space.pods["broken"]
    for server in ("new", "old"):
        eventually(me, fleet[server].ip, PLAIN, {f"{server}: hello x"}, count=5)
        gets_page(me, fleet[server].ip, WEB)
    for port in (TCP, NATIVE):
        with pytest.raises((TTransportException, TApplicationException, OSError)):
            call(me, fleet["new"].ip, port)


def test_a_client_whose_module_does_not_load_keeps_what_shares_a_port(space, fleet):
    """HTTP services have one listener for a port number: one of them is Thrift by its annotation."""
    space.service("named", {"app": "new"}, [{"name": "http-thrift", "port": SHARED}], annotations={"meltemi.dev/codec": "thrift"})
    web = space.service("web", {"app": "new"}, [{"name": "http", "port": SHARED, "targetPort": WEB}])
    for name in ("client", "broken"):
        space.pods[name].has(f"meltemi.inlet.out.{space.name}.named.{SHARED}")
        gets_page(space.pods[name], web.ip, SHARED)
