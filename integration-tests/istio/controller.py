"""Our control plane against the bed's API server."""

import pathlib
import signal
import subprocess

from harness import DIST, free_port, get, wait_until

MELTEMI = DIST / "meltemi"


def obstacle() -> str | None:
    """Why this build cannot serve a cluster."""
    told = subprocess.run([MELTEMI, "serve", "--help"], capture_output=True, text=True).stdout
    return None if "--kubernetes" in told else "this build has no `meltemi serve --kubernetes`"


class Controller:
    """One replica; sidecars reach its xDS on the bridge."""

    def __init__(self, bed, name="controller", kubeconfig: pathlib.Path | None = None, options=("--stock-envoy",)):
        self.bed, self.name, self.options = bed, name, options
        self.kubeconfig = kubeconfig or bed.kubeconfig
        self.xds, self.admin = free_port(), free_port()
        self.process = None

    def start(self):
        """Starts it, or starts it again on the same ports."""
        self.process = self.bed.registry.start(
            [MELTEMI, "serve", "--kubernetes", "--kubeconfig", self.kubeconfig, "--xds", f"{self.bed.host}:{self.xds}", "--admin",
             f"127.0.0.1:{self.admin}", "--xds-service", f"{self.bed.host}:{self.xds}", *self.options], self.bed.folder / f"{self.name}.log")
        wait_until(lambda: self.get("/readyz"), f"{self.name}\n{self.process.log()[-2000:]}", 60)
        return self

    def stop(self, how=signal.SIGTERM):
        self.bed.registry.forget(self.process, how)

    def get(self, path: str) -> str:
        return get(self.admin, path)


def prepare(bed):
    """What a cluster has before the control plane comes."""
    bed.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "meltemi-system"}})
    bed.kube.apply(definitions())


def definitions() -> str:
    """The CRDs as `meltemi crds` prints them."""
    return subprocess.run([MELTEMI, "crds"], check=True, capture_output=True, text=True).stdout
