"""Starts real Envoys, our real control plane and real peers on free ports, and ends them all."""

import fcntl
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
PEERS = pathlib.Path(__file__).resolve().parent / "peers"
# What runs our filters: the dynamic module, or Wasm.
FILTER_HOST = os.environ.get("MELTEMI_HOST", "module")
WASM = DIST / "meltemi.wasm"
# What Envoy puts before the names of our statistics.
STATS = {"module": "dynamicmodulescustom.", "wasm": "wasmcustom."}[FILTER_HOST]
# And before those of our filter state.
STATE = {"module": "", "wasm": "wasm."}[FILTER_HOST]
# Bytes by which a client that does not read can make an Envoy grow. In Wasm nobody says that it does not: all that it may have in
# flight is asked for, and held several times on its way through the hop.
MOST_HELD = {"module": 100 << 20, "wasm": 220 << 20}[FILTER_HOST]


PORTS = range(10_000, 32_000)
LAST_PORT = pathlib.Path(tempfile.gettempdir()) / "meltemi-last-port"


def free_port() -> int:
    """A port that nobody listens on, and that nobody is given again soon, on the whole machine: Envoy would share one without a
    word. Outgoing connections have theirs elsewhere, from 32,768 on."""
    with open(LAST_PORT, "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        port = int(file.read() or PORTS.start)
        for _ in PORTS:
            port = port + 1 if port + 1 in PORTS else PORTS.start
            with socket.socket() as probe:
                try:
                    probe.bind(("", port))
                except OSError:
                    continue
            file.truncate(0)
            file.write(str(port))
            return port
    raise OSError("no port is free")


def wait_until(condition, what: str, seconds: float = 20):
    """Polls until `condition` is true and gives its value."""
    end = time.monotonic() + seconds
    while True:
        try:
            value = condition()
            if value:
                return value
        except OSError:
            pass
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(0.02)


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return answer.read().decode()


class World:
    """A control plane over a folder, an Envoy, and whatever servers a test starts."""

    def __init__(self, envoy: pathlib.Path, folder: pathlib.Path):
        self.envoy_binary, self.folder = envoy, folder
        self.config = folder / "config"
        self.config.mkdir()
        self.processes: dict[str, subprocess.Popen] = {}
        self.ended: set[str] = set()
        self.expects_crash = False
        self.xds, self.admin, self.envoy_admin = free_port(), free_port(), free_port()

    def start(self, name: str, *command, **environment) -> subprocess.Popen:
        log = open(self.folder / f"{name}.log", "ab")
        env = os.environ | {key: str(value) for key, value in environment.items()}
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=subprocess.STDOUT, env=env)
        self.processes[name] = process
        return process

    def stop(self, name: str, how=signal.SIGTERM):
        process = self.processes.pop(name)
        self.ended.add(name)
        process.send_signal(how)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def logs(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-4000:]}" for path in self.folder.glob("*.log"))

    def crashed(self) -> list[str]:
        signs = () if self.expects_crash else ("bug in hook", "panicked at", "Function: proxy_on")
        bad = [name for name in ("envoy", "serve") if any(sign in self.log(name) for sign in signs)]
        return bad + self.early

    def close(self):
        self.early = [name for name, process in self.processes.items()
                      if name in ("envoy", "serve") and process.poll() is not None]
        for name in list(self.processes):
            self.stop(name)

    # Configuration

    def write(self, name: str, *objects):
        """Puts a file in its place at once, as an editor that knows its trade does."""
        text = "---\n".join(item if isinstance(item, str) else yaml.safe_dump(item) for item in objects)
        partial = self.config / f".{name}.partial"
        partial.write_text(text)
        partial.rename(self.config / f"{name}.yaml")

    def serve(self, *options, seconds: float = 20, wasm=("--wasm", WASM)):
        self.start("serve", DIST / "meltemi", "serve", "--config", self.config, "--xds", f"127.0.0.1:{self.xds}",
                   "--admin", f"127.0.0.1:{self.admin}", *(wasm if FILTER_HOST == "wasm" else ()), *options)
        wait_until(lambda: get(self.admin, "/readyz"), "the control plane", seconds)

    def envoy(self, *options, wait_for=()):
        """Starts Envoy and waits until it listens on these ports."""
        wasm = ["--wasm"] if FILTER_HOST == "wasm" else []
        bootstrap = subprocess.run(
            [DIST / "meltemi", "bootstrap", "--xds", f"127.0.0.1:{self.xds}", "--node", "test", "--admin",
             f"127.0.0.1:{self.envoy_admin}", *wasm, *options], check=True, capture_output=True, text=True).stdout
        self.static_envoy(bootstrap, wait_for=wait_for)

    def static_envoy(self, bootstrap: str, wait_for=(), concurrency=2, seconds: float = 20):
        path = self.folder / "bootstrap.yaml"
        path.write_text(bootstrap)
        self.start("envoy", self.envoy_binary, "-c", path, "--use-dynamic-base-id", "--concurrency", str(concurrency), "-l", "warn",
                   "--drain-time-s", "2", "--drain-strategy", "immediate", "--parent-shutdown-time-s", "3",
                   ENVOY_DYNAMIC_MODULES_SEARCH_PATH=DIST)
        for port in wait_for:
            wait_until(lambda: socket.create_connection(("127.0.0.1", port), 1).close() or True, f"Envoy on port {port}", seconds)

    def published(self, change):
        """Makes a change and waits until the control plane has read it."""
        before = self.generation()
        change()
        wait_until(lambda: self.generation() > before, "a new generation")

    def generation(self) -> int:
        lines = get(self.admin, "/metrics").splitlines()
        return int(next(line.split()[-1] for line in lines if line.startswith("meltemi_generation_total")))

    def in_sync(self):
        """Waits until the proxy was sent all that there is now, and has taken it."""
        generation = self.generation()

        def taken():
            proxies = json.loads(get(self.admin, "/proxies"))
            return proxies and all(
                proxy["generation"] >= generation
                and all(state["sent"] == state["acked"] for state in proxy["types"].values()) for proxy in proxies)
        wait_until(taken, "the proxy to be in sync")

    def changed(self, name: str, *objects):
        self.published(lambda: self.write(name, *objects))
        self.in_sync()

    def refused(self) -> list[str]:
        """What the proxy has not taken, and why."""
        proxies = json.loads(get(self.admin, "/proxies"))
        return [state["error"] for proxy in proxies for state in proxy["types"].values() if state.get("error")]

    def problems(self) -> list[dict]:
        return json.loads(get(self.admin, "/problems"))

    def stats(self, pattern: str) -> dict[str, int]:
        lines = get(self.envoy_admin, f"/stats?filter={pattern}").splitlines()
        pairs = (line.split(": ", 1) for line in lines if ": " in line)
        return {name.removeprefix(STATS): int(value) for name, value in pairs if value.isdigit()}

    def counter(self, name: str) -> int:
        return self.stats(f"^({re.escape(STATS)})?{re.escape(name)}$").get(name, 0)

    def counted(self, protocol: str, values: dict[str, int]):
        """Waits until our statistics have these values: plugins tell theirs every few milliseconds."""
        prefix = f"meltemi.{protocol}."
        found = {}

        def there():
            stats = self.stats(prefix)
            found.update({name: stats.get(prefix + name, 0) for name in values})
            return found == values
        try:
            wait_until(there, "statistics")
        except TimeoutError:
            assert found == values

    def in_flight(self, protocol="thrift") -> int:
        return self.counter(f"meltemi.{protocol}.in_flight")

    def allocated(self) -> int:
        """Bytes that Envoy has allocated, when they have been the same for a while."""
        seen = []

        def settled():
            seen.append(int(json.loads(get(self.envoy_admin, "/memory"))["allocated"]))
            time.sleep(0.05)
            return len(seen) >= 10 and max(seen[-10:]) - min(seen[-10:]) < 16 * 1024
        wait_until(settled, "Envoy's memory to settle")
        return seen[-1]

    def resident(self) -> int:
        """Memory of Envoy's process, in bytes."""
        status = open(f"/proc/{self.processes['envoy'].pid}/status").read()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024

    # Peers

    def thrift_server(self, name: str, port: int, transport="framed", protocol="binary"):
        self.start(name, sys.executable, PEERS / "thrift" / "server.py", port, "--version", name, "--transport", transport,
                   "--protocol", protocol)
        wait_until(lambda: "READY" in self.log(name), f"server {name}")


def service(host: str, port: int, endpoints: dict[int, str], protocol="thrift", **annotations) -> dict:
    """A ServiceEntry with endpoints on loopback: their ports and the value of their label `version`."""
    name = f"tcp-metaprotocol-{protocol}"
    return {
        "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
        "metadata": {"name": host.split(".")[0], "annotations": annotations},
        "spec": {
            "hosts": [host], "ports": [{"number": port, "name": name, "protocol": "TCP"}], "resolution": "STATIC",
            "endpoints": [{"address": "127.0.0.1", "ports": {name: number}, "labels": {"version": version}}
                          for number, version in endpoints.items()],
        },
    }


def rule(host: str, *subsets: str, **policy) -> dict:
    """A DestinationRule with a subset for each version."""
    return {
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": host.split(".")[0]},
        "spec": {"host": host, "subsets": [{"name": subset, "labels": {"version": subset}} for subset in subsets],
                 "trafficPolicy": policy},
    }


def router(host: str, *routes: dict, **spec) -> dict:
    """A MetaRouter."""
    return {
        "apiVersion": "meltemi.dev/v1alpha1", "kind": "MetaRouter", "metadata": {"name": host.split(".")[0]},
        "spec": {"hosts": [host], "routes": list(routes), **spec},
    }


def to(host: str, subset=None, weight=None) -> dict:
    """A destination of a route."""
    destination = {"host": host} | ({"subset": subset} if subset else {})
    return {"destination": destination} | ({"weight": weight} if weight is not None else {})
