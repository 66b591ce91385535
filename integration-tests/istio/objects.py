"""Istio's objects, as short as tests want them."""

NETWORKING = "networking.istio.io/v1"


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
