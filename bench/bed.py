"""What is measured: an Envoy with the module and one with plugins in Wasm, a listener for each path, and servers behind them."""

import json
import os
import pathlib
import subprocess
import sys

import by_hand
import native
import setup
import yaml
from harness import DIST, ROOT, WASM, World, free_port, service, wait_until

TOOL = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "meltemi-bench"
PROTOCOLS = ("thrift", "dubbo")
# Host of our filters -> what the names of its paths end with.
HOSTS = {"module": "", "wasm": ", Wasm"}


class Bed:
    """Both Envoys and the servers. `paths`: name of a path -> the Envoy that has it."""

    def __init__(self, version: str, folder: pathlib.Path):
        self.servers: dict[str, int] = {}
        worlds = {}
        for host in HOSTS:
            (folder / host).mkdir()
            worlds[host] = World(setup.envoy(version), folder / host)
        self.worlds = list(worlds.values())
        for protocol in (*PROTOCOLS, "http1", *(f"{protocol}-in-http1" for protocol in PROTOCOLS)):
            self.serve(self.worlds[0], protocol)
        self.proxies = [Proxy(world, host, self.servers) for host, world in worlds.items()]
        self.paths = {path: proxy for proxy in self.proxies for path in proxy.paths}

    def serve(self, world: World, protocol: str):
        port = free_port()
        name = f"server-{protocol}"
        world.start(name, TOOL, "serve", "--protocol", protocol, "--address", f"127.0.0.1:{port}")
        wait_until(lambda: "READY" in world.log(name), name)
        self.servers[protocol] = port

    def start(self):
        for proxy in self.proxies:
            proxy.start()
        envoys = [proxy.process for proxy in self.proxies]
        apart(envoys, [other.pid for world in self.worlds for other in world.processes.values() if other.pid not in envoys])

    def protocol(self, path: str) -> str:
        """What the path's clients speak."""
        return self.paths[path].paths[path][0]

    def load(self, path: str, workload: tuple, seconds: float) -> dict:
        return self.paths[path].load(path, workload, seconds)

    def close(self):
        for world in self.worlds:
            world.close()

    def crashed(self) -> str:
        return "".join(world.logs() for world in self.worlds if world.crashed())


class Proxy:
    """An Envoy. `paths`: name of a path -> (protocol its clients speak, port). The one with the module has Envoy's own filters, too."""

    def __init__(self, world: World, host: str, servers: dict[str, int]):
        self.world, self.host, self.servers = world, host, servers
        self.paths: dict[str, tuple[str, int]] = {}
        self.listeners, self.objects = [], []
        for protocol in PROTOCOLS:
            self.ours(protocol)
        if host == "module":
            for protocol in PROTOCOLS:
                self.static(f"{protocol}: tcp_proxy", protocol, native.tcp_proxy(protocol))
                self.static(f"{protocol}: {protocol}_proxy", protocol, getattr(native, f"{protocol}_proxy")(protocol))
            self.static("HTTP/1.1 HCM", "http1", native.http("http1", "HTTP1"))
            self.static("HTTP/1.1 HCM, lean", "http1", native.http("http1", "HTTP1", lean=True))
            self.static("HTTP/2 HCM", "http2", native.http("http1", "HTTP2"))

    def ours(self, protocol: str):
        for mode in ("request", "connection"):
            port = free_port()
            self.paths[f"{protocol}: {mode} mode{HOSTS[self.host]}"] = (protocol, port)
            self.objects.append(service(f"{protocol}-{mode}.test", port, {self.servers[protocol]: "v1"}, protocol,
                                        **{f"meltemi.dev/mode.{port}": mode}))
        inlet = by_hand.ours("inlet", host=self.host, codec={"name": protocol})
        self.static(f"{protocol}: inlet + HCM{HOSTS[self.host]}", protocol, native.http(f"{protocol}-in-http1", "HTTP2", lean=True), inlet)

    def static(self, path: str, protocol: str, config: dict, *before: dict):
        port = free_port()
        self.paths[path] = (protocol, port)
        self.listeners.append(native.listener(path, port, config, *before))

    def start(self):
        self.world.write("all", *self.objects)
        self.world.serve(*(("--wasm", WASM) if self.host == "wasm" else ()), wasm=())
        bootstrap = yaml.safe_load(subprocess.run(
            [DIST / "meltemi", "bootstrap", "--xds", f"127.0.0.1:{self.world.xds}", "--node", "bench", "--admin",
             f"127.0.0.1:{self.world.envoy_admin}"], check=True, capture_output=True, text=True).stdout)
        bootstrap["static_resources"]["listeners"] = self.listeners
        bootstrap["static_resources"]["clusters"] += [native.cluster(name, port) for name, port in self.servers.items()]
        self.bootstrap = yaml.safe_dump(bootstrap)
        self.start_envoy()

    def start_envoy(self):
        self.world.static_envoy(self.bootstrap, [port for _, port in self.paths.values()], concurrency=1)
        self.process = self.world.processes["envoy"].pid

    def load(self, path: str, workload: tuple, seconds: float) -> dict:
        connections, batch, payload = workload
        done = subprocess.run(self.tool("load", path) + [
            "--connections", str(connections), "--batch", str(batch), "--payload", str(payload), "--seconds", str(seconds),
            "--process", str(self.process)], capture_output=True, text=True, timeout=60)
        if done.returncode:
            sys.exit(f"bench: {path}: {done.stderr}")
        return json.loads(done.stdout)

    def tool(self, command: str, path: str) -> list:
        protocol, port = self.paths[path]
        return [TOOL, command, "--protocol", protocol, "--address", f"127.0.0.1:{port}"]


def apart(envoys: list[int], others: list[int]):
    """Envoys on the first processor, everything else on the others, if there are others. Of the Envoys one at a time is at work."""
    first, *rest = sorted(os.sched_getaffinity(0))
    if not rest:
        return
    for task in (task for envoy in envoys for task in os.listdir(f"/proc/{envoy}/task")):
        os.sched_setaffinity(int(task), [first])
    # Generators inherit from this process.
    for other in (os.getpid(), *others):
        os.sched_setaffinity(other, rest)
