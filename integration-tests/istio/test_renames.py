"""Ports change their name, codec and shape: what we have written follows, and nothing else is touched."""

from cluster_objects import (FILTER, cluster, controller, events, filters, router, service, space, tcp_service,  # noqa: F401
                             within_two_seconds)
from harness import wait_until


def named(space: str, port_name: str) -> dict:
    item = tcp_service(space)
    item["spec"]["ports"][0]["name"] = port_name
    return item


def test_what_is_written_follows_a_port(cluster, controller, space):
    kube, mine = cluster.kube, f"orders.{space}"
    kube.apply(tcp_service(space, "other"), service(space, "native", port=9191))
    within_two_seconds(lambda: len(filters(kube, space)) == 4, "the filters of others")

    shared = "istio-system/meltemi-out"

    def ours() -> tuple[dict, list]:
        """All that stands in the cluster, but for what is about this service; of the object that it is in with others, the patches."""
        items = {f"{item['metadata']['namespace']}/{item['metadata']['name']}": item for item in kube.list(*FILTER)
                 if "orders" not in item["metadata"]["name"]}
        return items, items.pop(shared)["spec"]["configPatches"]
    others = ours()
    assert "istio-system/meltemi-xds" in others[0]

    def about() -> dict:
        return filters(kube, mine)
    kube.apply(named(space, "tcp-metaprotocol-thrift"), router(space))
    both = {shared, f"{space}/meltemi-in-orders-9090"}
    within_two_seconds(lambda: set(about()) == both, "the filters of the service")
    before = about()
    kube.apply(named(space, "tcp-other"))
    within_two_seconds(lambda: not about(), "the filters of a port that is not ours to go")
    kube.apply(named(space, "tcp-metaprotocol-thrift"))
    within_two_seconds(lambda: {name: item["spec"] for name, item in about().items()} == {
        name: item["spec"] for name, item in before.items()}, "the same filters to come back")

    kube.apply(named(space, "tcp-metaprotocol-dubbo"))
    within_two_seconds(lambda: about() and all('"name":"dubbo"' in str(item["spec"]) for item in about().values()), "the codec")
    kube.apply(service(space))
    native = {"istio-system/meltemi-port-9090-thrift", f"{space}/meltemi-in-orders-9090"}
    within_two_seconds(lambda: set(about()) == native and "http_connection_manager" in str(about()) and "meltemi.declare" in str(about()),
                       "the other shape")
    good = about()
    kube.apply(named(space, "tcp-metaprotocol-gopher"))
    wait_until(lambda: [one for one in events(kube, "orders") if "gopher" in str(one)], "an event about the codec", 10)
    assert about() == good, "what was good stays while the port is wrong"
    kube.apply(named(space, "tcp-metaprotocol-thrift-v2"))
    within_two_seconds(lambda: {name: item["spec"] for name, item in about().items()} == {
        name: item["spec"] for name, item in before.items()}, "what stands behind the protocol to change nothing")
    kube.delete(service(space))
    within_two_seconds(lambda: not about(), "the filters of a deleted service to go")
    assert ours() == others, "versions and all, where they share nothing"
