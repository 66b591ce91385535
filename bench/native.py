"""What we are measured against: Envoy's own filters in static listeners."""

V3 = "type.googleapis.com/envoy.extensions"
NETWORK = f"{V3}.filters.network"


def address(port: int) -> dict:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def cluster(name: str, port: int) -> dict:
    # Idle connections are more than Envoy lets through by default.
    breakers = {"thresholds": [{"max_connections": 100_000, "max_requests": 100_000}]}
    return {"name": name, "type": "STATIC", "connect_timeout": "1s", "circuit_breakers": breakers, "load_assignment": {
        "cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}]}}


def listener(name: str, port: int, config: dict, *before: dict) -> dict:
    """`before`: filters that come before it."""
    filters = [*before, {"name": name, "typed_config": config}]
    return {"name": name, "address": address(port), "filter_chains": [{"filters": filters}]}


def tcp_proxy(to: str) -> dict:
    return {"@type": f"{NETWORK}.tcp_proxy.v3.TcpProxy", "stat_prefix": f"tcp-{to}", "cluster": to}


def thrift_proxy(to: str) -> dict:
    return {"@type": f"{NETWORK}.thrift_proxy.v3.ThriftProxy", "stat_prefix": "thrift", "transport": "FRAMED",
            "protocol": "BINARY", "route_config": {"name": "all", "routes": [
                {"match": {"method_name": ""}, "route": {"cluster": to}}]}}


def dubbo_proxy(to: str) -> dict:
    return {"@type": f"{NETWORK}.dubbo_proxy.v3.DubboProxy", "stat_prefix": "dubbo", "protocol_type": "Dubbo",
            "serialization_type": "Hessian2", "route_config": [{"name": "all", "interface": "peer.Demo", "routes": [
                {"match": {"method": {"name": {"exact": "echo"}}}, "route": {"cluster": to}}]}]}


def http(to: str, codec: str, lean=False) -> dict:
    """An HTTP connection manager as Envoy's defaults make it; `lean`: with every saving that ours has."""
    v3 = f"{NETWORK}.http_connection_manager.v3.HttpConnectionManager"
    router = {"@type": f"{V3}.filters.http.router.v3.Router"}
    route = {"cluster": to}
    manager = {"@type": v3, "stat_prefix": f"{codec}-{lean}".lower(), "codec_type": codec}
    if lean:
        router |= {"suppress_envoy_headers": True, "dynamic_stats": False}
        route |= {"timeout": "0s"}
        manager |= {"generate_request_id": False, "skip_xff_append": True, "server_header_transformation": "PASS_THROUGH",
                    "stream_idle_timeout": "0s", "common_http_protocol_options": {"idle_timeout": "0s"}}
    return manager | {
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": route}]}]},
        "http_filters": [{"name": "router", "typed_config": router}]}
