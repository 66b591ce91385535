"""A real API server, istiod and our control plane on loopback, and simulated sidecars of either; without pods, so that there may be a test
bed on the machine as well."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "integration-tests"), str(ROOT / "integration-tests" / "istio"), str(ROOT / "scripts" / "testbed")]

import istiod  # noqa: E402
from apiserver import Cluster  # noqa: E402
from harness import free_port, wait_until  # noqa: E402

TOOL = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "meltemi-bench"
NAMESPACE = "shop"


class Stand:
    """The cluster, and istiod beside it."""

    def __init__(self, binaries: pathlib.Path, folder: pathlib.Path):
        self.binaries, self.folder = binaries, folder
        self.cluster = Cluster(binaries, folder)
        self.kube, self.children = self.cluster.kube, self.cluster.children
        self.ports = istiod.Ports(*(free_port() for _ in istiod.Ports._fields))

    def up(self):
        self.cluster.up()
        self.kube.namespace(NAMESPACE)
        self.istiod = istiod.start(self.children, self.binaries, self.kube.kubeconfig, self.folder, "127.0.0.1", self.ports, {},
                                   PILOT_ENABLE_GATEWAY_API="false")
        wait_until(lambda: self.pilot("/ready") is not None, "istiod", 90)

    def pilot(self, path: str) -> str | None:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports.http}{path}", timeout=60) as answer:
            return answer.read().decode()

    def down(self):
        self.children.close()

    def flood(self, *items: dict):
        """Applies objects, several at a time."""
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(self.kube.apply, items))


class Sidecars:
    """A process with simulated sidecars."""

    def __init__(self, stand: Stand, name: str, server: int, count: int, *options: str):
        self.count = count
        self.log = open(stand.folder / f"{name}.log", "w")
        self.child = subprocess.Popen([TOOL, "sidecars", "--server", f"http://127.0.0.1:{server}", "--count", str(count), *options],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True)

    def ask(self, command: str) -> dict:
        self.child.stdin.write(f"{command}\n")
        self.child.stdin.flush()
        return json.loads(self.child.stdout.readline())

    def tell(self) -> dict:
        return self.ask("tell")

    def mark(self):
        self.ask("mark")

    def all_got(self, kind: str, seconds=60) -> dict:
        """Waits until every sidecar got a response of the type since the mark."""
        def got():
            types = self.tell()["types"]
            return types.get(kind) if types.get(kind, {}).get("sidecars") == self.count else None
        return wait_until(got, f"{kind} for all {self.count} sidecars", seconds)

    def quiet(self, pause=1.5, seconds=120) -> dict:
        """Waits until nothing has come for a while."""
        end, before, since = time.monotonic() + seconds, None, time.monotonic()
        while time.monotonic() < end:
            told = self.tell()
            if told != before:
                before, since = told, time.monotonic()
            elif time.monotonic() - since > pause:
                return told
            time.sleep(0.1)
        raise TimeoutError(f"responses do not end: {before}")

    def stop(self):
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()
        self.log.close()


def cpu(pid: int) -> float:
    """Seconds of processor that a process has used."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> float:
    """Resident memory in MiB."""
    pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

