"""What is linked into the image's two files, as CycloneDX: the crates, without those that only build others, and the system's libraries."""

import hashlib
import json
import pathlib
import re
import subprocess
import uuid

# The package whose crates each file is made of.
PACKAGES = {"meltemi": "meltemi-control-plane", "libmeltemi.so": "meltemi-codecs-module"}


def crates(root: pathlib.Path, package: str, target: str) -> set[tuple[str, str, str]]:
    """Name, version and licence of everything that a package links."""
    command = ["cargo", "tree", "--locked", "--package", package, "--edges", "normal,no-proc-macro", "--target", target, "--prefix",
               "none", "--no-dedupe", "--format", "{p}|{l}"]
    done = subprocess.run(command, cwd=root, text=True, capture_output=True)
    if done.returncode:
        raise SystemExit(f"image: {' '.join(command)} failed:\n{done.stderr}")
    found = set()
    for line in done.stdout.splitlines():
        if not line:
            continue
        crate, licence = line.split("|")
        name, version = crate.split()[:2]
        found.add((name, version.removeprefix("v"), licence))
    return found


def checksums(lock: pathlib.Path) -> dict[tuple[str, str], str]:
    """Of the crates that come from the registry."""
    entry = re.compile(r'name = "([^"]+)"\nversion = "([^"]+)"\nsource = "registry[^"]*"\nchecksum = "([0-9a-f]+)"')
    return {(name, version): checksum for name, version, checksum in entry.findall(lock.read_text())}


def crate_component(name: str, version: str, licence: str, checksum: str | None) -> dict:
    component = {"type": "library", "bom-ref": f"pkg:cargo/{name}@{version}", "name": name, "version": version,
                 "purl": f"pkg:cargo/{name}@{version}"}
    if licence:
        # Cargo still knows the old way to write an alternative.
        component["licenses"] = [{"expression": licence.replace("/", " OR ")}]
    if checksum:
        component["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return component


def rust_component() -> dict:
    """Rust's standard library is in both files."""
    told = subprocess.run(["rustc", "--version"], text=True, capture_output=True, check=True).stdout.split()[1]
    return {"type": "library", "bom-ref": f"rust:std@{told}", "name": "std", "version": told,
            "licenses": [{"expression": "MIT OR Apache-2.0"}]}


def library_component(path: str, content: bytes) -> dict:
    """A library of the machine that built the image, with its package where dpkg knows it."""
    digest = hashlib.sha256(content).hexdigest()
    component = {"type": "library", "bom-ref": f"file:{path}", "name": pathlib.PurePosixPath(path).name,
                 "hashes": [{"alg": "SHA-256", "content": digest}], "properties": [{"name": "path", "value": path}]}
    if package := package_of(path):
        name, version = package
        component |= {"version": version, "purl": f"pkg:deb/debian/{name}@{version}"}
    return component


def package_of(path: str) -> tuple[str, str] | None:
    """The Debian package that a file is of, and its version."""
    # On a system with /usr merged, dpkg knows a file by one of its two names.
    for name in (path, f"/usr{path}", path.removeprefix("/usr")):
        try:
            owner = subprocess.run(["dpkg-query", "-S", name], text=True, capture_output=True)
        except FileNotFoundError:
            return None
        if owner.returncode == 0:
            package = owner.stdout.split(": ")[0]
            version = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], text=True, capture_output=True, check=True)
            return package.split(":")[0], version.stdout
    return None


def bill(root: pathlib.Path, version: str, created: str, target: str, files: dict[str, bytes], libraries: dict[str, bytes]) -> bytes:
    """The bill of materials; `files`: our own two, `libraries`: the system's, each by its path in the image."""
    sums = checksums(root / "Cargo.lock")
    components, dependencies = {}, []
    for path, content in sorted(files.items()):
        name = pathlib.PurePosixPath(path).name
        linked = [crate_component(*crate, sums.get(crate[:2])) for crate in sorted(crates(root, PACKAGES[name], target))]
        components |= {one["bom-ref"]: one for one in linked}
        components[f"file:/{path}"] = {
            "type": "application" if name == "meltemi" else "library", "bom-ref": f"file:/{path}", "name": name, "version": version,
            "licenses": [{"expression": "Apache-2.0"}],
            "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(content).hexdigest()}]}
        dependencies.append({"ref": f"file:/{path}", "dependsOn": [one["bom-ref"] for one in linked]})
    for one in (rust_component(), *(library_component(path, content) for path, content in libraries.items())):
        components[one["bom-ref"]] = one
    bom = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
           "metadata": {"timestamp": created, "component": {"type": "container", "bom-ref": "image", "name": "meltemi", "version": version}},
           "components": [components[ref] for ref in sorted(components)],
           "dependencies": [{"ref": "image", "dependsOn": sorted(f"file:/{path}" for path in files)}, *dependencies]}
    # The same content has the same number.
    bom["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(bom, sort_keys=True))}"
    return json.dumps(bom, indent=1, sort_keys=True).encode() + b"\n"
