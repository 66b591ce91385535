"""Our control plane on a real API server, with the rights of the chart and no others."""

import copy
import time

import pytest

from cluster_objects import (FILTER, LABEL, OURS, VIRTUAL, cluster, condition, events, filters, router, service,  # noqa: F401
                             space, within_two_seconds)
from harness import wait_until
from kube import ApiError


@pytest.fixture(scope="module")
def controller(cluster):
    """The replica that all tests share unless they need others."""
    with cluster.leading("shared") as controller:
        yield controller


# Objects


def test_filters_follow_services(cluster, controller, space):
    kube = cluster.kube
    kube.apply(service(space, "other"))
    within_two_seconds(lambda: len(filters(kube, space)) == 2, "the other service's filters")

    def others():
        return {name: item["spec"] for name, item in filters(kube, space).items()}
    before = others()
    kube.apply(service(space))
    mine = within_two_seconds(lambda: filters(kube, f"orders.{space}"), "the service's filters")
    for item in mine.values():
        assert item["metadata"]["labels"] == LABEL
        assert {field["manager"] for field in item["metadata"]["managedFields"]} == {"meltemi"}

    kube.apply(service(space, codec="dubbo"))
    within_two_seconds(lambda: "dubbo" in str(filters(kube, f"orders.{space}")), "the codec to change")
    kube.apply(service(space, port=9191))
    within_two_seconds(lambda: "9191" in str(filters(kube, f"orders.{space}")), "the port to change")
    kube.apply(service(space, appProtocol="tcp"))
    within_two_seconds(lambda: not filters(kube, f"orders.{space}"), "the filters of a plain port to go")
    kube.apply(service(space))
    within_two_seconds(lambda: filters(kube, f"orders.{space}"), "the filters to come back")
    kube.delete(service(space))
    within_two_seconds(lambda: not filters(kube, f"orders.{space}"), "the filters of a deleted service to go")
    assert others() == before, "what is about other services is not changed"


def test_services_of_a_port_number_share_an_object(cluster, controller, space):
    """Which is written as often as one of them changes, and goes with the last."""
    kube, port = cluster.kube, 9300
    shared = f"istio-system/meltemi-port-{port}-thrift"
    names = ("orders", "users", "stock")
    for name in names:
        kube.apply(service(space, name, port=port))
    for gone, name in enumerate(names):
        for other in names[gone:]:
            within_two_seconds(lambda other=other: shared in filters(kube, f"{other}.{space}"), f"the client's side of {other}")
        kube.delete(service(space, name, port=port))
        within_two_seconds(lambda name=name: shared not in filters(kube, f"{name}.{space}"), f"that of {name} to go")
    assert not filters(kube, space)


def test_metadata_alone_is_no_news(cluster, controller, space):
    kube = cluster.kube
    kube.apply(service(space), router(space))
    within_two_seconds(lambda: kube.get(*VIRTUAL, "meltemi-orders", space), "the virtual service")
    wait_until(lambda: condition(kube, router(space), "Programmed").get("status") == "True", "programmed", 10)
    generation = [line for line in controller.get("/metrics").splitlines() if line.startswith("meltemi_generation")]
    before, virtual = filters(kube, space), kube.get(*VIRTUAL, "meltemi-orders", space)
    for item in (service(space), router(space)):
        annotated = copy.deepcopy(item)
        annotated["metadata"]["annotations"] = {"argocd.argoproj.io/tracking-id": "x"}
        kube.apply(annotated, manager="argo")
    # Something that is news tells when the rest was seen.
    kube.apply(service(space, "later", port=9191))
    within_two_seconds(lambda: filters(kube, f"later.{space}"), "news")
    kube.delete(service(space, "later", port=9191))
    within_two_seconds(lambda: filters(kube, space) == before, "nothing to have changed")
    assert kube.get(*VIRTUAL, "meltemi-orders", space) == virtual
    assert [line for line in controller.get("/metrics").splitlines() if line.startswith("meltemi_generation")] == generation


def test_a_router_becomes_a_virtual_service_with_an_owner(cluster, controller, space):
    kube = cluster.kube
    kube.apply(service(space))
    stored = kube.apply(router(space))
    virtual = within_two_seconds(lambda: kube.get(*VIRTUAL, "meltemi-orders", space), "the virtual service")
    [owner] = virtual["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("MetaRouter", "orders", stored["metadata"]["uid"])
    wait_until(lambda: condition(kube, router(space), "Programmed").get("status") == "True", "programmed", 10)
    assert condition(kube, router(space), "Accepted")["status"] == "True"
    assert condition(kube, router(space), "ResolvedRefs")["status"] == "True"
    assert condition(kube, router(space), "Programmed")["message"] == "0 of 0 connected proxies acknowledged"
    wait_until(lambda: {"Accepted", "Programmed"} <= {one["reason"] for one in events(kube, "orders")}, "events", 5)
    kube.delete(router(space))
    within_two_seconds(lambda: kube.get(*VIRTUAL, "meltemi-orders", space) is None, "the virtual service to go")


def test_drift_is_repaired_and_told_once(cluster, controller, space):
    kube = cluster.kube
    # A number of its own: what is about others changes as well while they go.
    kube.apply(service(space, port=9400))
    name, good = within_two_seconds(lambda: next(iter(filters(kube, f"orders.{space}").items()), None), "a filter")
    path = kube.path_of(good)
    kube.request("PATCH", f"{path}?fieldManager=somebody", {"spec": {"configPatches": [], "priority": 7}}, "application/merge-patch+json")
    within_two_seconds(lambda: kube.request("GET", path)["spec"]["configPatches"] == good["spec"]["configPatches"], "the repair")
    filter_name = good["metadata"]["name"]
    wait_until(lambda: [one for one in events(kube, filter_name) if one["reason"] == "DriftRepaired"], "the event", 5)
    kube.request("DELETE", path)
    within_two_seconds(lambda: kube.get(*FILTER, filter_name, good["metadata"]["namespace"]), "it to be made again")
    told = [one for one in events(kube, filter_name) if one["reason"] == "DriftRepaired"]
    assert len(told) == 1 and "series" not in told[0], "told once"
    assert controller.log().count(f"{name}: somebody else changed it") == 1


def test_foreign_objects_are_not_touched(cluster, controller, space):
    kube = cluster.kube
    spec = {"hosts": ["theirs.example"], "http": [{"route": [{"destination": {"host": "theirs.example"}}]}]}
    taken = {"apiVersion": VIRTUAL[0], "kind": VIRTUAL[1], "metadata": {"name": "meltemi-orders", "namespace": space}, "spec": spec}
    labelled = copy.deepcopy(taken)
    labelled["metadata"] |= {"name": "labelled", "labels": LABEL}
    before = [kube.apply(taken), kube.apply(labelled)]
    kube.apply(service(space), router(space))
    wait_until(lambda: condition(kube, router(space), "Programmed").get("reason") == "NotWritten", "the status", 10)
    message = condition(kube, router(space), "Programmed")["message"]
    assert f"VirtualService {space}/meltemi-orders" in message and "not ours" in message
    assert [kube.get(*VIRTUAL, name, space) for name in ("meltemi-orders", "labelled")] == before
    # As soon as the name is free it is taken.
    kube.delete(taken)
    wait_until(lambda: condition(kube, router(space), "Programmed").get("status") == "True", "programmed", 40)
    kube.delete(router(space))
    within_two_seconds(lambda: kube.get(*VIRTUAL, "meltemi-orders", space) is None, "ours to go")
    assert kube.get(*VIRTUAL, "labelled", space) == before[1]


# Wrong objects

REFUSED = {
    "two hosts": ({"hosts": ["a.test", "b.test"]}, "hosts"),
    "no host": ({"hosts": []}, "hosts must name exactly one host"),
    "no weights": ({"routes": [{"route": [{"destination": {"host": "a.test"}}, {"destination": {"host": "b.test"}}]}]}, "weight"),
    "two matches": ({"routes": [{"match": {"attributes": {"method": {"exact": "a", "prefix": "b"}}}}]}, "only one of exact, prefix"),
    "empty bucket": ({"localRateLimit": {"tokenBucket": {"maxTokens": 0}}}, "maxTokens must be more than 0"),
    "percentage": ({"routes": [{"mirror": {"host": "a.test"}, "mirrorPercentage": {"value": 101}}]}, "from 0 to 100"),
    "no destination": ({"routes": [{"route": [{"destination": {}}]}]}, "host must name a service"),
    "wrong type": ({"routes": [{"timeout": 5}]}, "spec.routes[0].timeout"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_schema_can_say_is_refused(cluster, case):
    spec, words = REFUSED[case]
    item, kube = router("default", "refused", "a.test", **spec), cluster.kube
    with pytest.raises(ApiError) as error:
        kube.request("POST", kube.path(item["apiVersion"], item["kind"], "default"), item)
    assert error.value.status == 422 and words in error.value.message


@pytest.mark.parametrize("most, words", [(33_554_433, "at most 33554432"), (0, "more than 0"), (33_554_432, None)])
def test_frames_have_a_bound(cluster, most, words):
    kube = cluster.kube
    protocol = {"apiVersion": OURS, "kind": "ApplicationProtocol", "metadata": {"name": "bounded"},
                "spec": {"protocol": "bounded", "codec": "thrift", "maxFrameBytes": most}}
    path = kube.path(protocol["apiVersion"], protocol["kind"])
    if words is None:
        kube.request("POST", path, protocol)
        kube.delete(protocol)
        return
    with pytest.raises(ApiError) as error:
        kube.request("POST", path, protocol)
    assert error.value.status == 422 and f"maxFrameBytes must be {words}" in error.value.message


WRONG = {
    "expression": ({"routes": [{"name": "r", "match": {"attributes": {"method": {"regex": "(?x) a"}}},
                                "route": [{"destination": {"host": "orders"}}]}]}, "Invalid",
                   "spec.routes[0].match.attributes.method: regex: "),
    "duration": ({"routes": [{"name": "r", "timeout": "5 parsecs"}]}, "Invalid", "spec.routes[0].timeout: `5 parsecs` is not a duration"),
    "no place": ({"localRateLimit": {"tokenBucket": {"maxTokens": 5}}}, "Invalid", "spec.localRateLimit: has no place"),
    "destination": ({"routes": [{"name": "r", "route": [{"destination": {"host": "nowhere.test"}}]}]}, "RefNotResolved",
                    "spec.routes[0].route[0].destination.host: there is no"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_else_is_wrong_is_told_in_the_status(cluster, controller, space, case):
    kube = cluster.kube
    spec, reason, words = WRONG[case]
    # A number of its own: what is about others changes as well while they go.
    kube.apply(service(space, port=9401 + list(WRONG).index(case)), router(space))
    wait_until(lambda: condition(kube, router(space), "Programmed").get("status") == "True", "the good one", 10)
    virtual, before = kube.get(*VIRTUAL, "meltemi-orders", space), filters(kube, space)
    kube.apply(router(space, **spec))
    told = wait_until(lambda: condition(kube, router(space), "Accepted"), "the status", 10)
    assert (told["status"], told["reason"]) == ("False", reason) and words in told["message"]
    assert condition(kube, router(space), "Programmed")["status"] == "False"
    assert (kube.get(*VIRTUAL, "meltemi-orders", space), filters(kube, space)) == (virtual, before), "the last good one stays"
    wait_until(lambda: [one for one in events(kube, "orders") if one["reason"] == reason and one["type"] == "Warning"], "an event", 5)
    kube.apply(router(space))
    wait_until(lambda: condition(kube, router(space), "Accepted").get("status") == "True", "the good one again", 10)


def test_of_two_that_claim_the_same_host_the_older_wins(cluster, controller, space):
    kube = cluster.kube
    kube.apply(service(space), router(space, "old"))
    time.sleep(1.1)  # Ages are in seconds.
    kube.apply(router(space, "a-new"))
    told = wait_until(lambda: condition(kube, router(space, "a-new"), "Accepted"), "the status", 10)
    assert (told["status"], told["reason"]) == ("False", "Conflicted") and f"{space}/old" in told["message"]
    assert condition(kube, router(space, "old"), "Accepted")["status"] == "True"
    kube.delete(router(space, "old"))
    wait_until(lambda: condition(kube, router(space, "a-new"), "Accepted").get("status") == "True", "the younger to follow", 10)


def test_protocols_and_services_that_are_wrong(cluster, controller, space):
    kube = cluster.kube
    protocol = {"apiVersion": OURS, "kind": "ApplicationProtocol", "metadata": {"name": space},
                "spec": {"protocol": f"p-{space}", "codec": "gopher"}}
    kube.apply(protocol)
    try:
        told = wait_until(lambda: condition(kube, protocol, "Accepted"), "the status", 10)
        assert told["status"] == "False" and "spec.codec: there is no codec `gopher`" in told["message"]
    finally:
        kube.delete(protocol)


def test_events_tell_what_is_wrong_with_objects_of_others(cluster, controller, space):
    kube = cluster.kube
    meta = lambda name: {"name": name, "namespace": space}  # noqa: E731
    entry = {"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": meta("odd-entry"), "spec": {
        "hosts": [f"odd.{space}.test"], "ports": [{"number": 9090, "name": "tcp-metaprotocol-gopher", "protocol": "TCP"}]}}
    rule = {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": meta("first"),
            "spec": {"host": f"orders.{space}.svc.cluster.local"}}
    kube.apply(service(space), service(space, "odd", codec="gopher"), entry, rule)
    time.sleep(1.1)  # Ages are in seconds.
    kube.apply(rule | {"metadata": meta("second")})
    for name, word in (("odd", "gopher"), ("odd-entry", "gopher"), ("second", f"{space}/first already has this")):
        [told] = wait_until(lambda: events(kube, name), f"an event about {name}", 10)
        assert told["type"] == "Warning" and word in told["note"], told
    assert not events(kube, "first")


# Kinds that come and go


def test_aerakis_kinds_are_read_when_they_appear(cluster, controller, space):
    kube = cluster.kube
    text = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: metarouters.metaprotocol.aeraki.io}
spec:
  group: metaprotocol.aeraki.io
  names: {kind: MetaRouter, listKind: MetaRouterList, plural: metarouters, singular: metarouter}
  scope: Namespaced
  versions:
  - name: v1alpha1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"""
    definition = kube.apply(text)
    version = "metaprotocol.aeraki.io/v1alpha1"
    try:
        wait_until(lambda: "True" in str(kube.get("apiextensions.k8s.io/v1", "CustomResourceDefinition",
                                                  "metarouters.metaprotocol.aeraki.io")["status"].get("conditions")), "it", 10)
        kube.apply(service(space))
        wait_until(lambda: kube.apply(router(space) | {"apiVersion": version}), "it to be served", 10)
        # It is looked for every five seconds.
        virtual = wait_until(lambda: kube.get(*VIRTUAL, "meltemi-orders", space), "the virtual service", 10)
        assert virtual["metadata"]["ownerReferences"][0]["apiVersion"] == version
    finally:
        kube.delete(definition)
    wait_until(lambda: kube.get(*VIRTUAL, "meltemi-orders", space) is None, "the virtual service to go", 30)


# Last


def test_no_right_was_missing(cluster, controller):
    # A namespace on its way out takes nothing new.
    lines = [line for line in controller.log().splitlines() if "forbidden" in line and "being terminated" not in line]
    assert not lines
