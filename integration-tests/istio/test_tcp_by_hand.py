"""Shape `tcp`, its EnvoyFilters written by hand: our own HTTP connection manager, with routes from our own xDS server."""

import pytest

import shapes
from calls import call, eventually
from harness import World, free_port, router, rule, service as entry, to, wait_until
from objects import destination_rule

PORT = 9090
BOTH = {"v1: hello x", "v2: hello x"}


@pytest.fixture(scope="module")
def routes(bed, tmp_path_factory, envoy):
    """The control plane over a folder, and before it an Envoy that makes RDS of its ADS."""
    world = World(envoy, tmp_path_factory.mktemp("routes"))
    world.serve()
    world.rds = free_port()
    path = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
    world.static_envoy(f"""
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {world.envoy_admin}}}}}}}
static_resources:
  listeners:
  - address: {{socket_address: {{address: {bed.host}, port_value: {world.rds}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: rds
          codec_type: HTTP2
          stream_idle_timeout: 0s
          http_filters:
          - {{name: router, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{path: /envoy.service.route.v3.RouteDiscoveryService/DeltaRoutes}}
                route: {{cluster: xds, timeout: 0s, prefix_rewrite: {path}DeltaAggregatedResources}}
              - match: {{path: /envoy.service.route.v3.RouteDiscoveryService/StreamRoutes}}
                route: {{cluster: xds, timeout: 0s, prefix_rewrite: {path}StreamAggregatedResources}}
  clusters:
  - name: xds
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: xds
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {world.xds}}}}}}}}}]}}]
""")
    yield world
    world.close()


@pytest.fixture(scope="module")
def echo(bed, space, routes):
    space.start({"client": {}, "plain": {"module": None}, "v1": {"labels": {"app": "echo", "version": "v1"}},
                 "v2": {"labels": {"app": "echo", "version": "v2"}}})
    for version in ("v1", "v2"):
        space.pods[version].thrift_server(PORT)
    service = space.service("echo", {"app": "echo"}, [{"name": "tcp-metaprotocol-thrift", "port": PORT}])
    space.apply(destination_rule("echo", service.host, "v1", "v2"))
    routes.published(lambda: routes.write("service", entry(service.host, PORT, {1: "v1", 2: "v2"}), rule(service.host, "v1", "v2")))
    routes.published(lambda: routes.write("routes", router(service.host, {"route": [to(service.host)]})))
    space.apply(shapes.envoy_filter("xds", [shapes.xds_cluster(bed.host, routes.rds)]),
                shapes.tcp_client(service, PORT), shapes.tcp_server(service, PORT, app="echo"))
    for name in ("client", "v1", "v2"):
        space.pods[name].has(f"meltemi.{service.host}.{PORT}")
    eventually(space.pods["client"], service.ip, PORT, BOTH, count=20)
    return service


def test_routes_of_a_meta_router(space, echo, routes):
    me = space.pods["client"]
    routes.published(lambda: routes.write("routes", router(
        echo.host, {"name": "pinned", "match": {"attributes": {"method": {"exact": "slow"}}}, "route": [to(echo.host, "v2")]},
        {"name": "rest", "route": [to(echo.host, "v1", 20), to(echo.host, "v2", 80)]})))
    eventually(me, echo.ip, PORT, {"v2: slept 1"}, method="slow", argument=1, count=30)
    seen = call(me, echo.ip, PORT, count=400)
    assert set(seen) == BOTH and 0.70 < seen["v2: hello x"] / 400 < 0.90, seen
    for name in ("client", "v2"):
        line = wait_until(lambda name=name: [line for line in space.pods[name].access_log() if line["path"] == "/slow"], "access log")[-1]
        assert (line["method"], line["response_code"]) == ("POST", 200)
    assert {name: pod.rejected() for name, pod in space.pods.items() if pod.rejected()} == {}


def test_pods_without_the_module(space, echo):
    assert len(call(space.pods["plain"], echo.ip, PORT, count=20)) == 1


def test_routes_stay_when_the_control_plane_is_gone(space, echo, routes):
    routes.stop("serve")
    me = space.pods["client"]
    for _ in range(20):
        assert set(call(me, echo.ip, PORT, method="slow", argument=1, count=10)) == {"v2: slept 1"}
    routes.serve()
    routes.published(lambda: routes.write("routes", router(echo.host, {"route": [to(echo.host, "v1")]})))
    eventually(me, echo.ip, PORT, {"v1: hello x"}, count=20, seconds=60)


def test_a_new_sidecar_without_the_control_plane_says_so(space, echo, routes):
    routes.stop("serve")
    late = space.pod("late")
    assert set(call(late, echo.ip, PORT)) == {"1: meltemi: no route matches this request"}
    routes.serve()
    # Envoy tries again after up to 30 s.
    eventually(late, echo.ip, PORT, {"v1: hello x"}, seconds=60)
