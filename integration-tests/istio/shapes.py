"""The EnvoyFilters of both shapes, written by hand: what the control plane should come to."""

TYPES = "type.googleapis.com/envoy.extensions.filters"
STRUCT = "type.googleapis.com/google.protobuf.Struct"
HCM = "envoy.filters.network.http_connection_manager"
TCP_PROXY = "envoy.filters.network.tcp_proxy"
MODULE = {"name": "meltemi", "do_not_close": True}


def struct(value: dict) -> dict:
    return {"@type": STRUCT, "value": {"version": 1} | value}


def codec(name: str) -> dict:
    return {"codec": {"name": name}}


def envoy_filter(name: str, patches: list[dict], **labels) -> dict:
    """Only for workloads that carry the module, and, if given, these labels."""
    return {"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter", "metadata": {"name": name},
            "spec": {"workloadSelector": {"labels": {"meltemi.dev/module": "1"} | labels}, "configPatches": patches}}


def discovered(name: str, kind: str) -> dict:
    """A filter that comes by ECDS: one whose module does not load costs its own connections and not the listener."""
    return {"name": name, "config_discovery": {
        "config_source": {"ads": {}, "initial_fetch_timeout": "2s", "resource_api_version": "V3"}, "type_urls": [f"{TYPES}.{kind}"]}}


def extension(name: str, typed_config: dict) -> dict:
    """What ECDS serves."""
    return {"applyTo": "EXTENSION_CONFIG", "match": {"context": "ANY"},
            "patch": {"operation": "ADD", "value": {"name": name, "typed_config": typed_config}}}


def declare(context: str, listener: str, operation: str, name: str, config: dict) -> list[dict]:
    kind = "listener.dynamic_modules.v3.DynamicModuleListenerFilter"
    return [{"applyTo": "LISTENER_FILTER", "match": {"context": context, "listener": {"name": listener}},
             "patch": {"operation": operation, "value": discovered(name, kind)}},
            extension(name, {"@type": f"{TYPES}.{kind}", "dynamic_module_config": MODULE, "filter_name": "declare",
                             "filter_config": struct(config)})]


def before(context: str, listener: dict, neighbour: str, name: str) -> dict:
    """Puts an inlet before another network filter."""
    return {"applyTo": "NETWORK_FILTER", "match": {"context": context, "listener": chain(listener, neighbour)},
            "patch": {"operation": "INSERT_BEFORE", "value": discovered(name, "network.dynamic_modules.v3.DynamicModuleNetworkFilter")}}


def chain(listener: dict, filter_name: str) -> dict:
    rest = dict(listener)
    inner = {"filter": {"name": filter_name}} | rest.pop("filterChain", {})
    return rest | {"filterChain": inner}


def inlet(name: str, codec_name: str, **config) -> dict:
    return extension(name, {"@type": f"{TYPES}.network.dynamic_modules.v3.DynamicModuleNetworkFilter", "dynamic_module_config": MODULE,
                            "filter_name": "inlet", "filter_config": struct(codec(codec_name) | config)})


def bridge(context: str, cluster: dict, codec_name: str) -> dict:
    return {"applyTo": "CLUSTER", "match": {"context": context, "cluster": cluster},
            "patch": {"operation": "MERGE", "value": {"upstream_config": {
                "name": "envoy.upstreams.http.dynamic_modules",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.upstreams.http.dynamic_modules.v3.Config",
                                 "dynamic_module_config": MODULE, "bridge_name": "outlet",
                                 "bridge_config": struct(codec(codec_name))}}}}}


def native_client(service, port: int, codec_name="thrift", listener: str | None = None) -> dict:
    """Outbound: an auto port's own listener."""
    listener = {"name": listener or f"{service.ip}_{port}"}
    name = f"meltemi.out.{service.host}.{port}"
    context = "SIDECAR_OUTBOUND"
    return envoy_filter(f"{service.name}-{port}-out", [
        *declare(context, listener["name"], "INSERT_FIRST", f"{name}.declare", {"application_protocols": ["h2c"]}),
        before(context, listener, HCM, name),
        inlet(name, codec_name, authority=f"{service.host}:{port}"),
        bridge(context, {"service": service.host, "portNumber": port}, codec_name)])


def native_server(service, port: int, codec_name="thrift", **labels) -> dict:
    """Inbound, by the target port."""
    name = f"meltemi.in.{service.host}.{port}"
    context, listener = "SIDECAR_INBOUND", {"name": "virtualInbound", "filterChain": {"destinationPort": port}}
    return envoy_filter(f"{service.name}-{port}-in", [
        *declare(context, "virtualInbound", "ADD", f"{name}.declare",
                 {"application_protocols": ["istio-http/1.1", "h2c"], "destinations": [{"port": port}]}),
        before(context, listener, HCM, name),
        inlet(name, codec_name, authority=f"{service.host}:{port}"),
        bridge(context, {"portNumber": port}, codec_name)], **labels)


ROUTER = {"name": "envoy.filters.http.router", "typed_config": {
    "@type": f"{TYPES}.http.router.v3.Router", "suppress_envoy_headers": True, "dynamic_stats": False}}
FAULT = {"name": "envoy.filters.http.fault", "typed_config": {"@type": f"{TYPES}.http.fault.v3.HTTPFault"}}
XDS = "meltemi-xds"


def manager(host: str, port: int, routes: dict, access_log: str) -> dict:
    """Our own HTTP connection manager."""
    every = {"status_code_filter": {"comparison": {"op": "GE", "value": {"default_value": 100, "runtime_key": "meltemi.local_reply"}}}}
    told = [{"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
            for key, value in (("x-meltemi-details", "%RESPONSE_CODE_DETAILS%"), ("x-meltemi-flags", "%RESPONSE_FLAGS%"))]
    log = {"name": "envoy.access_loggers.file", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": access_log,
        "log_format": {"json_format": {"method": "%REQ(:METHOD)%", "path": "%REQ(:PATH)%", "response_code": "%RESPONSE_CODE%",
                                       "authority": "%REQ(:AUTHORITY)%", "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%"}}}}
    return {"@type": f"{TYPES}.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": f"meltemi.{host}.{port}",
            "codec_type": "HTTP2", "http2_protocol_options": {"max_concurrent_streams": 0x7fffffff}, **routes,
            "common_http_protocol_options": {"idle_timeout": "0s", "max_headers_count": 200}, "max_request_headers_kb": 96,
            "stream_idle_timeout": "0s", "generate_request_id": False, "skip_xff_append": True,
            "server_header_transformation": "PASS_THROUGH", "normalize_path": False,
            "path_with_escaped_slashes_action": "KEEP_UNCHANGED", "access_log": [log],
            "local_reply_config": {"mappers": [{"filter": every, "headers_to_add": told}]}, "http_filters": [FAULT, ROUTER]}


def by_rds(host: str, port: int) -> dict:
    """Routes from our control plane."""
    source = {"resource_api_version": "V3", "initial_fetch_timeout": "5s", "api_config_source": {
        "api_type": "DELTA_GRPC", "transport_api_version": "V3", "grpc_services": [{"envoy_grpc": {"cluster_name": XDS}}]}}
    return {"rds": {"config_source": source, "route_config_name": f"{host}:{port}"}}


def to_cluster(name: str) -> dict:
    """One route, to a cluster."""
    return {"route_config": {"name": name, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
        {"match": {"prefix": "/"}, "route": {"cluster": name, "timeout": "0s"}}]}]}}


def instead(context: str, listener: dict, typed_config: dict) -> dict:
    """Puts our HTTP connection manager in the place of tcp_proxy."""
    return {"applyTo": "NETWORK_FILTER", "match": {"context": context, "listener": chain(listener, TCP_PROXY)},
            "patch": {"operation": "REPLACE", "value": {"name": HCM, "typed_config": typed_config}}}


def xds_cluster(address: str, port: int) -> dict:
    return {"applyTo": "CLUSTER", "match": {"context": "SIDECAR_OUTBOUND"}, "patch": {"operation": "ADD", "value": {
        "name": XDS, "type": "STATIC", "connect_timeout": "1s",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {"connection_keepalive": {"interval": "30s", "timeout": "5s"}}}}},
        "load_assignment": {"cluster_name": XDS, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {
            "socket_address": {"address": address, "port_value": port}}}}]}]}}}}


def tcp_client(service, port: int, codec_name="thrift") -> dict:
    """Outbound: a TCP port's own listener."""
    listener, name, context = {"name": f"{service.ip}_{port}"}, f"meltemi.out.{service.host}.{port}", "SIDECAR_OUTBOUND"
    return envoy_filter(f"{service.name}-{port}-out", [
        before(context, listener, TCP_PROXY, name),
        instead(context, listener, manager(service.host, port, by_rds(service.host, port), "access.log")),
        inlet(name, codec_name, authority=f"{service.host}:{port}"),
        bridge(context, {"service": service.host, "portNumber": port}, codec_name)])


def tcp_server(service, port: int, codec_name="thrift", **labels) -> dict:
    """Inbound, by the target port."""
    name, context = f"meltemi.in.{service.host}.{port}", "SIDECAR_INBOUND"
    listener = {"name": "virtualInbound", "filterChain": {"destinationPort": port}}
    return envoy_filter(f"{service.name}-{port}-in", [
        before(context, listener, TCP_PROXY, name),
        instead(context, listener, manager(service.host, port, to_cluster(f"inbound|{port}||"), "access.log")),
        inlet(name, codec_name, authority=f"{service.host}:{port}"),
        bridge(context, {"portNumber": port}, codec_name)], **labels)
