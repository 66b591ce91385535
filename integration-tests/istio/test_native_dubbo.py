"""Shape `native`: Istio's objects on the calls of real Java Dubbo consumers and providers."""

import pytest

import setup
from harness import wait_until
from load import in_threads
from objects import authorization, destination_rule, grpc_route, to, virtual_service

pytestmark = pytest.mark.skipif(not setup.dubbo_classpath().exists(),
                                reason="SKIPPED the Dubbo parts: java and mvn were not there when `make setup` ran")
PORT = 20880
DUBBO = [{"name": "dubbo", "port": PORT, "appProtocol": "meltemi.dev/dubbo"}]
REFUSED = "EXC org.apache.dubbo.rpc.RpcException"


@pytest.fixture(scope="module")
def demo(controller, space):
    """Service `demo` in front of two providers."""
    space.start({"client": {}} | {version: {"labels": {"app": "demo", "version": version}} for version in ("v1", "v2")})
    service = space.service("demo", {"app": "demo"}, DUBBO)
    # At once: a JVM takes its time to begin.
    in_threads(lambda version: space.pods[version].dubbo_server(PORT), ("v1", "v2"))
    for version in ("v1", "v2"):
        space.pods[version].has(f"meltemi.declare.in.{space.name}.demo.{PORT}")
    space.pods["client"].takes(service.host, PORT)
    space.apply(destination_rule("demo", service.host, "v1", "v2"))
    return service


def consume(space, demo, *operations: str, **defines: str) -> dict[str, str]:
    return space.pods["client"].dubbo_calls(demo.ip, PORT, *operations, **defines)


def uri(method: str) -> dict:
    return {"match": [{"uri": {"exact": f"/peer.Demo/{method}"}}]}


def test_routes_timeout_and_fault(space, demo, applied):
    """By attachment, by service and method; each failure is Dubbo's own."""
    always = {"percentage": {"value": 100}}
    applied(virtual_service(
        "demo", demo.host,
        uri("place") | {"route": [to(demo.host)], "fault": {"abort": {"httpStatus": 503, **always}}},
        uri("slow") | {"route": [to(demo.host)], "timeout": "0.2s"},
        {"match": [{"headers": {"env": {"exact": "gray"}}}], "route": [to(demo.host, "v2")],
         "headers": {"request": {"set": {"env": "blue"}}}},
        {"route": [to(demo.host, "v1")]}))
    space.pods["client"].has("/peer.Demo/place")
    got = consume(space, demo, "hello", "many=50", "place", "slow=2000", "slow=20", attach="env=gray")
    assert "served-by=v2" in got["hello"] and "env=blue" in got["hello"], got
    assert got["many=50"] == "50 calls" and got["slow=20"] == "slept 20", got
    assert got["place"].startswith(REFUSED) and "fault" in got["place"], got
    assert got["slow=2000"].startswith(REFUSED) and "timeout" in got["slow=2000"].lower(), got
    assert "served-by=v1" in consume(space, demo, "hello", attach="env=red")["hello"]


def test_policy_by_method(space, demo, applied):
    applied(authorization("no-fail", "DENY", {"app": "demo"}, {"to": [{"operation": {"paths": ["/peer.Demo/fail"]}}]}))
    for version in ("v1", "v2"):
        space.pods[version].has("/peer.Demo/fail")
    got = {}

    def refused():
        got.update(consume(space, demo, "fail", "hello", "fire"))
        return got["fail"].startswith(REFUSED) and "RBAC: access denied" in got["fail"]
    # A proxy shows its new filters a little before its connections have them, and ends the old ones when they are drained,
    # which may be while a call is on its way.
    wait_until(refused, "the refusal", 60)
    assert "served-by" in got["hello"] and got["fire"] == "sent", got
    wait_until(lambda: any((line["path"], line["response_code"]) == ("/peer.Demo/fail", 403)
                           for version in ("v1", "v2") for line in space.pods[version].access_log()), "the refusal in the access log")


def test_grpc_route(space, demo, applied):
    other = space.service("demo-v2", {"app": "demo", "version": "v2"}, DUBBO)
    applied(grpc_route("demo", "demo", PORT, "peer.Demo", "hello", other.name))
    space.pods["client"].has(f"{other.name}.{space.name}")
    space.pods["client"].has('"/peer.Demo/hello"')
    got = consume(space, demo, *["hello"] * 3)
    assert "served-by=v2" in got["hello"], got


def test_headers_of_http_are_passed_on_purpose(space, demo):
    """A provider sees the request's identity, which Envoy has made, if its protocol says so."""
    port = PORT + 1
    traced = {"apiVersion": "meltemi.dev/v1alpha1", "kind": "ApplicationProtocol", "metadata": {"name": "traced-dubbo"},
              "spec": {"protocol": "traced-dubbo", "codec": "dubbo", "passHeaders": ["x-request-id"]}}
    space.bed.kube.apply(traced)
    try:
        service = space.service("traced", {"version": "v1"}, [{"name": "dubbo", "port": port, "appProtocol": "meltemi.dev/traced-dubbo"}])
        space.pods["v1"].dubbo_server(port)
        for name in ("client", "v1"):
            space.pods[name].takes(service.host, port)
        seen = space.pods["client"].dubbo_calls(service.ip, port, "hello")["hello"]
        assert "x-request-id=" in seen and "served-by=v1" in seen, seen
        assert "x-request-id" not in consume(space, demo, "hello")["hello"]
    finally:
        space.bed.kube.delete(traced)
