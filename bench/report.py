"""From rounds to ratios, and to a page for people."""

import statistics

PROTOCOLS = ("thrift", "dubbo")
HTTP = ("HTTP/1.1 HCM", "HTTP/1.1 HCM, lean")
# Path of a protocol -> what it is compared with, in this order.
OURS = {
    "request mode": ("{0}: {0}_proxy", *HTTP, "{0}: tcp_proxy"),
    "request mode, Wasm": ("{0}: request mode", *HTTP),
    "inlet + HCM": HTTP,
    "inlet + HCM, Wasm": ("{0}: inlet + HCM", *HTTP),
    "connection mode": ("{0}: tcp_proxy", "{0}: {0}_proxy"),
    "connection mode, Wasm": ("{0}: connection mode", "{0}: tcp_proxy"),
    "{0}_proxy": ("{0}: tcp_proxy",),
}
BASES = {f"{protocol}: {path.format(protocol)}": [base.format(protocol) for base in bases]
         for protocol in PROTOCOLS for path, bases in OURS.items()} | {"HTTP/1.1 HCM": ["thrift: tcp_proxy"]}
METRICS = {
    "cpu": lambda cell: cell["cpu_ns"] / cell["calls"],
    "p50": lambda cell: cell["p50_us"],
    "p99": lambda cell: cell["p99_us"],
    "rate": lambda cell: cell["calls"] / cell["seconds"],
}
# Path, base, bound on the ratio of processor time.
TARGETS = [
    ("connection mode", "tcp_proxy", 1.15), ("request mode", "thrift_proxy", 1.9), ("request mode", "HTTP/1.1 HCM", 1.15),
    ("connection mode, Wasm", "tcp_proxy", 1.4), ("inlet + HCM, Wasm", "HTTP/1.1 HCM", 1.4),
]
IDLE_TARGET = 1.2
SHARE_TARGET = 5.0
MODULE = "libmeltemi.so"


def ratios(rounds: dict) -> list[dict]:
    """A row for each workload, path, base and metric: median and quartiles of the ratios within a round."""
    rows = []
    for workload, numbers in rounds.items():
        for path, bases in BASES.items():
            for base in bases:
                both = [cells for cells in numbers if path in cells and base in cells]
                if not both:
                    continue
                row = {"workload": workload, "path": path, "base": base, "rounds": len(both)}
                for metric, of in METRICS.items():
                    row[metric] = spread([of(cells[path]) / of(cells[base]) for cells in both])
                rows.append(row)
    return rows


def spread(values: list[float]) -> dict[str, float]:
    first, middle, third = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": round(middle, 3), "q1": round(first, 3), "q3": round(third, 3)}


def table(results: dict) -> str:
    """The page."""
    lines = [
        "# Meltemi beside Envoy's own filters", "",
        f"Made by `make bench` on Envoy {results['envoy']}, {results['processors']} processors, one worker thread. Each cell is a "
        "ratio within a round: median [first quartile-third quartile] over the rounds. `lean` is an HCM with every saving that ours has, "
        "else it is as Envoy's defaults make it. CPU is the processor time of the Envoy "
        "process for a request; below 1 is better for CPU, p50 and p99, above 1 for the rate.", "",
        "* `request mode`: the whole way, from a client to a server of the protocol. In Wasm that is through a second listener and a second "
        "HCM in the same Envoy.",
        "* `inlet + HCM`: the inlet alone, before an HCM whose servers speak HTTP/1.1 and answer with frames. An HTTP/1.1 HCM does "
        "the same, but for what its clients speak.",
        "* `connection mode`: the relay before `tcp_proxy`.",
        "* `Wasm`: the plugin of all codecs, in an Envoy of its own; everything else is in the Envoy with the module.", "",
    ]
    for workload in results["rounds"]:
        lines += [f"## {workload}", "", "| path | against | CPU | p50 | p99 | requests/s | rounds |", "|---|---|---|---|---|---|---|"]
        for row in results["ratios"]:
            if row["workload"] == workload:
                cells = " | ".join("{median:.2f} [{q1:.2f}-{q3:.2f}]".format(**row[metric]) for metric in METRICS)
                lines.append(f"| {row['path']} | {row['base']} | {cells} | {row['rounds']} |")
        lines.append("")
    errors = sum(cell["errors"] for cells in results["rounds"].values() for one in cells for cell in one.values())
    lines += [f"Failed calls: {errors}.", "", *targets(results)]
    if "idle_bytes" in results:
        lines += idle(results) + resident(results) + virtual_machines(results)
    lines += shares(results)
    return "\n".join(lines) + "\n"


def targets(results: dict) -> list[str]:
    lines = ["## Targets for CPU", "", "| path | against | workload | target | measured | |", "|---|---|---|---|---|---|"]
    for path, base, bound in TARGETS:
        for row in results["ratios"]:
            if row["path"].endswith(path) and row["base"].endswith(base):
                measured = row["cpu"]["median"]
                verdict = "met" if measured <= bound else "missed"
                lines.append(f"| {row['path']} | {row['base']} | {row['workload']} | {bound} | {measured:.2f} | {verdict} |")
    return [*lines, ""]


def idle(results: dict) -> list[str]:
    base = results["idle_bytes"]["HTTP/2 HCM"]
    lines = ["## Memory of an idle connection", "",
             "What Envoy has allocated for a connection that made one call, with its upstream connection where it has one of its own; "
             f"target of request mode: {IDLE_TARGET} of a plain HTTP/2 HCM.", "",
             "| path | bytes | of HTTP/2 HCM |", "|---|---|---|"]
    for path, size in sorted(results["idle_bytes"].items(), key=lambda item: item[1]):
        lines.append(f"| {path} | {size:,.0f} | {size / base:.2f} |")
    return [*lines, ""]


def resident(results: dict) -> list[str]:
    lines = ["## Memory of the system for an idle connection", "",
             "By how much Envoy's process grows for a connection that made one call, with all that plugins have for it. Less than what is "
             "allocated: pages that nobody has touched are not there.", "",
             "| path | bytes |", "|---|---|"]
    rows = sorted(results["resident_bytes"].items(), key=lambda item: item[1])
    return [*lines, *(f"| {path} | {size:,.0f} |" for path, size in rows), ""]


def virtual_machines(results: dict) -> list[str]:
    lines = ["## Memory of a VM", "",
             "Envoy's process with an idle listener, without and with the plugin of all codecs. Every worker has a VM; two more are Envoy's "
             "own. The code is compiled once.", "",
             "| workers | VMs | MiB without | MiB with | MiB of the plugin |", "|---|---|---|---|---|"]
    for row in results["vms"]:
        without, loaded = (row[name] / (1 << 20) for name in ("without", "with"))
        lines.append(f"| {row['workers']} | {row['vms']} | {without:.1f} | {loaded:.1f} | {loaded - without:.1f} |")
    return [*lines, ""]


def shares(results: dict) -> list[str]:
    if not results["shares"]:
        return ["## Our own code's share", "", "Not measured: no `perf` here."]
    lines = ["## Our own code's share", "",
             f"Percent of Envoy's processor samples that fall into {MODULE}, kernel included; target: below {SHARE_TARGET:.0f}. "
             "Plugins are compiled as they are loaded: what is theirs stands under other.", "",
             "| path | ours | Envoy | kernel | other |", "|---|---|---|---|---|"]
    for path, files in results["shares"].items():
        ours, envoy, kernel = (files.get(name, 0) for name in (MODULE, "envoy", "[kernel.kallsyms]"))
        other = sum(files.values()) - ours - envoy - kernel
        lines.append(f"| {path} | {ours:.1f} | {envoy:.1f} | {kernel:.1f} | {other:.1f} |")
    return lines
