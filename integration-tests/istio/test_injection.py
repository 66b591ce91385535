"""Our templates through a real istiod's injection: the pod that comes out of it."""

import pytest

import fetch
import injection
from harness import wait_until

IMAGE = "meltemi/meltemi:0.1.0"


@pytest.fixture(scope="module")
def injector(bed):
    reason = fetch.injection_obstacle()
    if reason:
        pytest.skip(f"SKIPPED Istio's injection: {reason}")
    bed.kube.namespace("injected")
    yield bed
    node(bed, "")
    bed.kube.delete({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "injected"}})


def node(bed, version: str):
    """Istio takes native sidecars where all nodes know them."""
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node"}}
    empty = dict.fromkeys(("architecture", "bootID", "containerRuntimeVersion", "kernelVersion", "kubeProxyVersion", "machineID",
                           "operatingSystem", "osImage", "systemUUID"), "")
    bed.kube.status(node, nodeInfo=empty | {"kubeletVersion": version})


def container(name: str) -> dict:
    """As the API server hands it to webhooks, with what is empty."""
    return {"name": name, "image": "app", "resources": {}}


def injected(bed, templates: str, **annotations: str) -> dict:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "orders", "namespace": "injected", "labels": {"app": "orders"}},
           "spec": {"containers": [container("app")], "initContainers": [container("own")]}}
    if templates:
        pod["metadata"]["annotations"] = {"inject.istio.io/templates": templates} | annotations
    return injection.inject(bed.host, pod)


def proxy_of(pod: dict) -> dict:
    [proxy] = [one for one in pod["spec"]["containers"] + pod["spec"]["initContainers"] if one["name"] == "istio-proxy"]
    return proxy


def check_proxy(pod: dict, role="sidecar"):
    assert pod["metadata"]["labels"]["meltemi.dev/module"] == "1" and pod["metadata"]["labels"]["app"] == "orders"
    proxy = proxy_of(pod)
    assert "proxyv2" in proxy["image"] and proxy["args"][:2] == ["proxy", role], "it is Istio's own proxy, whole"
    assert {"name": "ENVOY_DYNAMIC_MODULES_SEARCH_PATH", "value": "/opt/meltemi/module"} in proxy["env"]
    assert {"name": "meltemi-module", "mountPath": "/opt/meltemi", "readOnly": True} in proxy["volumeMounts"]
    names = [one["name"] for one in pod["spec"]["containers"] + pod["spec"]["initContainers"]]
    assert len(set(names)) == len(names) and ("app" in names) == (role == "sidecar")


@pytest.fixture(params=["v1.36.0", "v1.20.0"], ids=["native", "ordinary"])
def native(injector, request):
    """Whether Istio makes native sidecars."""
    node(injector, request.param)
    native = request.param == "v1.36.0"

    def follows():
        return any(one["name"] == "istio-proxy" for one in injected(injector, "")["spec"]["initContainers"]) == native
    wait_until(follows, "istiod to know the node", 20)
    return native


def test_an_image_volume(injector, native):
    pod = injected(injector, "meltemi,sidecar")
    check_proxy(pod)
    [volume] = [one for one in pod["spec"]["volumes"] if one["name"] == "meltemi-module"]
    assert volume["image"] == {"reference": IMAGE, "pullPolicy": "IfNotPresent"}
    assert (proxy_of(pod) in pod["spec"]["initContainers"]) == native


def test_a_gateway(injector):
    """Whose pods have no container but the proxy, by Istio's own way of saying it."""
    pod = {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [container("istio-proxy") | {"image": "auto"}]},
           "metadata": {"name": "edge", "namespace": "injected", "labels": {"app": "orders"},
                        "annotations": {"inject.istio.io/templates": "meltemi,gateway"}}}
    pod = injection.inject(injector.host, pod)
    pod["spec"].setdefault("initContainers", [])
    check_proxy(pod, "router")


def test_an_init_container_ends_before_the_proxy_starts(injector, native):
    pod = injected(injector, "meltemi-copy,sidecar", **{"sidecar.istio.io/nativeSidecar": "false"})
    check_proxy(pod)
    assert proxy_of(pod) in pod["spec"]["containers"], "all init containers end before it starts"
    [copy] = [one for one in pod["spec"]["initContainers"] if one["name"] == "meltemi-module"]
    assert (copy["image"], copy["args"]) == (IMAGE, ["install-module", "/opt/meltemi/module"])
    [volume] = [one for one in pod["spec"]["volumes"] if one["name"] == "meltemi-module"]
    assert volume["emptyDir"] == {}


def test_a_native_sidecar_starts_before_the_copy(injector, native):
    """Why the pod must ask for an ordinary one; `meltemi istio check` tells it."""
    pod = injected(injector, "meltemi-copy,sidecar")
    check_proxy(pod)
    names = [one["name"] for one in pod["spec"]["initContainers"]]
    assert ("istio-proxy" in names and names.index("istio-proxy") < names.index("meltemi-module")) == native


def test_pods_that_do_not_ask_are_as_without_us(injector, native):
    pod = injected(injector, "")
    assert "meltemi" not in str(pod).replace("meltemi-testbed", "")
