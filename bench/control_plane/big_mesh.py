"""What a big mesh has."""

from stand import NAMESPACE

V1 = "meltemi.dev/v1alpha1"


def host(name: str) -> str:
    return f"{name}.{NAMESPACE}.svc.cluster.local"


def service(index: int, port: dict) -> list[dict]:
    """A Service with one endpoint."""
    name = f"s{index}"
    slice_ports = [{"name": port["name"], "port": port["port"], "protocol": "TCP"}]
    metadata = {"namespace": NAMESPACE}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata | {"name": name},
         "spec": {"ports": [{"protocol": "TCP", **port}]}},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
         "metadata": metadata | {"name": f"{name}-1", "labels": {"kubernetes.io/service-name": name}},
         "endpoints": [{"addresses": [f"10.10.{index // 250}.{index % 250 + 1}"], "conditions": {"ready": True}}],
         "ports": slice_ports}]


def native(index: int) -> list[dict]:
    return service(index, {"name": "rpc", "port": 9000, "appProtocol": "meltemi.dev/thrift"})


def tcp(index: int) -> list[dict]:
    return service(index, {"name": "tcp-metaprotocol-thrift", "port": 9000})


def router(index: int, timeout="5s") -> dict:
    """A MetaRouter with a few routes; the timeout is what changes."""
    name = f"s{index}"
    to = [{"destination": {"host": host(name)}}]
    routes = [{"name": f"m{number}", "match": {"attributes": {"method": {"exact": f"m{number}"}}}, "route": to} for number in range(3)]
    return {"apiVersion": V1, "kind": "MetaRouter", "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"hosts": [host(name)], "routes": [*routes, {"name": "rest", "timeout": timeout, "route": to}]}}


def virtual_service(index: int, timeout="5s") -> dict:
    """The same for istiod, of a service of its own."""
    name = f"s{index}"
    to = [{"destination": {"host": host(name)}}]
    http = [{"name": f"m{number}", "match": [{"headers": {"x-meltemi-method": {"exact": f"m{number}"}}}], "route": to} for number in range(3)]
    return {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"hosts": [host(name)], "http": [*http, {"name": "rest", "timeout": timeout, "route": to}]}}
