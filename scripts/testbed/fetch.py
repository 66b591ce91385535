#!/usr/bin/env python3
"""Puts a real Kubernetes API server and a real Istio control plane into .cache/testbed: from the folder MELTEMI_TESTBED_BIN, else from
the cache ../shared/bin, else built from the Go modules pinned beside this file. What is there already is not made again."""

import argparse
import hashlib
import json
import lzma
import os
import pathlib
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = ROOT / ".cache" / "testbed"
ISTIO = "1.31.0"
# Name: the module graph that has it, and its package.
PROGRAMS = {
    "etcd": ("kubernetes", "go.etcd.io/etcd/server/v3"),
    "kube-apiserver": ("kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver"),
    "kube-controller-manager": ("kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    "pilot-discovery": ("istio", "istio.io/istio/pilot/cmd/pilot-discovery"),
    "pilot-agent": ("istio", "istio.io/istio/pilot/cmd/pilot-agent"),
}
# Name: the module graph, the module whose version counts, its package.
TOOLS = {
    "helm": ("helm", "helm.sh/helm/v4", "helm.sh/helm/v4/cmd/helm"),
    "crane": ("crane", "github.com/google/go-containerregistry", "github.com/google/go-containerregistry/cmd/crane"),
}
ISTIO_FILES = {
    "istio-crds.yaml": "manifests/charts/base/files/crd-all.gen.yaml",
    "envoy_bootstrap.json": "tools/packaging/common/envoy_bootstrap.json",
}
GATEWAY_KINDS = ("gatewayclasses", "gateways", "httproutes", "grpcroutes", "tcproutes", "referencegrants")
# Of Istio's chart.
INJECTION_FILES = ("values.yaml", "files/injection-template.yaml", "files/gateway-injection-template.yaml")
FILES = (*PROGRAMS, *ISTIO_FILES, "gateway-api-crds.yaml")


def say(text: str):
    print(f"testbed: {text}", flush=True)


def tools_missing() -> str | None:
    """Why this machine cannot run a bed."""
    sys.path.insert(0, str(ROOT / "integration-tests" / "istio"))
    import processes
    return processes.obstacle()


def obstacle() -> str | None:
    """Why there can be no bed here: what the machine lacks, or that its programs were not made."""
    return tools_missing() or (None if (TARGET / "stamp").exists() else f"{source_missing() or 'run `make testbed` first'}")


def source_missing() -> str | None:
    if cache() or shutil.which("go"):
        return None
    return "needs Go, to build Kubernetes and Istio, or a folder with their binaries in MELTEMI_TESTBED_BIN"


def binaries() -> pathlib.Path:
    return TARGET


def cache() -> pathlib.Path | None:
    """A folder that has all the files, plain or compressed by xz."""
    named = os.environ.get("MELTEMI_TESTBED_BIN")
    folder = pathlib.Path(named) if named else ROOT.parent / "shared" / "bin"
    if all((folder / name).exists() or (folder / f"{name}.xz").exists() for name in FILES):
        return folder
    if named:
        sys.exit(f"testbed: MELTEMI_TESTBED_BIN={named} lacks some of {', '.join(FILES)} (or the same with .xz)")
    return None


def state(folder: pathlib.Path | None) -> str:
    """What the files are made from."""
    if folder is None:
        pins = [HERE / graph / name for graph in ("istio", "kubernetes") for name in ("go.mod", "go.sum")]
        return hashlib.sha256(b"".join(path.read_bytes() for path in (*pins, HERE / "fetch.py"))).hexdigest()
    found = [path for name in FILES for path in (folder / name, folder / f"{name}.xz") if path.exists()]
    return json.dumps([[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in found])


def unpack(folder: pathlib.Path):
    say(f"taking it from {folder} ...")
    for name in FILES:
        partial = TARGET / f"{name}.partial"
        plain = folder / name
        with plain.open("rb") if plain.exists() else lzma.open(folder / f"{name}.xz") as source, partial.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        partial.chmod(0o755 if name in PROGRAMS else 0o644)
        partial.rename(TARGET / name)


def run_go(graph: str, *arguments) -> subprocess.CompletedProcess:
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
    return subprocess.run(["go", *map(str, arguments)], cwd=HERE / graph, env=environment, capture_output=True, text=True)


def go(graph: str, *arguments) -> str:
    done = run_go(graph, *arguments)
    if done.returncode:
        sys.exit(f"testbed: go {' '.join(map(str, arguments))} in {HERE / graph} failed:\n{done.stderr[-4000:]}")
    return done.stdout.strip()


def pin(graph: str, module: str) -> str:
    """The version of a module that a graph names."""
    lines = map(str.split, (HERE / graph / "go.mod").read_text().splitlines())
    return next(words[1] for words in lines if words[:1] == [module])


def flags(graph: str) -> str:
    """Linker flags that tell the programs their version."""
    if graph == "istio":
        values = {"istio.io/istio/pkg/version.buildVersion": ISTIO, "istio.io/istio/pkg/version.buildTag": ISTIO,
                  "istio.io/istio/pkg/version.buildStatus": "Clean"}
    else:
        version = go(graph, "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes")
        base = "k8s.io/component-base/version"
        values = {f"{base}.gitVersion": version, f"{base}.gitMajor": "1", f"{base}.gitMinor": version.split(".")[1],
                  f"{base}.gitTreeState": "clean", f"{base}.buildDate": "1970-01-01T00:00:00Z"}
    return " ".join(["-s -w", *(f"-X {key}={value}" for key, value in values.items())])


def build():
    say("building Kubernetes and Istio from Go modules: about 15 minutes on two free cores, 3 GiB of build cache")
    for number, (name, (graph, package)) in enumerate(PROGRAMS.items(), 1):
        say(f"{name} ({number} of {len(PROGRAMS)}) ...")
        began = time.monotonic()
        go(graph, "build", "-trimpath", "-ldflags", flags(graph), "-o", TARGET / name, package)
        say(f"{name} took {time.monotonic() - began:.0f} s")
    source = pathlib.Path(go("istio", "list", "-m", "-f", "{{.Dir}}", "istio.io/istio"))
    for name, path in ISTIO_FILES.items():
        (TARGET / name).write_bytes((source / path).read_bytes())
    gateway = pathlib.Path(go("istio", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api")) / "config" / "crd" / "standard"
    texts = [(gateway / f"gateway.networking.k8s.io_{kind}.yaml").read_text() for kind in GATEWAY_KINDS]
    (TARGET / "gateway-api-crds.yaml").write_text("".join(f"---\n{text}" for text in texts))


def fetch_programs():
    folder = cache()
    stamp, now = TARGET / "stamp", state(folder)
    if stamp.exists() and stamp.read_text() == now:
        return
    reason = source_missing()
    if reason:
        say(f"SKIPPED: {reason}")
        return
    TARGET.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    unpack(folder) if folder else build()
    stamp.write_text(now)


def injection() -> pathlib.Path:
    """The part of Istio's chart that injection is made of."""
    return TARGET / "istiod-chart"


def injection_obstacle() -> str | None:
    return None if all((injection() / name).exists() for name in INJECTION_FILES) else "Istio's chart is not here; it comes from its Go module"


def fetch_injection():
    """Istio's chart is in no cache of binaries. Without Go, or without its module, tests of injection are skipped."""
    if not injection_obstacle() or not shutil.which("go"):
        return
    done = run_go("istio", "mod", "download", "-json", f"istio.io/istio@{pin('istio', 'istio.io/istio')}")
    if done.returncode:
        say(f"SKIPPED Istio's chart: {done.stderr.strip()[-300:]}")
        return
    chart = pathlib.Path(json.loads(done.stdout)["Dir"]) / "manifests/charts/istio-control/istio-discovery"
    partial = injection().with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "files").mkdir(parents=True)
    for name in INJECTION_FILES:
        (partial / name).write_bytes((chart / name).read_bytes())
    shutil.rmtree(injection(), ignore_errors=True)
    partial.rename(injection())


def tool(name: str) -> pathlib.Path:
    """A program of `TOOLS`, in the version that is pinned."""
    graph, module, _ = TOOLS[name]
    return TARGET / f"{name}-{pin(graph, module)}"


def tool_obstacle(name: str) -> str | None:
    return None if tool(name).exists() else f"{name} is not here; `make testbed` builds it from its Go module"


def fetch_tool(name: str):
    """Tools are in no cache of binaries either. Without Go, or without their modules, the tests that need them are skipped."""
    place, (graph, _, package) = tool(name), TOOLS[name]
    if place.exists() or not shutil.which("go"):
        return
    say(f"building {name} from Go modules: up to 2 minutes on two free cores ...")
    partial = TARGET / f"{name}.partial"
    TARGET.mkdir(parents=True, exist_ok=True)
    done = run_go(graph, "build", "-trimpath", "-ldflags", "-s -w", "-o", partial, package)
    if done.returncode:
        say(f"SKIPPED {name}: {done.stderr.strip()[-300:]}")
        return
    partial.rename(place)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="say why there can be no bed on this machine, if so, and exit with 1")
    if parser.parse_args().check:
        reason = tools_missing() or source_missing()
        if reason:
            print(reason)
        sys.exit(bool(reason))
    fetch_programs()
    fetch_injection()
    for name in TOOLS:
        fetch_tool(name)


if __name__ == "__main__":
    main()
