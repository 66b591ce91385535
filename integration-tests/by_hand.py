"""Static Envoy configurations, for what our control plane does not write."""

import json

V3 = "type.googleapis.com/envoy.extensions"


def address(port: int) -> dict:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def struct(**value) -> dict:
    return {"@type": "type.googleapis.com/google.protobuf.Struct", "value": {"version": 1} | value}


def ours(name: str, **config) -> dict:
    """Our network filter `inlet` or `relay`."""
    return {"name": name, "typed_config": {
        "@type": f"{V3}.filters.network.dynamic_modules.v3.DynamicModuleNetworkFilter",
        "dynamic_module_config": {"name": "meltemi"}, "filter_name": name, "filter_config": struct(**config)}}


def declare(**config) -> dict:
    """Our listener filter."""
    return {"name": "declare", "typed_config": {
        "@type": f"{V3}.filters.listener.dynamic_modules.v3.DynamicModuleListenerFilter",
        "dynamic_module_config": {"name": "meltemi"}, "filter_name": "declare", "filter_config": struct(**config)}}


def manager(*routes, filters=(), **more) -> dict:
    """The HTTP connection manager."""
    return {"name": "manager", "typed_config": {
        "@type": f"{V3}.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "rpc",
        "codec_type": "HTTP2", "stream_idle_timeout": "0s",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": list(routes)}]},
        "http_filters": [*filters, {"name": "router", "typed_config": {"@type": f"{V3}.filters.http.router.v3.Router"}}],
    } | more}


def route(cluster="servers", match=None, **more) -> dict:
    return {"match": match or {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"} | more}


def tcp(cluster="servers") -> dict:
    return {"name": "tcp", "typed_config": {
        "@type": f"{V3}.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "tcp", "cluster": cluster,
        "upstream_connect_mode": "ON_DOWNSTREAM_DATA", "max_early_data_bytes": 1 << 20}}


def listener(port: int, *filters, **more) -> dict:
    return {"name": str(port), "address": address(port), "filter_chains": [{"filters": list(filters)}]} | more


def cluster(port: int, codec=None, name="servers", limits=None, **more) -> dict:
    """One server, behind our bridge if there is a codec."""
    bridge = {"upstream_config": {"name": "bridge", "typed_config": {
        "@type": f"{V3}.upstreams.http.dynamic_modules.v3.Config", "dynamic_module_config": {"name": "meltemi"},
        "bridge_name": "outlet", "bridge_config": struct(codec={"name": codec}, **({"limits": limits} if limits else {}))}}} if codec else {}
    return {"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": {"cluster_name": name, "endpoints": [
        {"lb_endpoints": [{"endpoint": {"address": address(port)}}]}]}} | bridge | more


def start(world, listeners, clusters):
    """Runs an Envoy with these in `world`."""
    ports = [item["address"]["socket_address"]["port_value"] for item in listeners]
    world.static_envoy(json.dumps({
        "admin": {"address": address(world.envoy_admin)},
        "static_resources": {"listeners": listeners, "clusters": clusters}}), wait_for=ports)
