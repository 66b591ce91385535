"""Proxies older than Istio 1.31 run our filters in Wasm, others in the module: both in one STRICT mesh, tcp shape."""

import pytest

import controller as control
import setup
from calls import call, eventually
from echo import BOTH
from harness import DIST
from objects import destination_rule, meta_router, to

PORT = 9090
# Istio 1.29 runs on Envoy 1.37; the second pair is for another Envoy.
OLD = {"1.39.3": ("1.29.0", "1.37.0"), "1.40.0": ("1.30.2", "1.39.3")}
CLIENTS = ["module", "wasm"]


@pytest.fixture(scope="module")
def controller(bed):
    """Our control plane, which knows where proxies find the plugin."""
    control.prepare(bed)
    plugin = DIST / "meltemi.wasm"
    if not plugin.exists():
        pytest.skip("SKIPPED: no dist/meltemi.wasm (make wasm)")
    controller = control.Controller(bed, options=("--stock-envoy", "--wasm", plugin)).start()
    yield controller
    controller.stop()


@pytest.fixture(scope="module")
def wasm(space, envoy):
    """Options of a pod whose sidecar is of an older Istio."""
    version, of = OLD[envoy.parents[2].name]

    def options(**labels):
        return {"module": None, "istio_version": version, "envoy": setup.envoy(of), "labels": {"meltemi.dev/wasm": "1"} | labels}
    return options


@pytest.fixture(scope="module")
def echo(controller, space, wasm):
    """The server v1 has the module, v2 the plugin."""
    space.start({"module": {}, "wasm": wasm(app="wasm"), "plain": {"module": None},
                 "v1": {"labels": {"app": "echo", "version": "v1"}}, "v2": wasm(app="echo", version="v2")})
    for version in ("v1", "v2"):
        space.pods[version].thrift_server(PORT)
    service = space.service("echo", {"app": "echo"}, [{"name": "tcp-metaprotocol-thrift", "port": PORT}])
    space.apply(destination_rule("echo", service.host, "v1", "v2"))
    for name in ("module", "wasm", "v1", "v2"):
        space.pods[name].takes(service.host, PORT)
    for name in CLIENTS:
        try:
            eventually(space.pods[name], service.ip, PORT, lambda seen: set(seen) <= BOTH, count=20, seconds=10)
        except AssertionError:
            import json
            for pod in space.pods.values():
                open(f"/tmp/dump-{pod.name}.json", "w").write(json.dumps(pod.config(), indent=1))
                open(f"/tmp/stats-{pod.name}", "w").write(pod.admin("/stats"))
                open(f"/tmp/log-{pod.name}", "w").write(pod.log("agent"))
            raise
    return service


def pinned(echo, version: str, **more) -> dict:
    return meta_router("echo", echo.host, {"route": [to(echo.host, version)]} | more)


@pytest.mark.parametrize("server", ["v1", "v2"])
@pytest.mark.parametrize("caller", [*CLIENTS, "plain"])
def test_every_mix(space, echo, applied, caller, server):
    if caller == "plain":
        # No routes there.
        seen = call(space.pods[caller], echo.ip, PORT, count=10)
        assert len(seen) == 1 and set(seen) <= BOTH
        return
    applied(pinned(echo, server))
    eventually(space.pods[caller], echo.ip, PORT, {f"{server}: hello x"}, count=10)
    assert set(call(space.pods[caller], echo.ip, PORT, count=100)) == {f"{server}: hello x"}
