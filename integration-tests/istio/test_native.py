"""Shape `native`, as our control plane writes it: Istio's own objects work on every Thrift call."""

import pytest
from thrift.transport.TTransport import TTransportException

from calls import call, eventually, one
from clients import client
from echo import BOTH, two_versions
from harness import DIST, wait_until
from objects import authorization, destination_rule, http_route, meta_router, to, virtual_service
from servers import Server, web_page

PORT = 9091


def thrift(port=PORT, **more):
    return [{"name": "thrift", "port": port, "appProtocol": "meltemi.dev/thrift", **more}]


@pytest.fixture(scope="module")
def echo(controller, space):
    """Service `echo`: two versions of a real server. Clients with and without the module. The port's `appProtocol` is all that
    is said."""
    return two_versions(space, PORT, thrift(), plain={"module": None})


def test_every_call_is_logged(space, echo):
    me = space.pods["client"]
    call(me, echo.ip, PORT, count=20)
    for name, cluster in (("client", f"outbound|{PORT}||{echo.host}"), ("v1", f"inbound|{PORT}||")):
        lines = wait_until(lambda name=name: [line for line in space.pods[name].access_log() if line["path"] == "/hello"], "access log")
        line = lines[-1]
        assert (line["method"], line["response_code"], line["authority"], line["upstream_cluster"]) == (
            "POST", 200, f"{echo.host}:{PORT}", cluster)
    assert {name: pod.rejected() for name, pod in space.pods.items() if pod.rejected()} == {}


def test_virtual_service(space, echo, applied):
    me = space.pods["client"]
    applied(destination_rule("echo", echo.host, "v1", "v2"), virtual_service(
        "echo", echo.host, {"match": [{"uri": {"exact": "/slow"}}], "route": [to(echo.host, "v2")]},
        {"route": [to(echo.host, "v1", 20), to(echo.host, "v2", 80)]}))
    eventually(me, echo.ip, PORT, {"v2: slept 1"}, method="slow", argument=1, count=30)
    seen = call(me, echo.ip, PORT, count=400)
    assert set(seen) == BOTH and 0.70 < seen["v2: hello x"] / 400 < 0.90, seen


def test_faults_are_the_protocols_own_errors(space, echo, applied):
    me = space.pods["client"]
    always = {"percentage": {"value": 100}}
    applied(virtual_service(
        "echo", echo.host,
        {"match": [{"uri": {"prefix": "/hello"}}], "route": [to(echo.host)], "fault": {"abort": {"httpStatus": 429, **always}}},
        {"match": [{"uri": {"prefix": "/slow"}}], "route": [to(echo.host)], "timeout": "0.1s",
         "fault": {"delay": {"fixedDelay": "1s", **always}}}))
    eventually(me, echo.ip, PORT, {"6: fault filter abort"})
    assert set(call(me, echo.ip, PORT, method="slow", argument=500)) == {"6: upstream request timeout"}


def test_policy_denies_by_method_on_old_connections_too(space, echo, applied):
    me = space.pods["client"]
    with me.dialed(client(PORT, address=echo.ip)) as demo:
        assert one(demo, "slow", 1).endswith("slept 1")
        applied(authorization("no-slow", "DENY", {"app": "echo"}, {"to": [{"operation": {"paths": ["/slow"]}}]}))

        def refused():
            try:
                return one(demo, "slow", 1) == "6: RBAC: access denied"
            except TTransportException:
                return True  # drained: the client would connect again
        wait_until(refused, "the policy on the old connection")
    eventually(me, echo.ip, PORT, {"6: RBAC: access denied"}, method="slow", argument=1, count=4)
    assert set(call(me, echo.ip, PORT, count=20)) == BOTH
    eventually(space.pods["plain"], echo.ip, PORT, {"6: RBAC: access denied"}, method="slow", argument=1)


def test_pods_without_the_module(space, echo):
    assert len(call(space.pods["plain"], echo.ip, PORT, count=20)) == 1, "TCP: one server a connection"
    space.pod("old", module=None).thrift_server(PORT)
    service = space.service("old", {"app": "old"}, thrift())
    space.pods["client"].takes(service.host, PORT)
    for name in ("client", "plain"):
        eventually(space.pods[name], service.ip, PORT, {"old: hello x"}, count=10)
    assert "meltemi" not in str(space.pods["old"].listener("virtualInbound"))


def test_http_route(space, echo, applied):
    """The Gateway API's routes, with the Service as their parent."""
    applied(http_route("echo", "echo", PORT, "/slow", space.service("echo-v2", {"app": "echo", "version": "v2"}, thrift()).name))
    eventually(space.pods["client"], echo.ip, PORT, {"v2: slept 1"}, method="slow", argument=1, count=20)


def test_meta_router_becomes_a_virtual_service(space, echo, applied):
    applied(destination_rule("echo", echo.host, "v1", "v2"), meta_router(
        "echo", echo.host, {"match": {"attributes": {"method": {"exact": "slow"}}}, "route": [to(echo.host, "v2")]},
        {"route": [to(echo.host, "v1")]}))
    me = space.pods["client"]
    eventually(me, echo.ip, PORT, {"v1: hello x"}, count=20)
    assert set(call(me, echo.ip, PORT, method="slow", argument=1, count=10)) == {"v2: slept 1"}


def test_other_target_port(space, echo):
    service = space.service("moved", {"app": "echo"}, thrift(PORT + 100, targetPort=PORT))
    space.pods["client"].takes(service.host, PORT + 100)
    eventually(space.pods["client"], service.ip, PORT + 100, BOTH, count=20)


def test_headless(space, echo):
    service = space.service("headless", {"app": "echo"}, thrift(), clusterIP="None")
    me = space.pods["client"]
    me.takes(service.host, PORT)
    for name in ("v1", "v2"):
        eventually(me, space.pods[name].ip, PORT, {f"{name}: hello x"}, count=10)
    authority = f"{service.host}:{PORT}"
    wait_until(lambda: any(line["authority"] == authority for line in me.access_log()), "a call by HTTP")


def test_http_named_port_shared_with_real_http(space, echo):
    port = PORT + 1
    service = space.service("named", {"app": "echo"}, [{"name": "http-thrift", "port": port}],
                            annotations={"meltemi.dev/codec": "thrift"})
    web = space.service("web", {"app": "web"}, [{"name": "http", "port": port}])
    with space.pod("web").inside():
        Server(web_page, "0.0.0.0", port)
    for version in ("v1", "v2"):
        space.pods[version].thrift_server(port)
    me = space.pods["client"]
    me.takes(service.host, port)
    eventually(me, service.ip, port, BOTH, count=20)
    wait_until(lambda: "200" in me.run("curl", "-si", f"{web.ip}:{port}/").stdout.partition("\n")[0], "the real HTTP service")


@pytest.fixture(scope="module")
def others(space, echo):
    """Services of others on the port number of ours: HTTP, plain TCP, and one whose protocol Istio finds out."""
    found = {name: space.service(name, {"app": name}, [{"name": port_name, "port": PORT}])
             for name, port_name in (("page", "http"), ("tcp", "tcp"), ("auto", "rpc"))}
    with space.pod("page").inside():
        Server(web_page, "0.0.0.0", PORT)
    for name in ("tcp", "auto"):
        space.pod(name).thrift_server(PORT)
    return found


def reach(me, others):
    """All of them answer this pod."""
    page = f"{others['page'].ip}:{PORT}/"
    wait_until(lambda: "200" in me.run("curl", "-si", page).stdout.partition("\n")[0], f"the HTTP service, from {me.name}")
    for name in ("tcp", "auto"):
        eventually(me, others[name].ip, PORT, {f"{name}: hello x"})


def test_others_on_the_port_number_are_not_touched(space, echo, others):
    me = space.pods["client"]
    reach(me, others)
    # A connection that was taken for HTTP by mistake would have an authority.
    names = [name for other in others.values() for name in (other.ip, other.host)]

    def theirs():
        return [line for line in me.access_log() if (line["authority"] or "").rsplit(":", 1)[0] in names]
    assert {line["method"] for line in wait_until(theirs, "the access log")} == {"GET"}


def test_a_module_that_does_not_load_costs_only_its_own_ports(bed, space, echo, others):
    # Readable: Envoy dies of a folder that it may not read.
    empty = bed.folder / "empty"
    empty.mkdir(0o755, exist_ok=True)
    other = space.service("other", {"server": "other"}, [{"name": "tcp", "port": 7777}])
    space.pod("broken", module=empty, labels={"app": "broken", "server": "other"}).thrift_server(7777)
    space.pod("sound", labels={"app": "sound", "server": "other"}).thrift_server(7777)
    broken = space.pods["broken"]
    assert broken.rejected() == {}
    for name in ("client", "broken"):
        for _ in range(2):
            eventually(space.pods[name], other.ip, 7777, {"broken: hello x"})
            eventually(space.pods[name], other.ip, 7777, {"sound: hello x"})
    reach(broken, others)
    with pytest.raises((TTransportException, OSError)):
        call(broken, echo.ip, PORT)


def test_permissive_takes_callers_from_outside_the_mesh(bed, controller, envoy):
    space = bed.space(f"permissive-{envoy.parents[2].name}".replace(".", "-"), mtls="PERMISSIVE", envoy=envoy, module=DIST)
    try:
        space.start({"client": {}, "plain": {"module": None}, "outside": {"sidecar": False}, "v1": {"labels": {"app": "echo"}}})
        server = space.pods["v1"]
        server.thrift_server(PORT)
        service = space.service("echo", {"app": "echo"}, thrift())
        # An address that a sidecar does not know yet is nobody's.
        for name in ("client", "plain"):
            space.pods[name].has(service.host)
        space.apply(authorization("no-slow", "DENY", {"app": "echo"}, {"to": [{"operation": {"paths": ["/slow"]}}]}))
        for name, address in (("client", service.ip), ("plain", service.ip), ("outside", server.ip)):
            eventually(space.pods[name], address, PORT, {"6: RBAC: access denied"}, method="slow", argument=1)
            assert set(call(space.pods[name], address, PORT, count=5)) == {"v1: hello x"}
        assert server.rejected() == {}
    finally:
        space.close()
