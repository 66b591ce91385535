"""Real Java Dubbo consumers and providers through real Envoys."""

import re
import subprocess

import pytest

import setup
from harness import PEERS, free_port, router, rule, service, to, wait_until

pytestmark = pytest.mark.skipif(not setup.dubbo_classpath().exists(),
                                reason="SKIPPED the Dubbo parts: java and mvn were not there when `make setup` ran")
HOST = "demo.test"
JAVA = ["java", "-XX:TieredStopAtLevel=1", "-Xmx256m", "--add-opens", "java.base/java.lang=ALL-UNNAMED", "--add-opens",
        "java.base/java.math=ALL-UNNAMED"]


def java(*arguments):
    return [*JAVA, "-cp", setup.dubbo_classpath().read_text(), *map(str, arguments)]


def mesh(world, *routes, serialization="hessian2", **policy):
    """Two providers behind one service; gives the service's port."""
    port, ports = free_port(), {}
    for name in ("v1", "v2"):
        number = free_port()
        ports[number] = name
        world.start(name, *java(f"-Dwho={name}", "peer.Provider", number, serialization))
    for name in ports.values():
        wait_until(lambda name=name: "READY" in world.log(name), f"provider {name}", 60)
    world.write("all", service(HOST, port, ports, "dubbo"), rule(HOST, "v1", "v2", **policy),
                router(HOST, *routes or [{"route": [to(HOST, "v1")]}]))
    world.serve()
    world.envoy(wait_for=[port])
    return port


def consume(port, *operations, **options):
    """Runs a consumer; gives its lines by operation. A name for 127.0.0.1 keeps Dubbo from rewriting it."""
    defines = [f"-D{key}={value}" for key, value in options.items()]
    url = f"dubbo://peer1:{port}/peer.Demo?heartbeat=1000"
    command = java(f"-Djdk.net.hosts.file={PEERS / 'dubbo' / 'hosts'}", *defines, "peer.Consumer", url, *operations)
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    return dict(re.findall(r"^(\S+) -> (.*) \(\d+ us\)$", done.stdout, re.M)) or pytest.fail(done.stdout + done.stderr)


@pytest.mark.feature("Dubbo with Java consumers and providers: hessian2 and fastjson2, heartbeats, generic and one-way calls")
@pytest.mark.parametrize("serialization", ["hessian2", "fastjson2"])
def test_everything_a_consumer_does(world, serialization):
    port = mesh(world, serialization=serialization)
    got = consume(port, "hello", "place", "fire", "fail", "slow=50", "generic", "burst=8", "many=100", "idle=2500", "hello",
                  attach="batchId=b-1,env=gray")
    assert got["hello"].startswith("hello world") and "batchId=b-1" in got["hello"] and "served-by=v1" in got["hello"]
    assert got["place"] == "Order(8,book[1, 2]{k=v},19.0)"
    assert got["fire"] == "sent"
    assert "because" in got["fail"]
    assert got["slow=50"] == "slept 50"
    assert got["generic"].startswith("hello generic") and "pen[3]{g=1}" in got["generic"]
    assert (got["burst=8"], got["many=100"], got["idle=2500"]) == ("8 at once", "100 calls", "idle 2500")
    world.counted("dubbo", {"decode_errors": 0, "in_flight": 0, "one_way": 1, "exceptions": 1})
    assert world.counter("meltemi.dubbo.heartbeats") >= 1, "an idle consumer sends heartbeats, which the inlet answers"
    assert world.log("v1").count("fire oneway") == 1


def test_routing_and_mutation(world):
    port = mesh(world,
                {"match": {"attributes": {"interface": {"exact": "peer.Demo"}, "env": {"exact": "gray"}}},
                 "requestMutation": [{"key": "env", "value": "blue"}, {"key": "added", "value": "wörd"},
                                     {"key": "batchId", "remove": True}],
                 "responseMutation": [{"key": "by-proxy", "value": "yes"}], "route": [to(HOST, "v2")]},
                {"match": {"attributes": {"method": {"exact": "place"}}}, "deny": True},
                {"match": {"attributes": {"method": {"exact": "slow"}}}, "timeout": "0.2s", "route": [to(HOST, "v1")]},
                {"match": {"attributes": {"method": {"exact": "fail"}}}, "fault": {"abort": {}}, "route": [to(HOST, "v1")]},
                {"route": [to(HOST, "v1")]})
    got = consume(port, "hello", attach="env=gray,batchId=7")
    assert "served-by=v2" in got["hello"] and "by-proxy=yes" in got["hello"]
    assert "env=blue" in got["hello"] and "added=wörd" in got["hello"] and "batchId" not in got["hello"]
    got = consume(port, "hello", "place", "slow=2000", "fail", "hello", attach="env=prod")
    assert "served-by=v1" in got["hello"] and "env=prod" in got["hello"]
    assert got["place"].startswith("EXC org.apache.dubbo.rpc.RpcException") and "denied" in got["place"]
    assert got["slow=2000"].startswith("EXC org.apache.dubbo.rpc.RpcException") and "timeout" in got["slow=2000"].lower()
    assert "fault" in got["fail"]


def test_a_dead_provider_is_retried_around(world):
    port = mesh(world, {"route": [to(HOST)]})
    world.stop("v2")
    assert consume(port, "many=50")["many=50"] == "50 calls"
