#!/usr/bin/env python3
"""Measures the control plane beside istiod on one flooded API server: 1,000 Services, 200 of them with a MetaRouter, 300 sidecars with the
module on the xDS of each. What our EnvoyFilters cost istiod is measured with a few sidecars. Writes bench/control-plane.json and bench/control-plane.md. What counts are ratios within a run."""

import argparse
import json
import pathlib
import statistics
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

import big_mesh as mesh  # noqa: E402
from stand import NAMESPACE, ROOT, Sidecars, Stand, cpu, memory  # noqa: E402

import fetch  # noqa: E402
from apiserver import Replica  # noqa: E402
from harness import wait_until  # noqa: E402

FILTER = ("networking.istio.io/v1alpha3", "EnvoyFilter")
# Both control planes wait this long for more news before they push.
DEBOUNCE_MS = 100
# Seconds for what many sidecars get from two cores.
PATIENCE = 300
MODULE = ("--label", "meltemi.dev/module=1", "--namespace", NAMESPACE)


class Bench:
    def __init__(self, stand: Stand, options):
        self.stand, self.options = stand, options
        self.tcp, self.native = range(options.routers), range(options.routers, options.services)

    def run(self) -> dict:
        stand, options = self.stand, self.options
        result = {"services": options.services, "routers": options.routers, "sidecars": options.sidecars, "few_sidecars": options.few}
        stand.flood(*[item for index in self.tcp for item in mesh.tcp(index)],
                    *[item for index in self.native for item in mesh.native(index)],
                    *[mesh.virtual_service(index) for index in self.native[:options.routers]])
        self.istiod = self.sidecars_of_istiod("few", options.few)
        result["istiod_push_cpu_without"] = self.istiod_pushes()
        stand.flood(*[mesh.router(index) for index in self.tcp])
        result |= self.converge()
        names = stand.folder / "names"
        names.write_text("".join(f"meltemi.hcm.out.{mesh.host(f's{index}')}:9000\n" for index in self.tcp))
        self.ours = Sidecars(stand, "our-sidecars", self.replica.xds, options.sidecars, "--names", str(names))
        self.ours.all_got("RouteConfiguration")
        self.ours.quiet()
        self.istiod.quiet()
        result["istiod_push_cpu_with"] = self.istiod_pushes()
        self.istiod.stop()
        self.istiod = self.sidecars_of_istiod("all", options.sidecars)
        ours = self.pushes(self.ours, self.replica.process.pid, lambda turn: mesh.router(self.tcp[turn], f"{turn + 6}s"))
        theirs = self.pushes(self.istiod, stand.istiod.pid, lambda turn: mesh.virtual_service(self.native[turn], f"{turn + 6}s"))
        result["route_push"] = {"ours": ours, "istiod": theirs}
        result["memory_mib"] = {"ours": memory(self.replica.process.pid), "istiod": memory(stand.istiod.pid)}
        result["cpu"] = {"ours": cpu(self.replica.process.pid), "istiod": cpu(stand.istiod.pid)}
        self.ours.stop()
        self.istiod.stop()
        result["native_push_cpu"] = self.native_alone()
        return result

    def sidecars_of_istiod(self, name: str, count: int, labels=MODULE) -> Sidecars:
        """They have all that they asked for."""
        sidecars = Sidecars(self.stand, f"istiod-sidecars-{name}", self.stand.ports.grpc, count, *labels)
        wait_until(lambda: sidecars.tell()["open"] == count, "the sidecars", 60)
        sidecars.all_got("Listener", PATIENCE)
        sidecars.quiet(seconds=PATIENCE)
        return sidecars

    def native_alone(self) -> dict[str, list[float]]:
        """What full pushes cost istiod when all that is left is native: to sidecars with our module and to as many without."""
        kube = self.stand.kube
        kube.delete(*[item for index in self.tcp for item in (mesh.router(index), *mesh.tcp(index))])
        wait_until(lambda: self.bridged() == len(self.native), "the filters of the tcp shape to go", 120)
        spent = {}
        for name, labels in (("with", MODULE), ("without", MODULE[2:])):
            self.istiod = self.sidecars_of_istiod(name, self.options.few, labels)
            spent[name] = self.istiod_pushes()
            self.istiod.stop()
        return spent

    def converge(self) -> dict:
        """Starts our control plane on what is there; until all is written and told."""
        self.replica = Replica(self.stand.cluster, "meltemi")
        begin = time.time()
        self.replica.start()
        ready = time.time() - begin
        wait_until(lambda: self.bridged() == self.options.services, "all EnvoyFilters", 120)
        written = time.time() - begin
        return {"ready_s": ready, "written_s": written, "converge_cpu_s": cpu(self.replica.process.pid)}

    def bridged(self) -> int:
        """Services for whose callers an EnvoyFilter is written: no Service selects pods."""
        patches = [patch for item in self.stand.kube.list(*FILTER) for patch in item["spec"]["configPatches"]]
        return len({patch["match"]["cluster"].get("service") for patch in patches if patch["applyTo"] == "CLUSTER"} - {None})

    def istiod_pushes(self) -> list[float]:
        """Seconds of processor of full pushes, each."""
        spent = []
        for _ in range(self.options.pushes):
            self.istiod.mark()
            before = cpu(self.stand.istiod.pid)
            self.stand.pilot("/debug/adsz?push=true")
            self.istiod.quiet()
            spent.append(cpu(self.stand.istiod.pid) - before)
        return spent

    def pushes(self, sidecars: Sidecars, pid: int, change) -> dict:
        """Milliseconds from a change of one route to the last sidecar that gets it, and seconds of processor."""
        times, spent = [], []
        for turn in range(self.options.pushes):
            sidecars.mark()
            before, begin = cpu(pid), time.time()
            self.stand.kube.apply(change(turn))
            got = sidecars.all_got("RouteConfiguration", PATIENCE)
            times.append((got["all_at"] - begin) * 1000)
            sidecars.quiet(seconds=PATIENCE)
            spent.append(cpu(pid) - before)
        return {"ms": times, "cpu_s": spent}


def report(result: dict) -> str:
    middle = statistics.median
    ours, theirs = result["route_push"]["ours"], result["route_push"]["istiod"]
    push, memories = result["istiod_push_cpu_with"], result["memory_mib"]
    ratio = middle(push) / middle(result["istiod_push_cpu_without"])
    native = result["native_push_cpu"]
    alone = middle(native["with"]) / middle(native["without"])
    share = memories["ours"] / memories["istiod"]
    clear = middle(ours["ms"]) - DEBOUNCE_MS

    def met(yes: bool) -> str:
        return "met" if yes else "**missed**"
    rows = [
        ("one changed route, to all sidecars, ms", f"{middle(ours['ms']):.0f}", f"{middle(theirs['ms']):.0f}", ""),
        ("the same without the debounce of 100 ms", f"{clear:.0f}", f"{middle(theirs['ms']) - DEBOUNCE_MS:.0f}",
         f"ours under 200 ms: {met(clear < 200)}"),
        ("processor for it, s", f"{middle(ours['cpu_s']):.2f}", f"{middle(theirs['cpu_s']):.2f}", ""),
        ("sidecars, all with our module", result["sidecars"], result["sidecars"], ""),
        ("resident memory, MiB", f"{memories['ours']:.0f}", f"{memories['istiod']:.0f}",
         f"ours under a tenth: {share:.2f}, {met(share < 0.1)}"),
        ("processor in the whole run, s", f"{result['cpu']['ours']:.1f}", f"{result['cpu']['istiod']:.1f}", ""),
    ]
    lines = ["# The control plane, measured", "", "Written by `make bench-control-plane`: a real API server and istiod, simulated sidecars, all on one",
             f"machine of two cores. {result['services']} Services, {result['routers']} of them on the tcp shape with a MetaRouter, the others native,",
             f"{result['routers']} of these with a VirtualService of the same routes. Medians of {len(ours['ms'])}.", "",
             "| | Meltemi | istiod | target |", "|---|---|---|---|", *(f"| {' | '.join(map(str, row))} |" for row in rows), "",
             f"From the start of our control plane on all these objects: ready after {result['ready_s']:.1f} s, all EnvoyFilters written after "
             f"{result['written_s']:.1f} s, with {result['converge_cpu_s']:.1f} s of processor.", "",
             f"istiod's full push to {result['few_sidecars']} sidecars takes {middle(result['istiod_push_cpu_without']):.2f} s of processor without our "
             f"EnvoyFilters and {middle(push):.2f} s with them: **{ratio:.1f} ×** (target 1.5 ×: {met(ratio <= 1.5)}).", "",
             f"With the {result['services'] - result['routers']} native Services alone, it takes {middle(native['without']):.2f} s to as many "
             f"sidecars without our module and {middle(native['with']):.2f} s to those with it: **{alone:.1f} ×** ({met(alone <= 1.5)}).", ""]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("services", 1000), ("routers", 200), ("sidecars", 300), ("few", 4), ("pushes", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    if not (fetch.TARGET / "stamp").exists():
        sys.exit("cannot run the benchmark: run `make testbed` first")
    with tempfile.TemporaryDirectory(prefix="meltemi-bench-") as folder:
        stand = Stand(fetch.binaries(), pathlib.Path(folder))
        try:
            stand.up()
            result = Bench(stand, options).run()
        finally:
            stand.down()
    (ROOT / "bench" / "control-plane.json").write_text(json.dumps(result, indent=1) + "\n")
    text = report(result)
    (ROOT / "bench" / "control-plane.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
