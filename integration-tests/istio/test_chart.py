"""Our chart, by Helm itself: what it makes of its values, and an installation from beginning to end on a real API server."""

import os
import subprocess

import pytest
import yaml

import fetch
from apiserver import ACCOUNT, NAMESPACE, Cluster
from cluster_objects import OURS, filters, router, service
from harness import DIST, ROOT, wait_until

CHART = ROOT / "install" / "chart" / "meltemi"
CRD = "apiextensions.k8s.io/v1", "CustomResourceDefinition"
DEPLOYMENT = "apps/v1", "Deployment"
ALWAYS = {"ClusterRole", "ClusterRoleBinding", "ConfigMap", "Deployment", "Role", "RoleBinding", "Service", "ServiceAccount"}
# Values, and words that the Deployment then has.
VARIANTS = {
    "defaults": ({}, ["--telemetry=true", "--root-namespace=istio-system", "meltemi/meltemi:0.1.0"]),
    "a certificate of the mesh": (
        {"xds": {"tls": {"mode": "istio", "trustDomain": "corp.test"}}},
        ["--xds-service-san=spiffe://corp.test/ns/meltemi-system/sa/meltemi", "--xds-client-id=spiffe://corp.test/*", "OUTPUT_CERTS"]),
    "a certificate in a Secret": (
        {"xds": {"tls": {"mode": "secret", "secretName": "xds", "clientIds": ["spiffe://a.test/ns/b/sa/c"]}}},
        ["--xds-service-ca=/etc/meltemi/xds/ca.crt", "--xds-client-id=spiffe://a.test/ns/b/sa/c"]),
    "everything else": (
        {"image": {"repository": "registry.test:5000/meltemi", "tag": "1", "pullPolicy": "Always", "pullSecrets": [{"name": "pull"}]},
         "replicas": 1, "istioNamespace": "mesh", "clusterDomain": "corp.test", "crds": {"install": False}, "stockEnvoy": True,
         "wasm": {"code": "https://files.test/meltemi.wasm", "sha256": "0" * 64}, "sidecars": {"telemetry": False, "accessLog": "/dev/stdout"}, "log": "text", "podDisruptionBudget": {"enabled": False},
         "nodeSelector": {"a": "b"}, "tolerations": [{"key": "a", "operator": "Exists"}], "podAnnotations": {"a": "b"},
         "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
             {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "meltemi"}}}]}}},
        ["registry.test:5000/meltemi:1", "--stock-envoy", "--telemetry=false", "--access-log=/dev/stdout", "--root-namespace=mesh",
         "--wasm=https://files.test/meltemi.wasm", f"--wasm-sha256={'0' * 64}",
         "--xds-service=meltemi.meltemi-system.svc.corp.test:18000"]),
}
REFUSED = {
    "no Secret": ({"xds": {"tls": {"mode": "secret"}}}, "secretName"),
    "a mode": ({"xds": {"tls": {"mode": "mutual"}}}, "/xds/tls/mode"),
    "no replica": ({"replicas": 0}, "/replicas"),
    "an identity": ({"xds": {"tls": {"mode": "istio", "clientIds": ["spiffe://*/ns/a"]}}}, "/xds/tls/clientIds/0"),
    "a hash": ({"wasm": {"code": "http://a/b", "sha256": "12"}}, "/wasm/sha256"),
    "a word misspelt": ({"sidecars": {"acessLog": "/dev/stdout"}}, "acessLog"),
}


class Helm:
    """Helm with files of its own, for one cluster."""

    def __init__(self, folder, kubeconfig):
        self.folder = folder
        homes = {f"HELM_{name}_HOME": str(folder / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        self.environment = os.environ | homes | {"KUBECONFIG": str(kubeconfig)}

    def attempt(self, *arguments, values: dict | None = None) -> subprocess.CompletedProcess:
        if values is not None:
            file = self.folder / "values.yaml"
            file.write_text(yaml.safe_dump(values))
            arguments = (*arguments, "--values", file)
        return subprocess.run([fetch.tool("helm"), *map(str, arguments)], capture_output=True, text=True, timeout=120, env=self.environment)

    def __call__(self, *arguments, values: dict | None = None) -> str:
        done = self.attempt(*arguments, values=values)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def template(self, values: dict) -> list[dict]:
        text = self("template", "meltemi", CHART, "--namespace", NAMESPACE, "--kube-version", "1.36.0", values=values)
        return [item for item in yaml.safe_load_all(text) if item]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Nothing of ours is in it."""
    if not (fetch.TARGET / "stamp").exists():
        pytest.skip("SKIPPED the API server: run `make testbed` first")
    cluster = Cluster(fetch.binaries(), tmp_path_factory.mktemp("chart"))
    try:
        cluster.bare()
        yield cluster
    finally:
        cluster.down()


@pytest.fixture(scope="module")
def helm(cluster, tmp_path_factory):
    if reason := fetch.tool_obstacle("helm"):
        pytest.skip(f"SKIPPED Helm: {reason}")
    return Helm(tmp_path_factory.mktemp("helm"), cluster.kube.kubeconfig)


@pytest.mark.parametrize("case", VARIANTS)
def test_lint(helm, case):
    assert "0 chart(s) failed" in helm("lint", CHART, "--strict", "--kube-version", "1.36.0", values=VARIANTS[case][0])


@pytest.mark.parametrize("case", VARIANTS)
def test_what_is_rendered_is_what_the_api_server_takes(cluster, helm, case):
    """Every object, to the last field, and pods that the strictest of its standards for pods lets in."""
    values, words = VARIANTS[case]
    items = helm.template(values)
    kinds = {item["kind"] for item in items}
    assert ALWAYS <= kinds, kinds
    assert ("CustomResourceDefinition" in kinds, "PodDisruptionBudget" in kinds) == (case != "everything else",) * 2
    kube = cluster.kube
    kube.namespace(NAMESPACE, **{"pod-security.kubernetes.io/enforce": "restricted"})
    for item in items:
        kube.apply(item, dryRun="All", fieldValidation="Strict")
    [deployment] = [item for item in items if item["kind"] == "Deployment"]
    for word in words:
        assert word in yaml.safe_dump(deployment, width=1000), word
    template = deployment["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "spec": template["spec"],
           "metadata": template["metadata"] | {"name": "meltemi-1", "namespace": NAMESPACE}}
    kube.apply(pod, dryRun="All", fieldValidation="Strict")


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_values_are_refused(helm, case):
    values, word = REFUSED[case]
    done = helm.attempt("template", "meltemi", CHART, values=values)
    assert done.returncode and word in done.stderr, done.stderr


def test_an_old_kubernetes_is_refused(helm):
    done = helm.attempt("template", "meltemi", CHART, "--kube-version", "1.28.0")
    assert done.returncode and "1.29" in done.stderr, done.stderr


def test_install_work_upgrade_and_uninstall(cluster, helm):
    """Without a kubelet nothing starts; our binary then works as the account that Helm has made, under its rights."""
    kube, where = cluster.kube, ("--namespace", NAMESPACE)
    helm("install", "meltemi", CHART, *where, "--create-namespace", "--wait=false", values={})
    assert kube.get(*DEPLOYMENT, "meltemi", NAMESPACE)["spec"]["replicas"] == 2
    cluster.use_account()
    kube.namespace("shop")
    with cluster.leading("installed"):
        kube.apply(service("shop"), router("shop"))
        wait_until(lambda: len(filters(kube, "shop")) == 2, "what we write", 15)
        helm("upgrade", "meltemi", CHART, *where, "--wait=false", values={"replicas": 3, "log": "text"})
        assert kube.get(*DEPLOYMENT, "meltemi", NAMESPACE)["spec"]["replicas"] == 3
        wait_until(lambda: kube.get(OURS, "MetaRouter", "orders", "shop").get("status"), "a status", 15)
    helm("uninstall", "meltemi", *where)
    assert kube.get(*DEPLOYMENT, "meltemi", NAMESPACE) is None and kube.get("v1", "ServiceAccount", ACCOUNT, NAMESPACE) is None
    # As the docs say: definitions, the user's objects and what was written stay until they are removed.
    assert kube.get(*CRD, "metarouters.meltemi.dev") and kube.get(OURS, "MetaRouter", "orders", "shop")
    assert len(filters(kube, "shop")) == 2
    remove = [DIST / "meltemi", "istio", "remove", "--kubeconfig", kube.kubeconfig, *where]
    subprocess.run(remove, check=True, capture_output=True, timeout=60)
    assert not filters(kube, "shop") and kube.get(OURS, "MetaRouter", "orders", "shop")
    helm("install", "meltemi", CHART, *where, "--wait=false", values={})
