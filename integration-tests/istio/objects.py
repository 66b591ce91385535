"""Istio's objects, as short as tests want them."""

NETWORKING = "networking.istio.io/v1"


def host_of(service: str, space) -> str:
    """A Service's name in the mesh."""
    return f"{service}.{space.name}.svc.cluster.local"


def virtual_service(name: str, host: str, *http: dict) -> dict:
    return {"apiVersion": NETWORKING, "kind": "VirtualService", "metadata": {"name": name}, "spec": {"hosts": [host], "http": list(http)}}


def to(host: str, subset: str | None = None, weight: int | None = None) -> dict:
    """A destination of a route."""
    destination = {"host": host} | ({"subset": subset} if subset else {})
    return {"destination": destination} | ({"weight": weight} if weight is not None else {})


def destination_rule(name: str, host: str, *subsets: str, **policy) -> dict:
    """With a subset for each value of the label `version`."""
    return {"apiVersion": NETWORKING, "kind": "DestinationRule", "metadata": {"name": name},
            "spec": {"host": host, "subsets": [{"name": subset, "labels": {"version": subset}} for subset in subsets],
                     "trafficPolicy": policy}}


def authorization(name: str, action: str, labels: dict, *rules: dict) -> dict:
    return {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": name},
            "spec": {"selector": {"matchLabels": labels}, "action": action, "rules": list(rules)}}


def telemetry(name: str, **spec) -> dict:
    """Of all workloads of the namespace."""
    return {"apiVersion": "telemetry.istio.io/v1", "kind": "Telemetry", "metadata": {"name": name}, "spec": spec}


def meta_router(name: str, host: str, *routes: dict, group="meltemi.dev", **more) -> dict:
    return {"apiVersion": f"{group}/v1alpha1", "kind": "MetaRouter", "metadata": {"name": name},
            "spec": {"hosts": [host], "routes": list(routes), **more}}


def http_route(name: str, parent: str, port: int, path: str, backend: str) -> dict:
    """Of the Gateway API: calls of one path go to another Service, the rest where they went."""
    return gateway_route("HTTPRoute", name, parent, port, {"path": {"type": "Exact", "value": path}}, backend)


def grpc_route(name: str, parent: str, port: int, service: str, method: str, backend: str) -> dict:
    """The same for the calls of one method of a service."""
    return gateway_route("GRPCRoute", name, parent, port, {"method": {"service": service, "method": method}}, backend)


def gateway_route(kind: str, name: str, parent: str, port: int, match: dict, backend: str) -> dict:
    def rule(to: str, **match) -> dict:
        return match | {"backendRefs": [{"name": to, "port": port}]}
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": {"name": name},
            "spec": {"parentRefs": [{"kind": "Service", "group": "", "name": parent, "port": port}],
                     "rules": [rule(backend, matches=[match]), rule(parent)]}}


def service_entry(name: str, host: str, number: int, target: int, **spec) -> dict:
    """Of Thrift, in the mesh; its port says no protocol, because istiod takes none that it does not know."""
    return {"apiVersion": NETWORKING, "kind": "ServiceEntry", "metadata": {"name": name, "annotations": {"meltemi.dev/codec": "thrift"}},
            "spec": {"hosts": [host], "location": "MESH_INTERNAL", "resolution": "STATIC",
                     "ports": [{"name": "rpc", "number": number, "targetPort": target}], **spec}}
