//! A Wasm VM that an Envoy has before its workers start, for the sake of the plugins that come later.
//!
//! Where the processor has protection keys (`pku`), V8 guards memory with one, and only threads that start after V8 get at
//! it (<https://issues.chromium.org/issues/360909072>). Envoy starts V8 with its first plugin. Envoys 1.36.4 and 1.37.0 that
//! get that one while they run die of a segmentation fault; 1.39.3 and 1.40.0 do not.

use serde_json::{Value, json};

/// Of the listener, the plugin and its VM.
const NAME: &str = "meltemi-first-vm";

/// The least that Envoy takes for a plugin (see the test), in base64.
const PLUGIN: &str = "AGFzbQEAAAABCQJgAABgAX8BfwMDAgABBQMBAAEHLQMGbWVtb3J5AgAXcHJveHlfYWJpX3ZlcnNpb25fMF8yXzEAAAZtYWxsb2MAAQoJAgIACwQAQQAL";

/// An internal listener with the VM, to which nothing connects. Envoy has it 3 MiB larger.
pub(crate) fn listener() -> Value {
    let plugin = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.wasm.v3.Wasm",
        "config": {"name": NAME, "vm_config": {
            "vm_id": NAME,
            "runtime": "envoy.wasm.runtime.v8",
            "code": {"local": {"inline_bytes": PLUGIN}},
        }},
    });
    let nowhere = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": NAME,
        "cluster": NAME,
    });
    json!({
        "name": NAME,
        "internal_listener": {},
        "filter_chains": [{"filters": [
            {"name": "meltemi.first-vm", "typed_config": plugin},
            {"name": "envoy.filters.network.tcp_proxy", "typed_config": nowhere},
        ]}],
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn the_plugin_is_made_of_this() {
        let source = r#"(module
            (memory (export "memory") 1)
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "malloc") (param i32) (result i32) i32.const 0))"#;
        assert_eq!(json!(ByteString(wat::parse_str(source).unwrap())), json!(PLUGIN));
    }
}
