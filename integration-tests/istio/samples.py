"""Aeraki's own objects as its users have them, in YAML files. They are applied unchanged but for the namespace."""

import pathlib

import yaml

from harness import wait_until

FOLDER = pathlib.Path(__file__).resolve().parent / "aeraki"
NAMESPACE = "meta-demo"


class Samples:
    def __init__(self, space):
        self.kube, self.namespace = space.bed.kube, space.name

    def define(self):
        """Aeraki's kinds, as a cluster has them that had Aeraki."""
        for item in self.read("definitions"):
            self.kube.apply(item)
            wait_until(lambda item=item: "Established" in {
                one["type"] for one in self.kube.request("GET", self.kube.path_of(item))["status"].get("conditions", [])
                if one["status"] == "True"}, item["metadata"]["name"], 30)

    def read(self, name: str) -> list[dict]:
        text = (FOLDER / f"{name}.yaml").read_text().replace(NAMESPACE, self.namespace)
        return list(yaml.safe_load_all(text))

    def apply(self, name: str):
        self.kube.apply(*self.read(name))

    def delete(self, name: str):
        self.kube.delete(*self.read(name))
