"""A Kubernetes API server without a mesh, and our control plane under the rights that the chart gives it."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess

import yaml

from harness import DIST, ROOT, free_port, get, wait_until
from kube import Kubernetes
from processes import Process

CHART = ROOT / "install" / "chart" / "meltemi" / "templates"
NAMESPACE = "meltemi-system"
ACCOUNT = "meltemi"


class Children:
    """Processes that end with the tests. No mesh, so there may be others like it on the machine."""

    def __init__(self):
        self.processes: list[Process] = []

    def start(self, command, log: pathlib.Path, **options) -> Process:
        process = Process(command, log, **options)
        self.processes.append(process)
        return process

    def forget(self, process: Process, how=signal.SIGTERM):
        process.stop(how)
        self.processes.remove(process)

    def close(self):
        for process in reversed(self.processes):
            process.stop(signal.SIGKILL)


def rules(file: str) -> list[dict]:
    """The rules of a role of the chart, word for word: no template stands in them."""
    text = (CHART / file).read_text().split("\nrules:\n")[1].split("\n---")[0]
    assert "{{" not in text
    return yaml.safe_load(text)


class Cluster:
    """An API server with Istio's definitions and ours, and the account that the control plane has."""

    def __init__(self, binaries: pathlib.Path, folder: pathlib.Path):
        self.folder, self.binaries = folder, binaries
        self.children = Children()
        self.kube = Kubernetes(self.children, binaries, folder / "kubernetes")

    def up(self):
        self.bare()
        ours = self.folder / "crds.yaml"
        ours.write_text(subprocess.run([DIST / "meltemi", "crds"], check=True, capture_output=True, text=True).stdout)
        self.kube.definitions(ours)
        self.account()

    def bare(self):
        """With Istio's definitions alone."""
        self.kube.up()
        self.kube.namespace("istio-system")
        self.kube.definitions(self.binaries / "istio-crds.yaml")

    def account(self):
        """The chart's service account, with the chart's rights and no others."""
        self.kube.namespace(NAMESPACE)
        group = "rbac.authorization.k8s.io"
        subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}
        self.kube.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": NAMESPACE}})
        self.kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "meltemi-last-good", "namespace": NAMESPACE}})
        for kind, file, place in (("ClusterRole", "clusterrole.yaml", {}), ("Role", "role.yaml", {"namespace": NAMESPACE})):
            metadata = {"name": "meltemi"} | place
            self.kube.apply(
                {"apiVersion": f"{group}/v1", "kind": kind, "metadata": metadata, "rules": rules(file)},
                {"apiVersion": f"{group}/v1", "kind": f"{kind}Binding", "metadata": metadata, "subjects": [subject],
                 "roleRef": {"apiGroup": group, "kind": kind, "name": "meltemi"}})
        self.use_account()

    def use_account(self):
        """What replicas are from now on: the service account as it is in the cluster."""
        self.kubeconfig = self.kube.write_kubeconfig(self.folder / "account", self.kube.account_token(NAMESPACE, ACCOUNT))

    def replica(self, name: str, *options: str) -> "Replica":
        return Replica(self, name, ("--stock-envoy", *options))

    @contextlib.contextmanager
    def leading(self, name: str):
        """A replica that has the lease, as long as it is used."""
        replica = self.replica(name).start()
        try:
            wait_until(replica.is_leader, "the lease", 30)
            yield replica
        finally:
            replica.stop()

    def down(self):
        self.children.close()


class Replica:
    """One process of the control plane."""

    def __init__(self, cluster: Cluster, name: str, options=()):
        self.cluster, self.name, self.options = cluster, name, options
        self.xds, self.admin = free_port(), free_port()

    def start(self, ready=True):
        command = [DIST / "meltemi", "serve", "--kubernetes", "--kubeconfig", self.cluster.kubeconfig, "--namespace", NAMESPACE,
                   "--xds", f"127.0.0.1:{self.xds}", "--admin", f"127.0.0.1:{self.admin}", "--xds-service",
                   f"meltemi.{NAMESPACE}.svc:18000", *self.options]
        self.process = self.cluster.children.start(command, self.cluster.folder / f"{self.name}.log",
                                                   env=os.environ | {"POD_NAME": self.name})
        if ready:
            wait_until(self.is_ready, f"{self.name} to be ready", 30)
        return self

    def is_ready(self) -> bool:
        return self.get("/readyz") == "ready\n"

    def is_leader(self) -> bool:
        lease = self.cluster.kube.get("coordination.k8s.io/v1", "Lease", "meltemi", NAMESPACE)
        return bool(lease) and lease["spec"].get("holderIdentity", "").startswith(f"{self.name}_")

    def stop(self, how=signal.SIGTERM):
        self.cluster.children.forget(self.process, how)

    def get(self, path: str) -> str:
        return get(self.admin, path)

    def json(self, path: str):
        return json.loads(self.get(path))

    def log(self) -> str:
        return self.process.log()
