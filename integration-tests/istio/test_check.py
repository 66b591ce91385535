"""`meltemi istio plan` and `check` on a cluster, and what the control plane says of objects that do not fit ours."""

import json
import subprocess

from cluster_objects import (FILTER, cluster, condition, controller, events, router, service, space, tcp_service,  # noqa: F401
                             within_two_seconds)
from harness import DIST, wait_until

PROXY = {"name": "istio-proxy", "image": "istio/proxyv2:1.31.0", "env": [{"name": "ENVOY_DYNAMIC_MODULES_SEARCH_PATH", "value": "/m"}]}
CARRIER = {"meltemi.dev/module": "1"}


def meltemi(cluster, *arguments: str) -> tuple[int, str]:
    command = [DIST / "meltemi", "istio", *arguments, "--kubeconfig", cluster.kube.kubeconfig]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def pod(space: str, name: str, *containers: dict, **labels: str) -> dict:
    containers = [{"name": "app", "image": "app"}, *containers]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": space, "labels": {"app": "orders"} | labels},
            "spec": {"containers": containers}}


def policy(space: str, path="/hello") -> dict:
    return {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": "no-hello", "namespace": space},
            "spec": {"action": "DENY", "rules": [{"to": [{"operation": {"paths": [path]}}]}]}}


def bills(space: str) -> list[dict]:
    """A Service of the tcp shape, with its pod and a policy that does not fit it."""
    return [tcp_service(space, "bills"), pod(space, "bills", PROXY, **CARRIER | {"app": "bills"}), policy(space)]



def test_a_cluster_before_and_after_the_control_plane(cluster, space, request):
    code, text = meltemi(cluster, "check")
    assert code == 0 and "no control plane of ours has ever been at work" in text, text
    assert "ok: Istio's kinds are installed" in text and "ok: our own kinds are installed" in text
    cluster.kube.apply(service(space), pod(space, "orders-1", PROXY, **CARRIER))
    request.getfixturevalue("controller")
    wait_until(lambda: "2 object(s) of ours are in the cluster" in meltemi(cluster, "check")[1], "what is written", 10)
    code, text = meltemi(cluster, "check")
    assert code == 0 and "ok: the control plane controller is at work" in text, text
    assert text.splitlines()[-1] == "1 port(s) of ours: 0 error(s), 1 warning(s)", "the version of istiod, which is not in this cluster"


def test_what_would_not_work_is_found(cluster, space):
    kube = cluster.kube
    old = PROXY | {"image": "istio/proxyv2:1.30.2"}
    kube.apply(service(space), pod(space, "old", old, **CARRIER), pod(space, "bare", **CARRIER), pod(space, "without", PROXY),
               *bills(space), service(space, "odd", codec="gopher"))
    code, text = meltemi(cluster, "check")
    for words in (f"error: Pod {space}/old: its sidecar is Istio 1.30.2, which loads no modules", f"error: Pod {space}/bare: has the label",
                  f"warning: Service {space}/orders: spec.selector: port 9090: 1 of its pods have no module",
                  f"error: AuthorizationPolicy {space}/no-hello: spec.rules[0].to: port 9090 of bills.{space}", "gopher"):
        assert words in text, text
    assert code == 1
    told = json.loads(meltemi(cluster, "check", "--json")[1])
    assert {"what", "level"} <= set(told["cluster"][0]) and any(one["kind"] == "AuthorizationPolicy" for one in told["problems"])


def test_the_plan_of_a_cluster(cluster, space):
    cluster.kube.apply(service(space), pod(space, "with", PROXY, **CARRIER), pod(space, "without", PROXY))
    _, text = meltemi(cluster, "plan")
    part = text.split(f"orders.{space}.svc.cluster.local:9090")[1].split("\nerror")[0]
    for words in ("thrift, shape native", f"workload: {space}/with", f"without the module, stays plain TCP: {space}/without",
                  f"writes: EnvoyFilter istio-system/meltemi-port-9090-thrift"):
        assert words in part, text


def test_events_tell_of_objects_of_istio_that_do_not_fit(cluster, space, controller):
    kube = cluster.kube
    route = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "astray", "namespace": space},
             "spec": {"hosts": ["orders"], "http": [{"route": [{"destination": {"host": "users"}}]}]}}
    listener = {"apiVersion": "networking.istio.io/v1", "kind": "Sidecar", "metadata": {"name": "listener", "namespace": space},
                "spec": {"egress": [{"port": {"number": 9090, "protocol": "TCP", "name": "rpc"}, "hosts": ["./*"]}]}}
    in_vain = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "in-vain", "namespace": space},
               "spec": {"hosts": ["bills"], "http": [{"route": [{"destination": {"host": "bills"}}]}]}}
    kube.apply(service(space), service(space, "users", codec="dubbo", port=20880), *bills(space), route, listener, in_vain)
    for name, words in (("no-hello", "denies every call"), ("astray", "has no port that speaks thrift"),
                        ("listener", "says that port 9090 is TCP"), ("in-vain", f"has no effect: port 9090 of bills.{space}")):
        [told] = wait_until(lambda: events(kube, name), f"an event about {name}", 10)
        assert told["type"] == "Warning" and words in told["note"], told
    # What was said of objects of others touches nothing of ours.
    kube.apply(router(space))
    wait_until(lambda: condition(kube, router(space), "Programmed").get("status") == "True", "programmed", 10)


def test_gateways(cluster, space, controller):
    """One that can no longer take calls goes on as it was, and is told of."""
    def gateway(codec: str) -> dict:
        return {"apiVersion": "networking.istio.io/v1", "kind": "Gateway",
                "metadata": {"name": "edge", "namespace": space, "annotations": {"meltemi.dev/codec": codec}},
                "spec": {"selector": {"gateway": space},
                         "servers": [{"port": {"number": 9090, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}]}}

    def written() -> dict | None:
        return cluster.kube.get(*FILTER, f"meltemi-gateway-{space}-edge", "istio-system")
    cluster.kube.apply(gateway("thrift"))
    good = within_two_seconds(written, "the filter of the gateway")
    cluster.kube.apply(gateway("gopher"))
    [told] = wait_until(lambda: events(cluster.kube, "edge"), "an event", 10)
    assert told["type"] == "Warning" and "there is no codec `gopher`" in told["note"], told
    assert written()["spec"] == good["spec"]
    code, text = meltemi(cluster, "check")
    assert code == 1 and f"error: Gateway {space}/edge: metadata.annotations[meltemi.dev/codec]: there is no codec `gopher`" in text, text
    cluster.kube.delete(gateway("gopher"))
    within_two_seconds(lambda: written() is None, "the filter to go")


def test_without_a_cluster_it_says_so(tmp_path):
    done = subprocess.run([DIST / "meltemi", "istio", "check", "--kubeconfig", tmp_path / "none"], capture_output=True, text=True)
    assert done.returncode != 0 and "cannot reach the cluster" in done.stderr and str(tmp_path / "none") in done.stderr
