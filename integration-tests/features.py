#!/usr/bin/env python3
"""The table of docs/wasm.md, made from the tests: what is marked `feature("…")` works on a host if its tests run there. Where a host
behaves in another way, which such a test asserts, the mark says how, and why. `--write` writes it into the page."""

import html
import json
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "wasm.md"
BEGIN, END = "<!-- Made from the tests: integration-tests/features.py --write -->\n", "<!-- end -->\n"
HOSTS = ("module", "wasm")


def collected(host: str) -> dict[str, dict]:
    """The features that the tests of a host are of, with what their marks say."""
    with tempfile.NamedTemporaryFile() as out:
        environment = os.environ | {"MELTEMI_HOST": host, "MELTEMI_FEATURES": out.name}
        environment.pop("PYTEST_ADDOPTS", None)
        command = [sys.executable, "-m", "pytest", HERE, "--collect-only", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
        done = subprocess.run(command, env=environment, text=True, capture_output=True)
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        return json.loads(pathlib.Path(out.name).read_text())


def skipped(item) -> bool:
    """Whether a test is of another host. What a machine lacks makes no difference."""
    return any(mark.args[0] for mark in item.iter_markers("skipif") if "Wasm" in mark.kwargs["reason"])


def gather(items) -> dict[str, dict]:
    """What `collected` gives, from the tests that pytest has found."""
    found = {}
    for item in items:
        for mark in item.iter_markers("feature"):
            if not skipped(item):
                found.setdefault(mark.args[0], {}).update(mark.kwargs)
    return found


def table() -> str:
    """One row for each feature: those that work alike first, then those that do not, each in the order of the tests."""
    by_host = {host: collected(host) for host in HOSTS}
    marks: dict[str, dict] = {}
    for found in by_host.values():
        for feature, said in found.items():
            marks.setdefault(feature, {}).update(said)
    rows = []
    for feature, said in marks.items():
        cells = [said.get(host, "yes") if feature in by_host[host] else said.get(host, "no") for host in HOSTS]
        rows.append([feature, *cells, said.get("why", "")])
    rows.sort(key=lambda row: row[1:3] != ["yes", "yes"])
    lines = [["", "module", "Wasm", "why"], ["---"] * 4, *rows]
    return "".join(f"| {' | '.join(html.escape(cell, quote=False) for cell in line)} |\n" for line in lines)


def page(text: str) -> str:
    """The page with the table of today."""
    head, rest = text.split(BEGIN)
    return head + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page(PAGE.read_text()))
    else:
        print(table(), end="")
