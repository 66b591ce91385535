#!/usr/bin/env python3
"""Measures Meltemi beside Envoy's own filters: one Envoy, a listener for each path, one under load at a time, in an order that is
shuffled every round. Writes bench/results.json and bench/results.md. What counts are ratios within a round, not absolute times."""

import argparse
import json
import os
import pathlib
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "integration-tests")]

import native  # noqa: E402
import report  # noqa: E402
import setup  # noqa: E402
from harness import World, free_port, get, service, wait_until  # noqa: E402

TOOL = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "meltemi-bench"
# Connections, requests sent at once on each, bytes of payload.
WORKLOADS = {"16 connections, 100 B": (16, 1, 100), "64 connections, 1 KiB": (64, 1, 1024),
             "4 connections, 16 requests at once, 100 B": (4, 16, 100)}
IDLE = 1000
IDLE_ROUNDS = 3


class Bench:
    """The Envoy, its servers and its paths: name of a path -> (protocol its clients speak, port)."""

    def __init__(self, version: str, folder: pathlib.Path):
        self.world = World(setup.envoy(version), folder)
        self.paths: dict[str, tuple[str, int]] = {}
        self.listeners, self.clusters, self.objects = [], [], []
        for protocol in ("thrift", "dubbo", "http1"):
            self.protocol(protocol)
        self.start()

    def protocol(self, protocol: str):
        server = free_port()
        name = f"server-{protocol}"
        self.world.start(name, TOOL, "serve", "--protocol", protocol, "--address", f"127.0.0.1:{server}")
        wait_until(lambda: "READY" in self.world.log(name), name)
        self.clusters.append(native.cluster(protocol, server))
        if protocol == "http1":
            self.native("HTTP/1.1 HCM", "http1", native.http(protocol, "HTTP1"))
            self.native("HTTP/1.1 HCM, lean", "http1", native.http(protocol, "HTTP1", lean=True))
            self.native("HTTP/2 HCM", "http2", native.http(protocol, "HTTP2"))
            return
        self.native(f"{protocol}: tcp_proxy", protocol, native.tcp_proxy(protocol))
        self.native(f"{protocol}: {protocol}_proxy", protocol, getattr(native, f"{protocol}_proxy")(protocol))
        for mode in ("request", "connection"):
            port = free_port()
            self.paths[f"{protocol}: {mode} mode"] = (protocol, port)
            self.objects.append(service(f"{protocol}-{mode}.test", port, {server: "v1"}, protocol,
                                        **{f"meltemi.dev/mode.{port}": mode}))

    def native(self, path: str, protocol: str, config: dict):
        port = free_port()
        self.paths[path] = (protocol, port)
        self.listeners.append(native.listener(path, port, config))

    def start(self):
        self.world.write("all", *self.objects)
        self.world.serve()
        bootstrap = yaml.safe_load(subprocess.run(
            [ROOT / "dist" / "meltemi", "bootstrap", "--xds", f"127.0.0.1:{self.world.xds}", "--node", "bench", "--admin",
             f"127.0.0.1:{self.world.envoy_admin}"], check=True, capture_output=True, text=True).stdout)
        bootstrap["static_resources"]["listeners"] = self.listeners
        bootstrap["static_resources"]["clusters"] += self.clusters
        self.world.static_envoy(yaml.safe_dump(bootstrap), [port for _, port in self.paths.values()], concurrency=1)
        self.process = self.world.processes["envoy"].pid
        apart(self.process, [other.pid for other in self.world.processes.values() if other.pid != self.process])

    def load(self, path: str, workload: tuple, seconds: float) -> dict:
        protocol, port = self.paths[path]
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

    def idle(self, path: str) -> float:
        """Bytes that Envoy has allocated for each idle connection that made one call."""
        before = self.allocated()
        clients = subprocess.Popen(self.tool("hold", path) + ["--connections", str(IDLE)], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, text=True)
        held = clients.stdout.readline()
        if held != "held\n":
            sys.exit(f"bench: {path}: idle connections could not be made")
        per_connection = (self.allocated() - before) / IDLE
        clients.communicate()
        return per_connection

    def allocated(self) -> int:
        # Connections that ended are deleted after the event loop's turn, and statistics flush every 5 s: look until it stays.
        seen = -1
        while True:
            now = int(json.loads(get(self.world.envoy_admin, "/memory"))["allocated"])
            if abs(now - seen) < 4096:
                return now
            seen = now
            time.sleep(0.3)

    def shares(self, path: str, workload: tuple) -> dict[str, float]:
        """Percent of the processor samples of Envoy by object file, under load."""
        record = self.world.folder / "perf.data"
        sampler = subprocess.Popen(["perf", "record", "-q", "-F", "1999", "-e", "cpu-clock", "-p", str(self.process), "-o", record,
                                    "--", "sleep", "2.5"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.load(path, workload, 2.4)
        if sampler.wait():
            return {}
        text = subprocess.run(["perf", "report", "-i", record, "--sort", "dso", "--stdio"], capture_output=True, text=True).stdout
        return {name: float(percent) for percent, name in re.findall(r"^\s+([\d.]+)%\s+(\S+)", text, re.M)}


def apart(envoy: int, others: list[int]):
    """Envoy on the first processor, everything else on the others, if there are others."""
    first, *rest = sorted(os.sched_getaffinity(0))
    if not rest:
        return
    for task in os.listdir(f"/proc/{envoy}/task"):
        os.sched_setaffinity(int(task), [first])
    # Generators inherit from this process.
    for other in (os.getpid(), *others):
        os.sched_setaffinity(other, rest)


def measure(bench: Bench, options) -> dict:
    loaded = [path for path in bench.paths if bench.paths[path][0] != "http2"]
    rounds = {workload: [] for workload in WORKLOADS}
    for number in range(options.rounds):
        print(f"bench: round {number + 1} of {options.rounds}", flush=True)
        for workload, numbers in WORKLOADS.items():
            # HTTP/1.1 clients don't send several at once.
            paths = [path for path in loaded if numbers[1] == 1 or bench.paths[path][0] != "http1"]
            cells = {path: bench.load(path, numbers, options.seconds) for path in random.sample(paths, len(paths))}
            rounds[workload].append(cells)
    print("bench: idle connections", flush=True)
    idle = {path: statistics.median(bench.idle(path) for _ in range(IDLE_ROUNDS)) for path in bench.paths}
    shares = {}
    if shutil.which("perf"):
        print("bench: shares of samples", flush=True)
        for path in loaded:
            if "mode" in path:
                shares[path] = bench.shares(path, next(iter(WORKLOADS.values())))
    else:
        print("bench: SKIPPED the shares of samples: no perf", flush=True)
    return {"rounds": rounds, "idle_bytes": idle, "shares": shares}


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--envoy", default=setup.ENVOYS[-1], help="version (default: %(default)s)")
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--seconds", type=float, default=1.2, help="counted seconds of each cell (default: %(default)s)")
    arguments.add_argument("--out", type=pathlib.Path, default=ROOT / "bench", help="folder of the results")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options.envoy, pathlib.Path(folder))
        try:
            results = {"envoy": options.envoy, "processors": os.cpu_count()} | measure(bench, options)
        finally:
            bench.world.close()
        if bench.world.crashed():
            sys.exit(bench.world.logs())
    results["ratios"] = report.ratios(results["rounds"])
    text = report.table(results)
    (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (options.out / "results.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
