#!/usr/bin/env python3
"""Measures Meltemi beside Envoy's own filters: a listener for each path, one under load at a time, in an order that is shuffled every
round. Writes bench/results.json and bench/results.md. What counts are ratios within a round, not absolute times."""

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

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "integration-tests")]

import memory  # noqa: E402
import report  # noqa: E402
import setup  # noqa: E402
from bed import Bed  # noqa: E402

# Connections, requests sent at once on each, bytes of payload.
WORKLOADS = {"16 connections, 100 B": (16, 1, 100), "64 connections, 1 KiB": (64, 1, 1024),
             "4 connections, 16 requests at once, 100 B": (4, 16, 100)}
IDLE_ROUNDS = 3


def shares(bed: Bed, path: str, workload: tuple) -> dict[str, float]:
    """Percent of the processor samples of Envoy by object file, under load."""
    proxy = bed.paths[path]
    record = proxy.world.folder / "perf.data"
    sampler = subprocess.Popen(["perf", "record", "-q", "-F", "1999", "-e", "cpu-clock", "-p", str(proxy.process), "-o", record,
                                "--", "sleep", "2.5"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    bed.load(path, workload, 2.4)
    if sampler.wait():
        return {}
    text = subprocess.run(["perf", "report", "-i", record, "--sort", "dso", "--stdio"], capture_output=True, text=True).stdout
    return {name: float(percent) for percent, name in re.findall(r"^\s+([\d.]+)%\s+(\S+)", text, re.M)}


def measure(bed: Bed, options) -> dict:
    loaded = [path for path in bed.paths if bed.protocol(path) != "http2" and re.search(options.paths, path)]
    rounds = {workload: [] for workload in WORKLOADS}
    for number in range(options.rounds):
        print(f"bench: round {number + 1} of {options.rounds}", flush=True)
        for workload, numbers in WORKLOADS.items():
            # HTTP/1.1 clients don't send several at once.
            paths = [path for path in loaded if numbers[1] == 1 or bed.protocol(path) != "http1"]
            cells = {path: bed.load(path, numbers, options.seconds) for path in random.sample(paths, len(paths))}
            rounds[workload].append(cells)
    results = {"rounds": rounds, "shares": {}}
    if shutil.which("perf"):
        print("bench: shares of samples", flush=True)
        for path in loaded:
            if "mode" in path:
                results["shares"][path] = shares(bed, path, next(iter(WORKLOADS.values())))
    else:
        print("bench: SKIPPED the shares of samples: no perf", flush=True)
    return results


def measure_memory(bed: Bed, options, folder: pathlib.Path) -> dict:
    print("bench: idle connections", flush=True)
    module = [path for path, proxy in bed.paths.items() if proxy.host == "module"]
    return {
        "idle_bytes": {path: statistics.median(memory.allocated(bed.paths[path], path) for _ in range(IDLE_ROUNDS)) for path in module},
        "resident_bytes": {path: memory.resident(proxy, path) for path, proxy in bed.paths.items()},
        "vms": memory.virtual_machines(options.envoy, folder),
    }


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--envoy", default=setup.ENVOYS[-1], help="version (default: %(default)s)")
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--seconds", type=float, default=1.2, help="counted seconds of each cell (default: %(default)s)")
    arguments.add_argument("--paths", default="", help="only paths that this regular expression finds, and no memory: for a quick look")
    arguments.add_argument("--out", type=pathlib.Path, default=ROOT / "bench", help="folder of the results")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        bed = Bed(options.envoy, folder)
        try:
            bed.start()
            results = {"envoy": options.envoy, "processors": os.cpu_count()} | measure(bed, options)
            if not options.paths:
                results |= measure_memory(bed, options, folder)
        finally:
            bed.close()
        if logs := bed.crashed():
            sys.exit(logs)
    results["ratios"] = report.ratios(results["rounds"])
    text = report.table(results)
    (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (options.out / "results.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
