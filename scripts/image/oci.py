"""Writes OCI images as archives, byte for byte the same from the same files."""

import dataclasses
import gzip
import hashlib
import io
import json
import pathlib
import tarfile

MEDIA = "application/vnd.oci.image"


@dataclasses.dataclass
class File:
    """What stands at a path of the image."""
    content: bytes
    mode: int = 0o644


def layer(files: dict[str, File], time: int) -> bytes:
    """An uncompressed layer. Everything belongs to root: nobody in the container may change it."""
    folders = {str(parent) for name in files for parent in pathlib.PurePosixPath(name).parents} - {"."}
    entries = [(name, None) for name in folders] + list(files.items())
    out = io.BytesIO()
    # A folder's name sorts before those of what it holds.
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, file in sorted(entries, key=lambda entry: entry[0]):
            info = tarfile.TarInfo(name)
            info.mtime = time
            info.uname = info.gname = "root"
            if file is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)
            else:
                info.mode, info.size = file.mode, len(file.content)
                archive.addfile(info, io.BytesIO(file.content))
    return out.getvalue()


class Layout:
    """The blobs of an image, by their digests."""

    def __init__(self):
        self.blobs: dict[str, bytes] = {}

    def add(self, kind: str, content: bytes) -> dict:
        digest = hashlib.sha256(content).hexdigest()
        self.blobs[digest] = content
        return {"mediaType": f"{MEDIA}.{kind}", "digest": f"sha256:{digest}", "size": len(content)}

    def add_json(self, kind: str, value: dict) -> dict:
        return self.add(kind, json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def image(layers: list[tuple[str, dict[str, File]]], config: dict, annotations: dict[str, str], reference: str, created: str,
          time: int, platform: tuple[str, str]) -> tuple[Layout, str]:
    """An image of layers, each with a word about it, for an operating system and architecture; gives its blobs and its digest."""
    target = dict(zip(("os", "architecture"), platform))
    layout, described, ids, history = Layout(), [], [], []
    for word, files in layers:
        plain = layer(files, time)
        ids.append(f"sha256:{hashlib.sha256(plain).hexdigest()}")
        history.append({"created": created, "created_by": word})
        described.append(layout.add("layer.v1.tar+gzip", gzip.compress(plain, 6, mtime=0)))
    configuration = layout.add_json("config.v1+json", target | {
        "created": created, "config": config,
        "rootfs": {"type": "layers", "diff_ids": ids}, "history": history})
    manifest = layout.add_json("manifest.v1+json", {
        "schemaVersion": 2, "mediaType": f"{MEDIA}.manifest.v1+json", "config": configuration, "layers": described,
        "annotations": annotations})
    layout.index = {"schemaVersion": 2, "mediaType": f"{MEDIA}.index.v1+json", "manifests": [
        manifest | {"annotations": {"org.opencontainers.image.ref.name": reference},
                    "platform": target}]}
    return layout, manifest["digest"]


def archive(layout: Layout, path: pathlib.Path, time: int):
    """Writes the layout as one file, which `skopeo copy oci-archive:FILE ...` reads."""
    files = {"oci-layout": File(b'{"imageLayoutVersion":"1.0.0"}'),
             "index.json": File(json.dumps(layout.index, sort_keys=True, separators=(",", ":")).encode())}
    files |= {f"blobs/sha256/{digest}": File(content) for digest, content in layout.blobs.items()}
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(layer(files, time))
    partial.rename(path)
