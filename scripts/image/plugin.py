#!/usr/bin/env python3
"""Makes the image of the plugins in Wasm from dist/, without a container engine: dist/meltemi-wasm-image.tar, an OCI archive.

It is of the kind that Istio's agent, and others who follow the "compat" variant of the Wasm image specification, fetch for an Envoy: one
ordinary layer with one file, plugin.wasm. The same sources and the same .wasm give the same bytes."""

import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import oci  # noqa: E402
import sources  # noqa: E402

DIST = sources.ROOT / "dist"
# No processor's: so that nobody takes it for a program of theirs.
PLATFORM = ("wasip1", "wasm")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wasm", type=pathlib.Path, default=DIST / "meltemi.wasm", help="the plugin; dist/meltemi.wasm if absent")
    parser.add_argument("--out", type=pathlib.Path, help="the archive; <name of the plugin>-wasm-image.tar beside it if absent")
    parser.add_argument("--source", help="URL of the repository, for the annotation of that name")
    options = parser.parse_args()
    if not options.wasm.exists():
        sys.exit(f"image: {options.wasm} is missing; run `make wasm` first")
    name = options.wasm.stem
    out = options.out or options.wasm.with_name(f"{name}-wasm-image.tar")
    time = sources.time()
    told = sources.annotations(f"{name}-wasm", "Codecs and engines of Meltemi as a proxy-wasm plugin", options.source)
    layers = [("the plugin", {"plugin.wasm": oci.File(options.wasm.read_bytes())})]
    layout, digest = oci.image(layers, {"Labels": told}, told, f"{name}-wasm:{sources.version()}", sources.written(time), time, PLATFORM)
    out.parent.mkdir(parents=True, exist_ok=True)
    oci.archive(layout, out, time)
    print(f"{out}: {digest}")


if __name__ == "__main__":
    main()
