"""The image of the plugins that `make wasm-image` makes, and that it comes back from a real registry as it went in."""

import hashlib
import io
import json
import shutil
import subprocess
import tarfile

import pytest

import registry
from harness import FILTER_HOST, WASM
from oci_archive import Image, make

pytestmark = pytest.mark.skipif(FILTER_HOST != "wasm", reason="a test of the plugins in Wasm")
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def build(out, **environment):
    make("plugin.py", "--wasm", WASM, "--out", out, **environment)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "plugin.tar"
    build(path)
    return path


def test_its_one_layer_holds_the_plugin(archive):
    """As the compat variant of the Wasm image specification has it."""
    image = Image(archive)
    assert [layer["mediaType"] for layer in image.manifest["layers"]] == [LAYER]
    [layer] = image.layers()
    assert layer.getnames() == ["plugin.wasm"]
    assert layer.extractfile("plugin.wasm").read() == WASM.read_bytes()
    assert (image.config["os"], image.config["architecture"]) == ("wasip1", "wasm")


def test_the_same_sources_give_the_same_bytes(archive, tmp_path):
    again = tmp_path / "again.tar"
    build(again)
    assert again.read_bytes() == archive.read_bytes()
    build(again, SOURCE_DATE_EPOCH="1")
    assert Image(again).config["created"] == "1970-01-01T00:00:01Z", "its time is that of the sources"


def test_a_registry_gives_it_back(archive, tmp_path):
    """By the requests of Istio's agent: the manifest by its tag, the last layer by its digest."""
    if reason := registry.obstacle():
        pytest.skip(f"SKIPPED a registry: {reason}")
    with registry.Registry(tmp_path / "registry.log") as store:
        store.push(archive, "meltemi-wasm:test")
        raw = store.get("meltemi-wasm", "manifests", "test")
        assert f"sha256:{hashlib.sha256(raw).hexdigest()}" == Image(archive).descriptor["digest"]
        layer = json.loads(raw)["layers"][-1]
        assert layer["mediaType"] == LAYER
        with tarfile.open(fileobj=io.BytesIO(store.get("meltemi-wasm", "blobs", layer["digest"])), mode="r:gz") as files:
            assert files.extractfile("plugin.wasm").read() == WASM.read_bytes()


def test_skopeo_pushes_it(archive, tmp_path):
    """As the page says."""
    if not shutil.which("skopeo"):
        pytest.skip("SKIPPED skopeo: it is not installed (Debian: apt-get install skopeo)")
    if reason := registry.obstacle():
        pytest.skip(f"SKIPPED a registry: {reason}")
    with registry.Registry(tmp_path / "registry.log") as store:
        subprocess.run(["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci-archive:{archive}",
                        f"docker://{store.name}/meltemi-wasm:test"], check=True, capture_output=True)
        assert json.loads(store.get("meltemi-wasm", "manifests", "test")) == Image(archive).manifest
