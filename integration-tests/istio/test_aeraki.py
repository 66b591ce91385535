"""Aeraki's users keep their objects: its samples on a real mesh, and what real Thrift and Dubbo clients see of them."""

import pytest
import setup

from calls import call, eventually
from clients import client
from echo import BOTH
from harness import wait_until
from load import in_threads
from objects import host_of
from samples import Samples

PORT, DUBBO_PORT = 9090, 20880
DUBBO_ADDRESS = "240.240.0.20"
JAVA = pytest.mark.skipif(not setup.dubbo_classpath().exists(), reason="SKIPPED Dubbo: java and mvn were not there when `make setup` ran")


@pytest.fixture(scope="module")
def samples(controller, space):
    """Two versions of a server that speaks Thrift, and Dubbo where Java is. Gives the samples, of which the services are applied."""
    samples = Samples(space)
    samples.define()
    samples.apply("services")
    space.start({"client": {}, "v1": {"labels": {"app": "sample-server", "version": "v1"}},
                 "v2": {"labels": {"app": "sample-server", "version": "v2"}}})
    for version in ("v1", "v2"):
        space.pods[version].thrift_server(PORT, transport="header")
        space.pods[version].has(f"meltemi.hcm.in.{host_of('thrift-sample-server', space)}:{PORT}")
    space.pods["client"].has(f"meltemi.hcm.out.{host_of('thrift-sample-server', space)}:{PORT}")
    return samples


@pytest.fixture
def sample(samples):
    """Applies a sample for one test."""
    applied = []

    def apply(name: str):
        applied.append(name)
        samples.apply(name)
    yield apply
    for name in applied:
        samples.delete(name)
    samples.apply("services")


@pytest.fixture(scope="module")
def address(samples, space):
    """Where clients reach the Thrift service."""
    return space.bed.kube.get("v1", "Service", "thrift-sample-server", space.name)["spec"]["clusterIP"]


def test_attributes(space, sample, address):
    """Of the call, and of its headers."""
    me = space.pods["client"]
    sample("attribute-match")
    eventually(me, address, PORT, {"v1: hello x"}, count=20)
    tester = {"transport": "header", "headers": {"user": "test-7"}, "count": 10}
    assert set(call(me, address, PORT, **tester)) == {"v2: hello x"}
    assert set(call(me, address, PORT, method="slow", argument=1, **tester)) == {"v1: slept 1"}
    assert set(call(me, address, PORT, **tester | {"headers": {"user": "pretest-7"}})) == {"v1: hello x"}


def test_weights(space, sample, address):
    me = space.pods["client"]
    sample("traffic-split")
    # Nothing else has a route.
    eventually(me, address, PORT, lambda seen: all(text.startswith("1: ") for text in seen), method="slow", argument=1)
    seen = call(me, address, PORT, count=400)
    assert set(seen) == BOTH and 0.70 < seen["v2: hello x"] / 400 < 0.90, seen


def test_local_rate_limit(space, sample, address):
    """Counted at each of two servers: for the method, and for all else."""
    me = space.pods["client"]
    sample("local-rate-limit")
    eventually(me, address, PORT, lambda seen: all("limit" in text for text in seen), count=5)
    # The default bucket has not been touched by what has a condition of its own.
    seen = call(me, address, PORT, method="slow", argument=1, count=20)
    passed = seen["v1: slept 1"] + seen["v2: slept 1"]
    assert 4 <= passed <= 8 and passed + sum(count for text, count in seen.items() if "limit" in text) == 20, seen


def test_mirror(space, sample, address):
    """The other version gets all, and nobody its replies."""
    me = space.pods["client"]
    sample("mirror")
    eventually(me, address, PORT, {"v1: hello x"}, count=20)

    def fired():
        with me.dialed(client(PORT, address=address)) as demo:
            demo.fire("mirrored")
            assert demo.hello("x") == "v1: hello x"
        return all("fire mirrored" in space.pods[version].log(f"thrift-{PORT}") for version in ("v1", "v2"))
    wait_until(fired, "both versions to get what the client sends")


def test_consistent_hash(space, sample, address):
    me = space.pods["client"]
    sample("consistent-hash")

    def of_user(user: int) -> set[str]:
        return set(call(me, address, PORT, transport="header", headers={"user": f"user-{user}"}, count=5))

    def sticky():
        seen = [of_user(user) for user in range(12)]
        # Not the one server of all that an earlier test's route gave them.
        return seen if all(len(servers) == 1 for servers in seen) and set.union(*seen) == BOTH else None
    seen = wait_until(sticky, "each user to have one server", 30)
    assert [of_user(user) for user in range(12)] == seen, "on other connections as well"


def test_protocol(space, sample):
    """A name for a codec, and a route to another service."""
    sample("protocol")
    me, host = space.pods["client"], host_of("ledger", space)
    me.has(f"meltemi.hcm.out.{host}:9292")
    ledger = space.bed.kube.get("v1", "Service", "ledger", space.name)["spec"]["clusterIP"]
    eventually(me, ledger, 9292, {"v2: hello x"}, count=10)


@JAVA
def test_dubbo(space, sample):
    """Behind a ServiceEntry that selects workloads: by interface, method and attachment, with changes of both messages, and limits."""
    sample("dubbo")
    # At once: a JVM takes its time to begin.
    in_threads(lambda version: space.pods[version].dubbo_server(DUBBO_PORT), ("v1", "v2"))
    me = space.pods["client"]
    me.has(f"meltemi.hcm.out.peer.demo:{DUBBO_PORT}")
    for version in ("v1", "v2"):
        space.pods[version].has(f"meltemi.hcm.in.peer.demo:{DUBBO_PORT}")
    last = {}

    def routed():
        last.update(me.dubbo_calls(DUBBO_ADDRESS, DUBBO_PORT, "hello", "slow=1", attach="env=gray"))
        return "served-by=v2" in last["hello"]
    try:
        wait_until(routed, "the route", 60)
    except TimeoutError:
        raise AssertionError(f"last seen: {last}") from None
    assert "env=blue" in last["hello"] and "seen-by=mesh" in last["hello"] and "by-proxy=yes" in last["hello"]
    assert last["slow=1"] == "slept 1"
    got = me.dubbo_calls(DUBBO_ADDRESS, DUBBO_PORT, "hello", "many=50", "place", "place", "place", attach="env=prod")
    assert "served-by=v1" in got["hello"] and "env=prod" in got["hello"] and "mesh" not in got["hello"]
    assert got["many=50"] == "50 calls"
    assert got["place"].startswith("EXC") and "limit" in got["place"], got["place"]


def test_nothing_was_refused(space, samples):
    assert {name: pod.rejected() for name, pod in space.pods.items() if pod.rejected()} == {}
