"""Makes our OCI archives, and reads them."""

import hashlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile

from harness import ROOT


def make(script: str, *options, **environment: str):
    """Runs one of the scripts that make an image."""
    done = subprocess.run([sys.executable, ROOT / "scripts" / "image" / script, *options], text=True, capture_output=True,
                          env=os.environ | environment)
    assert done.returncode == 0, done.stderr


class Image:
    """The parts of an archive, each checked against its digest."""

    def __init__(self, path: pathlib.Path):
        with tarfile.open(path) as archive:
            self.members = archive.getmembers()
            self.files = {member.name: archive.extractfile(member).read() for member in self.members if member.isfile()}
        assert json.loads(self.files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
        [self.descriptor] = json.loads(self.files["index.json"])["manifests"]
        self.manifest = json.loads(self.blob(self.descriptor))
        self.config = json.loads(self.blob(self.manifest["config"]))

    def blob(self, descriptor: dict) -> bytes:
        algorithm, digest = descriptor["digest"].split(":")
        content = self.files[f"blobs/{algorithm}/{digest}"]
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (digest, descriptor["size"])
        return content

    def layers(self) -> list[tarfile.TarFile]:
        return [tarfile.open(fileobj=io.BytesIO(self.blob(layer)), mode="r:gz") for layer in self.manifest["layers"]]

    def unpack(self, folder: pathlib.Path) -> pathlib.Path:
        folder.mkdir(mode=0o755)
        folder.chmod(0o755)
        for layer in self.layers():
            layer.extractall(folder, **({"filter": "fully_trusted"} if hasattr(tarfile, "data_filter") else {}))
        return folder
