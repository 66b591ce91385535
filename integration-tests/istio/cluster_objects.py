"""A cluster without a mesh for tests of what we read and write in it, and the objects that they use."""

import re

import pytest

import fetch
from apiserver import Cluster
from harness import wait_until

FILTER = ("networking.istio.io/v1alpha3", "EnvoyFilter")
VIRTUAL = ("networking.istio.io/v1", "VirtualService")
OURS = "meltemi.dev/v1alpha1"
LABEL = {"app.kubernetes.io/managed-by": "meltemi"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if not (fetch.TARGET / "stamp").exists():
        pytest.skip("SKIPPED the API server: run `make testbed` first")
    cluster = Cluster(fetch.binaries(), tmp_path_factory.mktemp("cluster"))
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


@pytest.fixture
def controller(cluster):
    """The replica of one test."""
    with cluster.leading("controller") as replica:
        yield replica


@pytest.fixture
def space(cluster, request):
    """A namespace of the test's own."""
    name = re.sub("[^a-z0-9]+", "-", request.node.name.lower())[:60].strip("-")
    cluster.kube.namespace(name)
    yield name
    cluster.kube.delete({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


def service(space: str, name="orders", codec="thrift", port=9090, **port_fields) -> dict:
    fields = {"name": "rpc", "port": port, "appProtocol": f"meltemi.dev/{codec}"} | port_fields
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": space},
            "spec": {"selector": {"app": name}, "ports": [fields]}}


def tcp_service(space: str, name="orders") -> dict:
    """On a port of the tcp shape."""
    item = service(space, name)
    item["spec"]["ports"] = [{"name": "tcp-metaprotocol-thrift", "port": 9090}]
    return item


def router(space: str, name="orders", host=None, **spec) -> dict:
    host = host or f"orders.{space}.svc.cluster.local"
    routes = [{"name": "all", "route": [{"destination": {"host": host}}]}]
    return {"apiVersion": OURS, "kind": "MetaRouter", "metadata": {"name": name, "namespace": space},
            "spec": {"hosts": [host], "routes": routes} | spec}


def filters(kube, about: str) -> dict[str, dict]:
    """Our EnvoyFilters that say something about this namespace."""
    return {f"{item['metadata']['namespace']}/{item['metadata']['name']}": item for item in kube.list(*FILTER)
            if about in str(item["spec"]) or item["metadata"]["namespace"] == about}


def within_two_seconds(condition, what: str):
    return wait_until(condition, what, 2)


def condition(kube, item: dict, kind: str) -> dict:
    now = kube.request("GET", kube.path_of(item))
    generation, status = now["metadata"]["generation"], now.get("status", {})
    if status.get("observedGeneration") != generation:
        return {}
    return next((one for one in status["conditions"] if one["type"] == kind), {})


def events(kube, name: str) -> list[dict]:
    return [one for one in kube.list("events.k8s.io/v1", "Event") if one["regarding"]["name"] == name]
