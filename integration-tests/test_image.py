"""The image that `make image` makes, without a container engine: its bytes, and its programs run from there as its user."""

import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tarfile

import pytest

from harness import DIST, ROOT
from oci_archive import Image, make

USER = 65532
# The sidecar's.
PROXY = 1337


def build(out: pathlib.Path, **environment):
    make("build.py", "--out", out, "--source", "https://code.example/meltemi", **environment)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "image.tar"
    build(path)
    return path


@pytest.fixture(scope="module")
def image(archive):
    return Image(archive)


@pytest.fixture
def root(image, tmp_path):
    """The image's files as a root of their own, through which other users may go."""
    if os.geteuid() != 0:
        pytest.skip("SKIPPED running from the image: needs root, for chroot")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and folder.stat().st_mode & 0o001 == 0:
            folder.chmod(folder.stat().st_mode | 0o011)
    return image.unpack(tmp_path / "root")


def run(root: pathlib.Path, *command, user=USER) -> subprocess.CompletedProcess:
    return subprocess.run(["chroot", f"--userspec={user}:{user}", root, *command], text=True, capture_output=True,
                          env={"PATH": os.environ["PATH"]})


def test_every_part_has_its_digest(image, archive):
    named = {"oci-layout", "index.json"}
    for part in (image.descriptor, image.manifest["config"], *image.manifest["layers"]):
        image.blob(part)
        named.add("blobs/" + part["digest"].replace(":", "/"))
    assert set(image.files) == named
    plain = [hashlib.sha256(gzip.decompress(image.blob(layer))).hexdigest() for layer in image.manifest["layers"]]
    assert image.config["rootfs"]["diff_ids"] == [f"sha256:{digest}" for digest in plain]


def test_the_same_sources_give_the_same_bytes(archive, tmp_path):
    again = tmp_path / "again.tar"
    build(again)
    assert again.read_bytes() == archive.read_bytes()
    assert again.with_suffix(".cdx.json").read_bytes() == archive.with_suffix(".cdx.json").read_bytes()
    build(again, SOURCE_DATE_EPOCH="1")
    assert Image(again).config["created"] == "1970-01-01T00:00:01Z", "its time is that of the sources"


def test_what_it_says_of_itself(image):
    version = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    assert image.config["config"]["User"] == f"{USER}:{USER}", "Kubernetes takes no name for runAsNonRoot"
    assert image.config["config"]["Entrypoint"] == ["/meltemi"]
    for told in (image.config["config"]["Labels"], image.manifest["annotations"]):
        assert told["org.opencontainers.image.version"] == version
        assert told["org.opencontainers.image.licenses"] == "Apache-2.0"
        assert told["org.opencontainers.image.source"] == "https://code.example/meltemi"
    assert image.descriptor["annotations"] == {"org.opencontainers.image.ref.name": f"meltemi:{version}"}


def test_nothing_in_it_may_be_changed_by_its_user(image):
    names = set()
    for layer in image.layers():
        for member in layer.getmembers():
            names.add(member.name)
            assert (member.uid, member.gid) == (0, 0) and not member.mode & 0o022, member.name
            assert member.isdir() or member.isfile(), member.name
            if member.isdir():
                assert member.mode == 0o755, member.name
    assert {"meltemi", "module/libmeltemi.so", "LICENSE", "sbom.cdx.json"} <= names
    assert not [name for name in names if pathlib.PurePosixPath(name).name in ("sh", "bash", "busybox")]


def test_its_bill_of_materials(image, archive):
    [bill] = [layer.extractfile("sbom.cdx.json").read() for layer in image.layers() if "sbom.cdx.json" in layer.getnames()]
    assert bill == archive.with_suffix(".cdx.json").read_bytes()
    bom = json.loads(bill)
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    parts = {part["bom-ref"]: part for part in bom["components"]}
    for name in ("meltemi", "libmeltemi.so"):
        [content] = [layer.extractfile(path).read() for layer in image.layers() for path in layer.getnames() if path.endswith(name)]
        [part] = [part for ref, part in parts.items() if ref.startswith("file:/") and part["name"] == name]
        assert part["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(content).hexdigest()}]
    linked = {one["ref"]: {ref.split("@")[0] for ref in one["dependsOn"]} for one in bom["dependencies"]}
    assert {"pkg:cargo/kube", "pkg:cargo/tonic", "pkg:cargo/meltemi-codecs"} <= linked["file:/meltemi"]
    assert "pkg:cargo/meltemi-engine" in linked["file:/module/libmeltemi.so"]
    assert "pkg:cargo/kube" not in linked["file:/module/libmeltemi.so"]
    for ref in set().union(*(one["dependsOn"] for one in bom["dependencies"])):
        assert ref in parts, ref
    everything = set().union(*linked.values())
    assert not everything & {"pkg:cargo/proptest", "pkg:cargo/serde_derive", "pkg:cargo/tower-test"}, "not linked: tests and macros"
    crates = [part for ref, part in parts.items() if ref.startswith("pkg:cargo/")]
    assert all(part["licenses"] for part in crates)
    assert all("hashes" in part for part in crates if not part["name"].startswith("meltemi"))


def test_its_programs_run_as_its_user(root):
    assert run(root, "/meltemi", "--version").stdout.startswith("meltemi ")
    assert "thrift: " in run(root, "/meltemi", "codecs").stdout
    assert run(root, "/meltemi", "install-module", "/module2").returncode == 2, "it may write nowhere"


def test_names_are_resolved(root):
    """glibc does it without files of its own; here from /etc/hosts, which the kubelet writes. The authority is the cluster's: the image
    has no others."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=ca",
                    "-keyout", root / "ca.key", "-out", root / "ca.crt"], check=True, capture_output=True)
    (root / "etc" / "hosts").write_text("127.0.0.1 api.test\n")
    (root / "kubeconfig").write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "x", "users": [{"name": "x", "user": {}}],
        "clusters": [{"name": "x", "cluster": {"server": "https://api.test:1", "certificate-authority": "/ca.crt"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}]}))
    done = run(root, "/meltemi", "istio", "remove", "--dry-run", "--kubeconfig", "/kubeconfig")
    assert "Connection refused" in done.stderr, done.stderr


@pytest.mark.parametrize("volume", [0o777, 0o2777], ids=["emptyDir", "emptyDir of a pod with fsGroup"])
def test_the_module_is_installed_for_the_sidecar(root, volume):
    shared = root / "opt" / "meltemi"
    shared.mkdir(parents=True, mode=0o755)
    shared.chmod(volume)
    for _ in range(2):
        done = run(root, "/meltemi", "install-module", "/opt/meltemi/module")
        assert done.returncode == 0, done.stderr
    assert "/opt/meltemi/module/libmeltemi.so" in done.stdout and "/module/libmeltemi.so" in done.stdout
    folder, module = shared / "module", shared / "module" / "libmeltemi.so"
    assert stat.S_IMODE(folder.stat().st_mode) & 0o777 == 0o755 and stat.S_IMODE(module.stat().st_mode) == 0o644
    assert module.read_bytes() == (DIST / "libmeltemi.so").read_bytes() and list(folder.iterdir()) == [module]
    # The sidecar's user loads it, as Envoy does, with nothing left to be found out later.
    code = f"import ctypes, os; os.setgid({PROXY}); os.setuid({PROXY}); ctypes.CDLL({str(module)!r}, mode=os.RTLD_NOW)"
    loaded = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True)
    assert "Permission denied" not in loaded.stderr and "cannot open" not in loaded.stderr, loaded.stderr


def test_skopeo_reads_it(image, archive, tmp_path):
    if not shutil.which("skopeo"):
        pytest.skip("SKIPPED skopeo: it is not installed (Debian: apt-get install skopeo)")
    seen = json.loads(subprocess.run(["skopeo", "inspect", f"oci-archive:{archive}"], check=True, capture_output=True).stdout)
    assert seen["Digest"] == image.descriptor["digest"] and seen["Os"] == "linux"
    subprocess.run(["skopeo", "copy", "--quiet", f"oci-archive:{archive}", f"dir:{tmp_path / 'copy'}"], check=True, capture_output=True)
    assert json.loads((tmp_path / "copy" / "manifest.json").read_text()) == image.manifest
