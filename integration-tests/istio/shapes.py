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


def declare(context: str, listener: str, operation: str, config: dict) -> dict:
    return {"applyTo": "LISTENER_FILTER", "match": {"context": context, "listener": {"name": listener}},
            "patch": {"operation": operation, "value": {
                "name": "meltemi.declare",
                "typed_config": {"@type": f"{TYPES}.listener.dynamic_modules.v3.DynamicModuleListenerFilter",
                                 "dynamic_module_config": MODULE, "filter_name": "declare", "filter_config": struct(config)}}}}


def before(context: str, listener: dict, neighbour: str, name: str) -> dict:
    """Puts a network filter that comes by ECDS before another."""
    return {"applyTo": "NETWORK_FILTER",
            "match": {"context": context, "listener": chain(listener, neighbour)},
            "patch": {"operation": "INSERT_BEFORE", "value": {
                "name": name, "config_discovery": {
                    "config_source": {"ads": {}, "initial_fetch_timeout": "2s", "resource_api_version": "V3"},
                    "type_urls": [f"{TYPES}.network.dynamic_modules.v3.DynamicModuleNetworkFilter"]}}}}


def chain(listener: dict, filter_name: str) -> dict:
    rest = dict(listener)
    inner = {"filter": {"name": filter_name}} | rest.pop("filterChain", {})
    return rest | {"filterChain": inner}


def inlet(name: str, codec_name: str, **config) -> dict:
    """The resource that ECDS serves."""
    return {"applyTo": "EXTENSION_CONFIG", "match": {"context": "ANY"}, "patch": {"operation": "ADD", "value": {
        "name": name, "typed_config": {"@type": f"{TYPES}.network.dynamic_modules.v3.DynamicModuleNetworkFilter",
                                       "dynamic_module_config": MODULE, "filter_name": "inlet",
                                       "filter_config": struct(codec(codec_name) | config)}}}}


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
        declare(context, listener["name"], "INSERT_FIRST", {"application_protocols": ["h2c"]}),
        before(context, listener, HCM, name),
        inlet(name, codec_name, authority=f"{service.host}:{port}"),
        bridge(context, {"service": service.host, "portNumber": port}, codec_name)])


def native_server(service, port: int, codec_name="thrift", **labels) -> dict:
    """Inbound, by the target port."""
    name = f"meltemi.in.{service.host}.{port}"
    context, listener = "SIDECAR_INBOUND", {"name": "virtualInbound", "filterChain": {"destinationPort": port}}
    return envoy_filter(f"{service.name}-{port}-in", [
        declare(context, "virtualInbound", "ADD", {"application_protocols": ["istio-http/1.1", "h2c"], "destinations": [{"port": port}]}),
        before(context, listener, HCM, name),
        inlet(name, codec_name, authority=f"{service.host}:{port}"),
        bridge(context, {"portNumber": port}, codec_name)], **labels)
