"""How a real istiod is started on an API server without its webhooks."""

import json
import os
import pathlib
from typing import NamedTuple

ROOT_NAMESPACE = "istio-system"


class Ports(NamedTuple):
    grpc: int
    secure_grpc: int
    http: int
    https: int
    monitoring: int


def start(processes, binaries: pathlib.Path, kubeconfig: pathlib.Path, folder: pathlib.Path, host: str, ports: Ports, mesh: dict,
          **environment: str):
    """Starts it among `processes`, with this mesh configuration and whatever else its environment says."""
    configuration = folder / "mesh.yaml"
    configuration.write_text(json.dumps({"enableTracing": False, "defaultProviders": {}} | mesh))
    environment = os.environ | {
        "POD_NAME": "istiod-1", "POD_NAMESPACE": ROOT_NAMESPACE, "REVISION": "default", "CLUSTER_ID": "Kubernetes",
        "ISTIOD_CUSTOM_HOST": "istiod.istio-system.svc", "INJECTION_WEBHOOK_CONFIG_NAME": "",
        "VALIDATION_WEBHOOK_CONFIG_NAME": ""} | environment
    return processes.start(
        [binaries / "pilot-discovery", "discovery", "--kubeconfig", kubeconfig, "--namespace", ROOT_NAMESPACE, "--meshConfig",
         configuration, "--grpcAddr", f"{host}:{ports.grpc}", "--secureGRPCAddr", f"{host}:{ports.secure_grpc}", "--httpAddr",
         f"{host}:{ports.http}", "--httpsAddr", f"{host}:{ports.https}", "--monitoringAddr", f"{host}:{ports.monitoring}",
         "--ctrlz_address", "127.0.0.1", "--ctrlz_port", "0"], folder / "istiod.log", env=environment, cwd=folder)
