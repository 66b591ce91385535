"""Istio's `Telemetry` objects on the calls of a native port: access logs of one's own, and traces that go through frames."""

import contextlib
import http.server
import json
import threading

import pytest

from calls import call, eventually
from clients import client
from bed import PROVIDERS
from echo import two_versions
from harness import free_port, wait_until
from objects import authorization, telemetry

PORT, HEADERS = 9091, 9092
DENIED = {"6: RBAC: access denied"}
# What Zipkin's tracers put into requests.
CONTEXT = ["x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-request-id"]
TRACED = {"apiVersion": "meltemi.dev/v1alpha1", "kind": "ApplicationProtocol", "metadata": {"name": "traced-thrift"},
          "spec": {"protocol": "traced-thrift", "codec": "thrift", "passHeaders": CONTEXT}}


@pytest.fixture(scope="module")
def echo(controller, space):
    """Service `echo`: Thrift whose frames have headers, on one port with those of tracers, on another without."""
    space.bed.kube.apply(TRACED)
    ports = [{"name": name, "port": port, "appProtocol": f"meltemi.dev/{protocol}"}
             for name, port, protocol in (("plain", PORT, "thrift"), ("traced", HEADERS, "traced-thrift"))]
    service = two_versions(space, HEADERS, ports, "header")
    for version in ("v1", "v2"):
        space.pods[version].thrift_server(PORT, transport="header")
    yield service
    space.bed.kube.delete(TRACED)


class Collector:
    """Takes spans as Zipkin does."""

    def __init__(self, address: str):
        self.spans = spans = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                # Envoy sends chunks.
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                spans.extend(json.loads(body))
                self.send_response(202)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass
        self.server = http.server.ThreadingHTTPServer((address, free_port()), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def of(self, kind: str, method: str) -> list[dict]:
        return [span for span in self.spans if span.get("kind") == kind and span["tags"].get("http.url", "").endswith(f"/{method}")]


@contextlib.contextmanager
def collecting(bed):
    """The provider `zipkin` of the mesh's configuration, on this machine itself."""
    collector = Collector(bed.host)
    name, namespace, number = PROVIDERS["zipkin"]
    port = collector.server.server_port
    metadata = {"name": name, "namespace": namespace}
    items = [{"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"name": "http", "port": number, "targetPort": port}]}},
             {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
              "metadata": metadata | {"labels": {"kubernetes.io/service-name": name}},
              "endpoints": [{"addresses": [bed.host], "conditions": {"ready": True}}], "ports": [{"name": "http", "port": port}]}]
    bed.kube.apply(*items)
    try:
        yield collector
    finally:
        bed.kube.delete(*items)
        collector.server.shutdown()


def test_access_logging(space, echo, applied):
    """A provider with a filter in place of the mesh's own log: lines of calls that failed, and of no others."""
    me = space.pods["client"]
    applied(telemetry("calls", accessLogging=[{"providers": [{"name": "refusals"}], "filter": {"expression": "response.code >= 400"}}]),
            authorization("no-slow", "DENY", {"app": "echo"}, {"to": [{"operation": {"paths": ["/slow"]}}]}))
    for pod in space.pods.values():
        pod.has("refusals.log")
    eventually(me, echo.ip, HEADERS, DENIED, method="slow", argument=1, transport="header", count=10)
    call(me, echo.ip, HEADERS, transport="header", count=5)
    call(me, echo.ip, HEADERS, method="slow", argument=1, transport="header", count=10)

    def lines(*names: str) -> set[tuple]:
        paths = [space.pods[name].folder / "refusals.log" for name in names]
        text = "".join(path.read_text() for path in paths if path.exists())
        return {(line["call"], line["code"]) for line in map(json.loads, text.splitlines())}
    # Thrift has no word for what the server's sidecar refuses, so that it is a failure of the server to the caller's.
    for names, code in ((("v1", "v2"), 403), (("client",), 500)):
        wait_until(lambda names=names: lines(*names), f"a refused call in the log of {names}")
        assert lines(*names) == {("/slow", code)}


def test_traces_go_through_frames(space, echo, applied):
    """Both sidecars tell of a call, the server's as the child of the caller's: their context is in the frame."""
    me = space.pods["client"]
    with collecting(space.bed) as collector:
        applied(telemetry("traces", tracing=[{"providers": [{"name": "zipkin"}], "randomSamplingPercentage": 100}]))

        def joined(address_port: int) -> bool | None:
            """Whether the last call's spans are of one trace."""
            collector.spans.clear()
            call(me, echo.ip, address_port, transport="header")
            with contextlib.suppress(TimeoutError):
                wait_until(lambda: collector.of("CLIENT", "hello") and collector.of("SERVER", "hello"), "spans of both", 5)
                caller, server = collector.of("CLIENT", "hello")[-1], collector.of("SERVER", "hello")[-1]
                return caller["traceId"] == server["traceId"] and caller["id"] in (server["id"], server.get("parentId"))
        wait_until(lambda: joined(HEADERS), "a trace of both sidecars", 60)
        assert joined(PORT) is False, "nothing of a tracer's without `passHeaders`"


def test_a_callers_trace_goes_on(space, echo, applied):
    """What an application says of the trace that it is in, by headers of its frame."""
    me, trace = space.pods["client"], "463ac35c9f6413ad48485a3953bb6124"
    with collecting(space.bed) as collector:
        applied(telemetry("traces", tracing=[{"providers": [{"name": "zipkin"}], "randomSamplingPercentage": 0}]))
        headers = {"x-b3-traceid": trace, "x-b3-spanid": "a2fb4a1d1a96d312", "x-b3-sampled": "1"}

        def told():
            with me.dialed(client(HEADERS, "header", headers=headers, address=echo.ip)) as demo:
                demo.hello("x")
            return {span["kind"] for span in collector.spans if span["traceId"] == trace} == {"CLIENT", "SERVER"}
        wait_until(told, "spans of the application's trace", 60)
        assert {span["traceId"] for span in collector.spans} == {trace}, "no trace was begun by a proxy"
