"""What images say about the sources that they are made from."""

import datetime
import os
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def git(*arguments: str) -> str | None:
    done = subprocess.run(["git", "-C", ROOT, *arguments], text=True, capture_output=True)
    return done.stdout.strip() if done.returncode == 0 else None


def version() -> str:
    found = re.search(r'^\[workspace\.package\]\nversion = "([^"]+)"', (ROOT / "Cargo.toml").read_text(), re.M)
    return found[1]


def time() -> int:
    """The time of the sources, not of the build, in seconds."""
    return int(os.environ.get("SOURCE_DATE_EPOCH") or git("log", "-1", "--format=%ct") or 0)


def written(seconds: int) -> str:
    """A time as OCI wants it."""
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def annotations(title: str, description: str, source: str | None) -> dict[str, str]:
    """What an image tells of itself; `source`: URL of the repository."""
    told = {"title": title, "version": version(), "licenses": "Apache-2.0", "description": description, "created": written(time())}
    if source:
        told["source"] = source
    if revision := git("rev-parse", "HEAD"):
        told["revision"] = revision
    return {f"org.opencontainers.image.{key}": value for key, value in told.items()}
