"""Several replicas of our control plane on a real API server, restarts, and an API server that goes away."""

import signal
import time
import urllib.parse

import pytest

from apiserver import rules
from cluster_objects import VIRTUAL, cluster, condition, filters, router, service, space, tcp_service  # noqa: F401
from harness import wait_until
from kube import ApiError


def test_a_restart_deletes_nothing_before_all_is_known(cluster, space):
    kube = cluster.kube
    first = cluster.replica("first").start()
    kube.apply(service(space), router(space))
    wait_until(lambda: kube.get(*VIRTUAL, "meltemi-orders", space), "the virtual service", 30)
    before = {str(item) for item in (*filters(kube, space).values(), kube.get(*VIRTUAL, "meltemi-orders", space))}
    # While nobody looks, the router becomes one that is wrong: nothing good is known of it any more.
    first.stop()
    kube.apply(router(space, routes=[{"name": "r", "timeout": "soon"}]))
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "meltemi"}}
    all_rules = rules("clusterrole.yaml")
    kube.apply(role | {"rules": [rule for rule in all_rules if "services" not in rule["resources"]]})
    second = cluster.replica("second").start(ready=False)
    try:
        wait_until(lambda: second.is_leader(), "the lease", 30)
        wait_until(lambda: "Service: the watch is lost" in second.log(), "the refusal", 10)
        time.sleep(2)
        with pytest.raises(OSError):
            second.get("/readyz")

        def now():
            return {str(item) for item in (*filters(kube, space).values(), kube.get(*VIRTUAL, "meltemi-orders", space))}
        assert now() == before
        kube.apply(role | {"rules": all_rules})
        wait_until(second.is_ready, "it to be ready", 20)
        wait_until(lambda: condition(kube, router(space), "Accepted").get("status") == "False", "the status", 10)
        assert now() == before, "nothing was written anew, and what the wrong router once made stays"
    finally:
        kube.apply(role | {"rules": all_rules})
        second.stop()


def test_what_was_good_survives_a_restart(cluster, space):
    """What became wrong while somebody looked goes on as it was, also at those who start later, until it is right again."""
    kube, host = cluster.kube, f"bills.{space}.svc.cluster.local"

    def bills(timeout: str) -> dict:
        return router(space, "bills", host, routes=[{"name": "all", "timeout": timeout, "route": [{"destination": {"host": host}}]}])

    def routes(replica) -> list:
        return replica.json(f"/resources?type=Route&name={urllib.parse.quote(f'meltemi.hcm.out.{host}:9090')}")["Route"]

    def kept() -> dict:
        return kube.get("v1", "ConfigMap", "meltemi-last-good", "meltemi-system").get("data") or {}
    first = cluster.replica("first").start()
    # A number of its own: objects of other numbers change while services of other tests go.
    kube.apply(service(space, port=9401), tcp_service(space, "bills"), bills("5s"))
    wait_until(lambda: condition(kube, bills("5s"), "Programmed").get("status") == "True", "the good ones", 30)
    written, served = filters(kube, space), routes(first)
    assert written and "5s" in str(served)
    kube.apply(service(space, codec="gopher", port=9401), bills("soon"))
    wait_until(lambda: len(kept()) == 2, "what was good to be written down", 10)
    first.stop()
    second = cluster.replica("second").start()
    try:
        wait_until(second.is_leader, "the lease", 30)
        wait_until(lambda: condition(kube, bills("soon"), "Accepted").get("status") == "False", "the status", 10)
        assert (filters(kube, space), routes(second)) == (written, served)
        kube.apply(service(space, codec="dubbo", port=9401), bills("6s"))
        wait_until(lambda: "dubbo" in str(filters(kube, space)) and "6s" in str(routes(second)), "what is right now", 10)
        wait_until(lambda: kept() == {}, "nothing to be kept", 10)
    finally:
        second.stop()


def test_one_of_two_writes_and_the_other_follows(cluster, space):
    kube = cluster.kube
    replicas = [cluster.replica("left").start(), cluster.replica("right").start()]
    leader = wait_until(lambda: next((one for one in replicas if one.is_leader()), None), "a leader", 30)
    [other] = [one for one in replicas if one is not leader]
    kube.apply(service(space))
    wait_until(lambda: filters(kube, space), "the filters", 5)
    wait_until(lambda: "EnvoyFilter" in leader.log(), "the leader's word of it", 5)
    assert "EnvoyFilter" not in other.log()
    assert other.is_ready(), "both serve"

    leader.stop()
    wait_until(other.is_leader, "the lease to be handed over", 4)
    kube.apply(service(space, codec="dubbo"))
    wait_until(lambda: "dubbo" in str(filters(kube, space)), "the new leader to write", 4)

    third = cluster.replica("third").start()
    other.stop(signal.SIGKILL)
    kube.apply(service(space, codec="thrift"))
    wait_until(third.is_leader, "a dead leader's lease to run out", 30)
    wait_until(lambda: "dubbo" not in str(filters(kube, space)), "the third to write", 4)
    third.stop()


def test_the_api_server_goes_and_comes_back(cluster, space):
    kube = cluster.kube
    replica = cluster.replica("patient").start()
    try:
        # A number of its own: objects of other numbers change while services of other tests go.
        kube.apply(service(space, port=9400))
        before = wait_until(lambda: filters(kube, space), "the filters", 30)
        kube.stop_api()
        time.sleep(3)
        assert replica.is_ready(), "what is known is served"
        kube.start_api()

        def late():
            try:
                kube.apply(service(space, "late", port=9191))
                return filters(kube, f"late.{space}")
            except ApiError:
                return None  # It is there, but not for all yet.
        wait_until(late, "news", 30)
        after = filters(kube, space)
        assert {name: after[name] for name in before} == before
    finally:
        replica.stop()
