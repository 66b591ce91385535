#!/usr/bin/env python3
"""Makes the image of the control plane and the Envoy module from dist/, without a container engine: dist/meltemi-image.tar, an OCI
archive, and its bill of materials beside it.

The base is nothing but the shared libraries that the two files name, taken from the machine that builds them, which they therefore
fit. A static build would need another C library for the control plane and could not serve the module, which lives in Envoy's process.
There is no shell, and no certificates: the cluster's authority comes with the service account. Names are resolved by glibc itself
(2.34 and newer). The same sources and libraries give the same bytes."""

import argparse
import pathlib
import platform
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import oci  # noqa: E402
import sbom  # noqa: E402
import sources  # noqa: E402
from sources import ROOT  # noqa: E402

USER = "65532:65532"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
ETC = {
    "etc/passwd": b"root:x:0:0:root:/:/none\nmeltemi:x:65532:65532:meltemi:/:/none\n",
    "etc/group": b"root:x:0:\nmeltemi:x:65532:\n",
    "etc/nsswitch.conf": b"hosts: files dns\n",
}


def without_debug(program: pathlib.Path) -> bytes:
    """Lines of the source are most of a program's size. Whoever links has strip as well."""
    with tempfile.NamedTemporaryFile() as stripped:
        subprocess.run(["strip", "--strip-debug", "-o", stripped.name, program], check=True)
        return pathlib.Path(stripped.name).read_bytes()


def libraries(*programs: pathlib.Path) -> dict[str, bytes]:
    """What the dynamic linker loads with these files, by path."""
    found = {}
    for program in programs:
        done = subprocess.run(["ldd", program], text=True, capture_output=True)
        if "statically linked" in done.stdout or "not a dynamic executable" in done.stderr:
            continue
        for line in done.stdout.splitlines():
            if "not found" in line:
                sys.exit(f"image: {program} needs {line.strip()}")
            if path := re.search(r"(/\S+) \(0x", line):
                found[path[1]] = pathlib.Path(path[1]).read_bytes()
    return dict(sorted(found.items()))


def copyrights(paths) -> dict[str, bytes]:
    """Of the packages that the libraries are of."""
    found = {}
    for path in paths:
        package = sbom.package_of(path)
        text = package and pathlib.Path("/usr/share/doc") / package[0] / "copyright"
        if text and text.exists():
            found[str(text).lstrip("/")] = text.read_bytes()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dist", type=pathlib.Path, default=ROOT / "dist", help="folder with meltemi and libmeltemi.so")
    parser.add_argument("--out", type=pathlib.Path, help="the archive; dist/meltemi-image.tar if absent")
    parser.add_argument("--source", help="URL of the repository, for the label of that name")
    options = parser.parse_args()
    out = options.out or options.dist / "meltemi-image.tar"
    meltemi, module = options.dist / "meltemi", options.dist / "libmeltemi.so"
    for file in (meltemi, module):
        if not file.exists():
            sys.exit(f"image: {file} is missing; run `make build` first")
    time, number = sources.time(), sources.version()
    created, machine = sources.written(time), platform.machine()
    ours = {"meltemi": oci.File(without_debug(meltemi), 0o755), "module/libmeltemi.so": oci.File(module.read_bytes())}
    shared = libraries(meltemi, module)
    bill = sbom.bill(ROOT, number, created, f"{machine}-unknown-linux-gnu", {path: file.content for path, file in ours.items()}, shared)
    base = {path.lstrip("/"): oci.File(content, 0o755) for path, content in shared.items()}
    base |= {path: oci.File(content) for path, content in (ETC | copyrights(shared)).items()}
    told = sources.annotations("meltemi", "Control plane and Envoy module of Meltemi", options.source)
    layers = [("shared libraries of the machine that built it", base),
              ("control plane, module, licence, bill of materials",
               ours | {"LICENSE": oci.File((ROOT / "LICENSE").read_bytes()), "sbom.cdx.json": oci.File(bill)})]
    config = {"User": USER, "Entrypoint": ["/meltemi"], "Cmd": ["--help"], "WorkingDir": "/", "Env": ["PATH=/"], "Labels": told}
    layout, digest = oci.image(layers, config, told, f"meltemi:{number}", created, time,
                               ("linux", ARCHITECTURES.get(machine, machine)))
    out.parent.mkdir(parents=True, exist_ok=True)
    oci.archive(layout, out, time)
    out.with_suffix(".cdx.json").write_bytes(bill)
    print(f"{out}: {digest}")


if __name__ == "__main__":
    main()
