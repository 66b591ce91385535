"""A real registry of images, on a free port of this machine, for as long as a test needs it."""

import pathlib
import subprocess
import sys
import tarfile
import tempfile
import urllib.request

from harness import ROOT, free_port, wait_until

sys.path.append(str(ROOT / "scripts" / "testbed"))

import fetch  # noqa: E402


def obstacle() -> str | None:
    """Why there can be none here."""
    return fetch.tool_obstacle("crane")


class Registry:
    """Crane's, over plain HTTP, in memory. `host`: the address that it listens on."""

    def __init__(self, log: pathlib.Path, host: str = "127.0.0.1"):
        self.name = f"{host}:{free_port()}"
        with log.open("wb") as out:
            self.process = subprocess.Popen([fetch.tool("crane"), "registry", "serve", "--address", self.name], stdout=out,
                                            stderr=subprocess.STDOUT)
        try:
            wait_until(lambda: urllib.request.urlopen(f"http://{self.name}/v2/", timeout=5).status == 200, "the registry")
        except TimeoutError:
            self.close()
            raise

    def push(self, archive: pathlib.Path, image: str) -> str:
        """Takes an OCI archive in as `image` ("name:tag"); gives its full name."""
        reference = f"{self.name}/{image}"
        with tempfile.TemporaryDirectory() as folder:
            with tarfile.open(archive) as files:
                files.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
            done = subprocess.run([fetch.tool("crane"), "push", "--insecure", folder, reference], text=True, capture_output=True)
        if done.returncode:
            raise RuntimeError(f"{reference}: {done.stderr}")
        return reference

    def get(self, image: str, kind: str, name: str) -> bytes:
        """A part of an image as clients fetch it: a manifest or a blob."""
        request = urllib.request.Request(f"http://{self.name}/v2/{image}/{kind}/{name}")
        request.add_header("Accept", "application/vnd.oci.image.manifest.v1+json")
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read()

    def close(self):
        self.process.terminate()
        self.process.wait(10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
