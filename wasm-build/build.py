#!/usr/bin/env python3
"""Builds the proxy-wasm plugins: dist/meltemi.wasm with every codec, dist/meltemi-<codec>.wasm with one. With --crate, the plugin of a
codec that lies elsewhere.

The compiler is, in this order: the machine's own, if it knows wasm32-wasip1; rustup's, after adding the target; one out of Debian's
packages, made once in .cache/wasm-toolchain (two minutes)."""

import argparse
import hashlib
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE, DIST = ROOT / ".cache", ROOT / "dist"
TOOLCHAIN = CACHE / "wasm-toolchain"
TARGET = "wasm32-wasip1"
# Bytes that one codec may take.
MOST_BYTES = 350_000
# What the compiler inlines: less than by itself, for a fiftieth of the size.
INLINE = "-Cllvm-args=-inline-threshold=40"
# Exit code where there is no compiler to be had.
NO_COMPILER = 3
# Seconds that adding a target may take.
PATIENCE = 120


def say(line: str):
    print(f"wasm: {line}", flush=True)


def output(*command, **options) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **options)
    return done.stdout.strip() if done.returncode == 0 else ""


def knows_target(rustc: str) -> bool:
    folder = output(rustc, "--print", "target-libdir", "--target", TARGET)
    return bool(folder) and any(pathlib.Path(folder).glob("libstd-*.rlib"))


def compiler() -> dict[str, str]:
    """The environment in which cargo finds a compiler for Wasm."""
    rustc = os.environ.get("RUSTC", "rustc")
    if shutil.which(rustc) and knows_target(rustc):
        return {}
    if shutil.which("rustup") and not (TOOLCHAIN / "env.sh").exists():
        say(f"rustup target add {TARGET} ...")
        try:
            subprocess.run(["rustup", "target", "add", TARGET], capture_output=True, timeout=PATIENCE, check=False)
        except subprocess.TimeoutExpired:
            say(f"rustup has not answered for {PATIENCE} s")
        if knows_target(rustc):
            return {}
    return debian()


def none(reason: str):
    say(f"no compiler for {TARGET}: `rustup target add {TARGET}` gives you one. {reason}")
    sys.exit(NO_COMPILER)


def debian() -> dict[str, str]:
    script = pathlib.Path(__file__).with_name("toolchain.sh")
    if not (TOOLCHAIN / "env.sh").exists():
        missing = [tool for tool in ("apt-get", "apt-cache", "dpkg") if not shutil.which(tool)]
        if missing:
            none(f"Debian's packages cannot be used here: {', '.join(missing)} missing")
        say("a compiler out of Debian's packages, once (two minutes) ...")
        begun = time.monotonic()
        done = subprocess.run(["bash", script, TOOLCHAIN], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            none(f"{script} failed:\n{done.stdout}")
        say(f"compiler made in {time.monotonic() - begun:.0f} s")
    lines = (shlex.split(line.removeprefix("export ")) for line in (TOOLCHAIN / "env.sh").read_text().splitlines())
    return dict(pair.split("=", 1) for line in lines for pair in line)


def cargo(manifest: pathlib.Path, features: list[str] | None, environment: dict[str, str], profile: str) -> pathlib.Path:
    """Builds a crate; gives its .wasm."""
    home = os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo")
    target = CACHE / "wasm-target"
    # No path of this machine stands in the result.
    flags = [f"--remap-path-prefix={path}={name}" for path, name in ((manifest.parent, "/crate"), (ROOT, "/meltemi"), (home, "/cargo"))]
    flags.append(INLINE)
    command = ["cargo", "build", "--quiet", "--profile", profile, "--target", TARGET, "--target-dir", target,
               "--manifest-path", manifest]
    # A crate that lies elsewhere may have no lock file yet.
    if profile == "wasm":
        command.append("--locked")
    if features is not None:
        command += ["--no-default-features", "--features", ",".join(features)]
    env = {key: value for key, value in os.environ.items() if key not in ("RUSTFLAGS", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET")}
    env |= environment | {"CARGO_ENCODED_RUSTFLAGS": "\x1f".join(flags)}
    if subprocess.run(list(map(str, command)), env=env).returncode:
        sys.exit(f"wasm: {manifest}: cargo failed")
    package = tomllib.loads(manifest.read_text())
    name = package.get("lib", {}).get("name") or package["package"]["name"].replace("-", "_")
    return target / TARGET / ("release" if profile == "release" else profile) / f"{name}.wasm"


def keep(built: pathlib.Path, place: pathlib.Path, begun: float):
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_suffix(".partial")
    shutil.copy(built, partial)
    partial.rename(place)
    digest = hashlib.sha256(place.read_bytes()).hexdigest()
    say(f"{place} {place.stat().st_size / 1000:.0f} kB, sha256 {digest}, in {time.monotonic() - begun:.0f} s")


def codecs() -> list[str]:
    features = tomllib.loads((ROOT / "codecs" / "module" / "Cargo.toml").read_text())["features"]
    return features["default"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="only the plugin with every codec")
    parser.add_argument("--codec", choices=codecs(), help="only the plugin with this codec")
    parser.add_argument("--crate", type=pathlib.Path, metavar="CARGO_TOML", help="the plugin of this crate")
    parser.add_argument("--output", type=pathlib.Path, metavar="FILE", help="where the plugin of --crate goes")
    options = parser.parse_args()
    environment = compiler()
    begun = time.monotonic()
    if options.crate:
        if not options.output:
            parser.error("--crate needs --output")
        keep(cargo(options.crate.resolve(), None, environment, "release"), options.output, begun)
        return
    manifest = ROOT / "codecs" / "module" / "Cargo.toml"
    if not options.codec:
        keep(cargo(manifest, None, environment, "wasm"), DIST / "meltemi.wasm", begun)
    for codec in [] if options.all else [options.codec] if options.codec else codecs():
        begun = time.monotonic()
        place = DIST / f"meltemi-{codec}.wasm"
        keep(cargo(manifest, [codec], environment, "wasm"), place, begun)
        if place.stat().st_size > MOST_BYTES:
            sys.exit(f"wasm: {place}: more than {MOST_BYTES / 1000:.0f} kB")


if __name__ == "__main__":
    main()
