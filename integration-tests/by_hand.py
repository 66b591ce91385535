"""Static Envoy configurations, for what our control plane does not write."""

import json

from harness import FILTER_HOST, WASM

V3 = "type.googleapis.com/envoy.extensions"


def address(port: int) -> dict:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def struct(**value) -> dict:
    return {"@type": "type.googleapis.com/google.protobuf.Struct", "value": {"version": 1} | value}


def ours(name: str, wasm=WASM, host=FILTER_HOST, **config) -> dict:
    """Our network filter `inlet`, `relay` or (in Wasm) `outlet`."""
    if host == "wasm":
        return {"name": name, "typed_config": {"@type": f"{V3}.filters.network.wasm.v3.Wasm", "config": {
            "name": name, "root_id": name, "failure_policy": "FAIL_RELOAD",
            "configuration": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": json.dumps({"version": 1} | config)},
            "vm_config": {"vm_id": "meltemi", "runtime": "envoy.wasm.runtime.v8", "code": {"local": {"filename": str(wasm)}}}}}}
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


def cluster(port: int, codec=None, name="servers", limits=None, wasm=WASM, **more) -> dict:
    """One server, behind our outlet if there is a codec."""
    config = {"codec": {"name": codec}} | ({"limits": limits} if limits else {})
    plain = {"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": {"cluster_name": name, "endpoints": [
        {"lb_endpoints": [{"endpoint": {"address": address(port)}}]}]}}
    if not codec:
        return plain | more
    if FILTER_HOST == "wasm":
        return plain | more | {"hop": config | {"wasm": wasm}}
    return plain | {"upstream_config": {"name": "bridge", "typed_config": {
        "@type": f"{V3}.upstreams.http.dynamic_modules.v3.Config", "dynamic_module_config": {"name": "meltemi"},
        "bridge_name": "outlet", "bridge_config": struct(**config)}}} | more


def hop(cluster: dict) -> tuple[list, list]:
    """The listeners and clusters of a cluster behind an outlet in Wasm."""
    config = cluster.pop("hop", None)
    if not config:
        return [], [cluster]
    name, server = cluster["name"], f"server|{cluster['name']}"
    endpoint = {"address": {"envoy_internal_address": {"server_listener_name": f"hop|{name}"}}}
    http2 = {"@type": f"{V3}.upstreams.http.v3.HttpProtocolOptions",
             "explicit_http_config": {"http2_protocol_options": {"max_concurrent_streams": 1}}}
    raw = {"name": "raw", "typed_config": {"@type": f"{V3}.transport_sockets.raw_buffer.v3.RawBuffer"}}
    front = cluster | {
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2},
        "transport_socket": {"name": "internal", "typed_config": {
            "@type": f"{V3}.transport_sockets.internal_upstream.v3.InternalUpstreamTransport", "transport_socket": raw}}}
    back = {key: cluster[key] for key in ("type", "connect_timeout", "transport_socket") if key in cluster} | {
        "name": server, "load_assignment": cluster["load_assignment"] | {"cluster_name": server}}
    connect = {"upgrade_type": "CONNECT", "connect_config": {}}
    behind = manager(route(server, {"connect_matcher": {}}, upgrade_configs=[connect]),
                     upgrade_configs=[{"upgrade_type": "CONNECT"}], http2_protocol_options={"allow_connect": True})
    internal = {"name": f"hop|{name}", "internal_listener": {}, "filter_chains": [{"filters": [ours("outlet", **config), behind]}]}
    return [internal], [front, back]


def start(world, listeners, clusters, **options):
    """Runs an Envoy with these in `world`."""
    ports = [item["address"]["socket_address"]["port_value"] for item in listeners]
    hops = [hop(cluster) for cluster in clusters]
    internal = {"name": "internal", "typed_config": {"@type": f"{V3}.bootstrap.internal_listener.v3.InternalListener"}}
    world.static_envoy(json.dumps({
        "admin": {"address": address(world.envoy_admin)}, "bootstrap_extensions": [internal],
        "static_resources": {"listeners": listeners + sum((more for more, _ in hops), []),
                             "clusters": sum((more for _, more in hops), [])}}), wait_for=ports, **options)
