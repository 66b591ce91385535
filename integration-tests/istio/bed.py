"""A real Istio mesh on this machine, without containers: Kubernetes' API server, istiod, and pods as network namespaces.

Istio's own Envoy extensions are not in stock Envoy, so istiod runs without them. Everything else is unmodified.
"""

import itertools
import pathlib
import urllib.request

import fetch
import injection
import istiod
from harness import wait_until
from istiod import ROOT_NAMESPACE
from kube import Kubernetes
from pod import Pod
from processes import BRIDGE, Registry, remove_namespace, sh

SUBNET, SUBNET_6 = "10.91.0", "fd91:"
# Of addresses that no proxy takes for its own.
LINK = "169.254.91"
ISTIOD = istiod.Ports(15010, 15012, 8080, 15017, 15014)
ISTIO_VERSION = "1.31.0"
# Of the mesh's configuration, for `Telemetry` objects: a Service's name, namespace and port.
PROVIDERS = {"zipkin": ("zipkin", ROOT_NAMESPACE, 9411)}


class Service:
    """A Kubernetes Service as clients see it."""

    def __init__(self, name: str, namespace: str, ip: str):
        self.name, self.namespace, self.ip = name, namespace, ip
        self.host = f"{name}.{namespace}.svc.cluster.local"


class Space:
    """A namespace with pods of its own: what one module of tests works in."""

    def __init__(self, bed: "Bed", name: str, mtls: str, envoy: pathlib.Path | None, module: pathlib.Path | None):
        self.bed, self.name, self.envoy, self.module = bed, name, envoy, module
        self.pods: dict[str, Pod] = {}
        bed.kube.namespace(name)
        self.apply({"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": "default"},
                    "spec": {"mtls": {"mode": mtls}}})

    def pod(self, name: str, **options) -> Pod:
        self.start({name: options})
        return self.pods[name]

    def start(self, pods: dict[str, dict]):
        """Starts pods at once. Options: labels, envoy, module, sidecar=False, account, istio_version, certificates=True, gateway=True,
        ports, proxy_metadata, dual_stack=True, only_6=True."""
        started = []
        for name, options in pods.items():
            options = {"envoy": self.envoy, "module": self.module, "account": "default", "istio_version": ISTIO_VERSION,
                       "labels": {"app": name}} | options
            if not options.pop("sidecar", True):
                options |= {"envoy": None, "module": None}
            if options["account"] != "default":
                self.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": options["account"]}})
            pod = Pod(self, name, next(self.bed.numbers), **options)
            self.pods[name] = pod
            pod.network()
            pod.object()
            started.append(pod)
        for pod in started:
            if pod.envoy:
                pod.agent()
        for pod in started:
            pod.ready()

    def service(self, name: str, selector: dict, ports: list[dict], **spec) -> Service:
        """A Service; each port at least {"name", "port"}."""
        annotations = spec.pop("annotations", {})
        ports = [{"protocol": "TCP", "targetPort": port["port"], **port} for port in ports]
        stored = self.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "annotations": annotations},
                             "spec": {"selector": selector, "ports": ports, **spec}})
        return Service(name, self.name, stored["spec"].get("clusterIP"))

    def apply(self, *items: dict) -> dict:
        """Applies objects to this namespace, unless they name another; gives the last as stored."""
        stored = {}
        for item in items:
            stored = self.bed.kube.apply(self.here(item))
        return stored

    def delete(self, *items: dict):
        self.bed.kube.delete(*map(self.here, items))

    def here(self, item: dict) -> dict:
        return item | {"metadata": {"namespace": self.name} | item["metadata"]}

    def close(self):
        for pod in self.pods.values():
            pod.stop()
        self.bed.kube.delete({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name}})


class Bed:
    """One mesh; one at a time on a machine."""

    bridge, host, host_6, host_of_link = BRIDGE, f"{SUBNET}.1", f"{SUBNET_6}:1", f"{LINK}.1"

    def __init__(self, binaries: pathlib.Path):
        self.registry = Registry()
        self.binaries, self.folder = binaries, self.registry.folder
        self.kube = Kubernetes(self.registry, binaries, self.folder / "kubernetes")
        self.numbers = itertools.count(2)

    @staticmethod
    def address(number: int, of_link=False) -> str:
        return f"{LINK if of_link else SUBNET}.{number}"

    @staticmethod
    def address_6(number: int) -> str:
        return f"{SUBNET_6}:{number:x}"

    @property
    def kubeconfig(self) -> pathlib.Path:
        return self.kube.kubeconfig

    def up(self):
        self.registry.acquire()
        try:
            self.kube.up()
            self.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ROOT_NAMESPACE}},
                            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node"}})
            self.kube.definitions(self.binaries / "istio-crds.yaml")
            self.kube.definitions(self.binaries / "gateway-api-crds.yaml")
            sh("ip", "link", "add", BRIDGE, "type", "bridge")
            sh("ip", "addr", "add", f"{self.host}/24", "dev", BRIDGE)
            sh("ip", "addr", "add", f"{self.host_of_link}/24", "dev", BRIDGE)
            sh("ip", "addr", "add", f"{self.host_6}/64", "dev", BRIDGE, "nodad")
            sh("ip", "link", "set", BRIDGE, "up")
            self.istiod()
        except BaseException:
            self.down()
            raise

    def down(self):
        self.registry.close()

    def istiod(self):
        if not fetch.injection_obstacle():
            self.kube.apply(injection.config_map(fetch.injection(), ROOT_NAMESPACE))
        name, namespace, port = PROVIDERS["zipkin"]
        labels = {"call": "%REQ(:PATH)%", "code": "%RESPONSE_CODE%"}
        providers = [{"name": "zipkin", "zipkin": {"service": f"{name}.{namespace}.svc.cluster.local", "port": port}},
                     {"name": "refusals", "envoyFileAccessLog": {"path": "refusals.log", "logFormat": {"labels": labels}}}]
        mesh = {"accessLogFile": "access.log", "accessLogEncoding": "JSON", "extensionProviders": providers,
                "defaultConfig": {"discoveryAddress": "istiod.istio-system.svc:15012"}}
        istiod.start(self.registry, self.binaries, self.kubeconfig, self.folder, self.host, ISTIOD, mesh,
                     PILOT_ENABLE_METADATA_EXCHANGE="false", PILOT_ENABLE_ALPN_FILTER="false", PILOT_ENABLE_GATEWAY_API="true",
                     ISTIO_DUAL_STACK="true")
        wait_until(lambda: self.pilot("/ready") is not None, "istiod", 90)

    def pilot(self, path: str, port=8080) -> str:
        """istiod's own pages: /debug/syncz, /debug/push_status, /debug/endpointz; port 15014: /metrics."""
        with urllib.request.urlopen(f"http://{self.host}:{port}{path}", timeout=30) as answer:
            return answer.read().decode()

    def root_certificate(self, namespace: str) -> str:
        def found():
            item = self.kube.get("v1", "ConfigMap", "istio-ca-root-cert", namespace)
            return item and item["data"]["root-cert.pem"]
        return wait_until(found, f"Istio's root certificate in {namespace}", 60)

    def space(self, name: str, mtls="STRICT", envoy=None, module=None) -> Space:
        return Space(self, name, mtls, envoy, module)

    def remove_network(self, pod: Pod):
        remove_namespace(pod.netns)

    def logs(self) -> str:
        return "\n".join(f"--- {path.relative_to(self.folder)}\n{path.read_text(errors='replace')[-3000:]}"
                         for path in sorted(self.folder.rglob("*.log")) if path.stat().st_size)
