"""The steps of the page's "Install", from its own text: what stands there is what is run. There is no kubelet and no registry, so
processes of the bed are what the pods would be: the control plane with the account and the arguments that Helm has made, sidecars
with the labels that the injection gives."""

import re
import shlex
import subprocess
import textwrap
import time

import pytest
import yaml

import controller as control
import fetch
import injection
import test_chart
from harness import DIST, ROOT, wait_until
from servers import Server, per_frame
from wire import Peer, call, reply

SECTION = (ROOT / "docs" / "istio.md").read_text().split("\n## Install\n")[1].split("\n## ")[0]
FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
BLOCKS = FENCED.findall(SECTION)
TEMPLATE, FIRST, CANARY = (textwrap.dedent(text) for _, kind, text in BLOCKS if kind == "yaml")
# In blocks of their own, or among other words.
WORDS = [text for *_, text in BLOCKS] + re.findall(r"`([^`]+)`", FENCED.sub("", SECTION))
NAMESPACE = "meltemi-system"
# Of the command line of the Deployment, what the bed says otherwise.
PLACES = ("--kubernetes", "--xds=", "--admin=", "--xds-service=")


def command(beginning: str) -> list[str]:
    """A command of the page, in its words."""
    text = next(text for text in WORDS if text.strip().startswith(beginning))
    return shlex.split(text.replace("\\\n", " ").replace("\n", " "))


@pytest.fixture
def helm(bed, tmp_path):
    if reason := fetch.tool_obstacle("helm") or fetch.injection_obstacle():
        pytest.skip(f"SKIPPED Helm: {reason}")
    helm = test_chart.Helm(tmp_path, bed.kubeconfig)
    yield lambda words, *more: helm(*(ROOT / word if word == "install/chart/meltemi" else word for word in words[1:]), *more)
    helm.attempt("uninstall", "meltemi", "--namespace", NAMESPACE)


@pytest.fixture
def shop(bed, envoy):
    """The namespace that the page has."""
    space = bed.space("shop", envoy=envoy, module=DIST)
    yield space
    space.close()
    wait_until(lambda: bed.kube.get("v1", "Namespace", "shop") is None, "the namespace to go", 60)


def install(bed, helm, tmp_path) -> control.Controller:
    """Step 2."""
    # Nothing will be ready without a kubelet, and other tests may have left what the chart has.
    helm(command("helm install"), "--wait=false", "--take-ownership", "--force-conflicts")
    [container] = bed.kube.get("apps/v1", "Deployment", "meltemi", NAMESPACE)["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example/meltemi:0.1.0"
    options = [word for word in container["args"] if word.startswith("--") and not word.startswith(PLACES)]
    account = bed.kube.write_kubeconfig(tmp_path / "account", bed.kube.account_token(NAMESPACE, "meltemi"))
    return control.Controller(bed, "installed", account, (*options, "--stock-envoy")).start()


def labels(bed, name: str, **more: str) -> dict:
    """Step 3: those of a pod with the page's annotation, after Istio's own injection."""
    pod = {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "app", "image": "app", "resources": {}}]},
           "metadata": {"name": name, "namespace": "shop", "labels": {"app": name} | more} | yaml.safe_load(TEMPLATE)}
    return injection.inject(bed.host, pod)["metadata"]["labels"]


def answers(pod, address: str, method: str, count: int) -> list[bytes]:
    with pod.inside():
        peer = Peer.connect(9090, address=address)
    frames = []
    for number in range(count):
        peer.send(call(number, method))
        frames.append(peer.frame())
    peer.close()
    return frames


def test_the_steps_in_their_order(bed, helm, shop, tmp_path, envoy, capsys):
    begun = time.monotonic()
    installed = install(bed, helm, tmp_path)
    try:
        shop.start({"client": {"labels": labels(bed, "client")}} | {
            version: {"labels": labels(bed, "orders", version=version)} for version in ("v1", "v2")})
        me = shop.pods["client"]
        for version in ("v1", "v2"):
            with shop.pods[version].inside():
                Server(per_frame(lambda frame, version=version: reply(frame, version.encode())), "0.0.0.0", 9090)
        assert {pod.labels["meltemi.dev/module"] for pod in shop.pods.values()} == {"1"}
        first = yaml.safe_load(FIRST)
        shop.apply(first)
        address = bed.kube.get("v1", "Service", "orders", "shop")["spec"]["clusterIP"]
        me.takes("orders.shop.svc.cluster.local", 9090)
        check = subprocess.run([DIST / "meltemi", *command("meltemi istio check")[1:-1], "--kubeconfig", bed.kubeconfig],
                               capture_output=True, text=True, timeout=60)
        told = [line for line in check.stdout.splitlines() if line.startswith(("error", "warning")) and "shop/" in line]
        assert "the control plane" in check.stdout and "is at work" in check.stdout and told == [], check.stdout
        shop.apply(*yaml.safe_load_all(CANARY))

        def canary():
            some, quotes = (answers(me, address, method, 60) for method in ("other", "quote"))
            counts = [sum(version in frame for frame in some) for version in (b"v1", b"v2")]
            return counts[0] > counts[1] > 0 and all(b"v2" in frame for frame in quotes)
        wait_until(canary, "the canary", 30)
        with capsys.disabled():
            print(f"\nfrom `helm install` to the first canary, with Envoy {envoy.parents[2].name}: {time.monotonic() - begun:.0f} s")
    finally:
        installed.stop()
    helm(command("helm uninstall"))
    subprocess.run([DIST / "meltemi", "istio", "remove", "--kubeconfig", bed.kubeconfig], check=True, capture_output=True, timeout=60)
    # It has taken the lease, so that nobody writes for a while; other tests' control planes are not to wait for that.
    bed.kube.delete({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "meltemi", "namespace": NAMESPACE}})
    me.lacks("meltemi.inlet")
    assert len(answers(me, address, "quote", 5)) == 5, "plain TCP, as before"
    assert {name: pod.rejected() for name, pod in shop.pods.items() if pod.rejected()} == {}
