"""A service of two versions, as most tests on the mesh want it."""

from calls import eventually

BOTH = {"v1: hello x", "v2: hello x"}


def two_versions(space, port: int, ports: list[dict], transport="framed", **others: dict):
    """Service `echo` in front of the pods `v1` and `v2`, and a pod `client` beside `others`. Gives it when the sidecars of all three
    take the last of the ports, and the client reaches both versions on `port`."""
    space.start({"client": {}} | others | {version: {"labels": {"app": "echo", "version": version}} for version in ("v1", "v2")})
    for version in ("v1", "v2"):
        space.pods[version].thrift_server(port, transport=transport)
    service = space.service("echo", {"app": "echo"}, ports)
    for name in ("client", "v1", "v2"):
        space.pods[name].takes(service.host, ports[-1]["port"])
    eventually(space.pods["client"], service.ip, port, BOTH, count=20)
    return service


def of_tcp_shape(space, port: int, transport="framed", **others: dict):
    """The same on a port that is named as Aeraki wants it."""
    ports = [{"name": "tcp-metaprotocol-thrift", "port": port}]
    service = two_versions(space, port, ports, transport, **others)
    for name in ("client", "v1", "v2"):
        space.pods[name].has(f"meltemi.hcm.{'out' if name == 'client' else 'in'}.{service.host}:{port}")
    return service
