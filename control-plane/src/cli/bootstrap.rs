use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use clap::Args;
use serde_json::{Value, json};

use super::out;
use crate::{
    compile::re2,
    first_vm,
    istio::{san_match, upstream_tls},
};

/// Print a bootstrap with which Envoy gets everything from `meltemi serve`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  meltemi bootstrap --xds 127.0.0.1:18000 --node proxy-1 > envoy.yaml
  meltemi bootstrap --xds control-plane.internal:18000 --node proxy-2 > envoy.yaml
  meltemi bootstrap --node proxy-3 --wasm > envoy.yaml
  meltemi bootstrap --xds xds.internal:18000 --node proxy-4 --xds-ca ca.crt --xds-cert me.crt --xds-key me.key > envoy.yaml
  ENVOY_DYNAMIC_MODULES_SEARCH_PATH=dist envoy -c envoy.yaml")]
pub struct Bootstrap {
    /// Address of the control plane: IP or name, and port.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:18000")]
    xds: Target,
    /// Name of this Envoy.
    #[arg(long, value_name = "ID")]
    node: String,
    /// Cluster of this Envoy.
    #[arg(long, value_name = "NAME", default_value = "meltemi")]
    cluster: String,
    /// Address of Envoy's own admin endpoint; none if absent.
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Ask for the whole state of the world again and again, instead of what changed. An Envoy that refuses one route
    /// configuration then takes none of the others that came with it.
    #[arg(long)]
    sotw: bool,
    /// This Envoy runs the filters in Wasm (`meltemi serve --wasm`). Without it, Envoys before 1.39 crash on some processors
    /// if they get their first plugin while they run.
    #[arg(long)]
    wasm: bool,
    #[command(flatten)]
    tls: Tls,
}

/// TLS with the control plane. Envoy reads the files when it starts.
#[derive(Debug, Default, Args)]
struct Tls {
    /// Root certificates (PEM) that sign the control plane's certificate; without it xDS is plain text.
    #[arg(long, value_name = "FILE")]
    xds_ca: Option<String>,
    /// Name, address or SPIFFE identity that its certificate has; the host of --xds if absent.
    #[arg(long, value_name = "NAME", requires = "xds_ca")]
    xds_san: Option<String>,
    /// Certificate of this Envoy (PEM), for a control plane that asks for one.
    #[arg(long, value_name = "FILE", requires_all = ["xds_ca", "xds_key"])]
    xds_cert: Option<String>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", requires = "xds_cert")]
    xds_key: Option<String>,
}

impl Tls {
    /// The transport socket of the control plane's cluster.
    fn socket(&self, host: &str) -> Option<Value> {
        let ca = self.xds_ca.as_ref()?;
        let names = san_match(self.xds_san.as_deref().unwrap_or(host));
        let mut context = json!({
            "alpn_protocols": ["h2"],
            "validation_context": {"trusted_ca": {"filename": ca}, "match_typed_subject_alt_names": names},
        });
        if let (Some(cert), Some(key), Some(fields)) = (&self.xds_cert, &self.xds_key, context.as_object_mut()) {
            let pair = json!({"certificate_chain": {"filename": cert}, "private_key": {"filename": key}});
            fields.insert("tls_certificates".to_owned(), json!([pair]));
        }
        Some(upstream_tls(host, &context))
    }
}

/// Where the control plane is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    host: String,
    port: u16,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { host: address.ip().to_string(), port: address.port() });
        }
        let (host, port) = text.rsplit_once(':').ok_or("write `host:port`")?;
        let port = port.parse().map_err(|_| format!("`{port}` is no port"))?;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if host.is_empty() || !host.bytes().all(is_name) {
            return Err(format!("`{host}` is neither an IP address nor a name"));
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl Bootstrap {
    pub fn run(self) -> anyhow::Result<u8> {
        out::text(quoted(&serde_yaml_ng::to_string(&self.document())?));
        Ok(0)
    }

    fn document(&self) -> Value {
        let ads = json!({"ads": {}, "resource_api_version": "V3"});
        let mut document = json!({
            "node": {"id": self.node, "cluster": self.cluster},
            "dynamic_resources": {
                "ads_config": {
                    "api_type": if self.sotw { "GRPC" } else { "DELTA_GRPC" },
                    "transport_api_version": "V3",
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "meltemi_xds"}}],
                },
                "cds_config": ads,
                "lds_config": ads,
            },
            // In Wasm, outlets stand in internal listeners.
            "bootstrap_extensions": [{
                "name": "envoy.bootstrap.internal_listener",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
                },
            }],
            "layered_runtime": {"layers": [
                // The default of 100 is too small for an alternation of a few names; Istio has this one.
                {"name": "static", "static_layer": {"re2.max_program_size.error_level": re2::MAX_PROGRAM}},
                {"name": "admin", "admin_layer": {}},
            ]},
            "static_resources": {"clusters": [{
                "name": "meltemi_xds",
                "type": if self.xds.host.parse::<IpAddr>().is_ok() { "STATIC" } else { "STRICT_DNS" },
                "dns_lookup_family": "V4_PREFERRED",
                "connect_timeout": "1s",
                "load_assignment": {"cluster_name": "meltemi_xds", "endpoints": [{"lb_endpoints": [
                    {"endpoint": {"address": socket(&self.xds.host, self.xds.port)}},
                ]}]},
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                        "explicit_http_config": {"http2_protocol_options": {
                            // A control plane that is gone without a word is noticed.
                            "connection_keepalive": {"interval": "30s", "timeout": "10s"},
                        }},
                    },
                },
            }]},
        });
        if let Some(socket) = self.tls.socket(&self.xds.host)
            && let Some(cluster) = document.pointer_mut("/static_resources/clusters/0").and_then(Value::as_object_mut)
        {
            cluster.insert("transport_socket".to_owned(), socket);
        }
        if self.wasm
            && let Some(fields) = document.pointer_mut("/static_resources").and_then(Value::as_object_mut)
        {
            fields.insert("listeners".to_owned(), json!([first_vm::listener()]));
        }
        if let (Some(admin), Some(fields)) = (self.admin, document.as_object_mut()) {
            fields.insert("admin".to_owned(), json!({"address": socket(&admin.ip().to_string(), admin.port())}));
        }
        document
    }
}

/// Quotes texts that Envoy's older YAML takes for truth values: a node may be called `n`.
fn quoted(yaml: &str) -> String {
    let is_truth = |text: &str| ["y", "n", "yes", "no", "on", "off"].contains(&text.to_ascii_lowercase().as_str());
    let line = |line: &str| match line.split_once(": ") {
        Some((key, text)) if is_truth(text) => format!("{key}: '{text}'\n"),
        _ => format!("{line}\n"),
    };
    yaml.lines().map(line).collect()
}

fn socket(host: &str, port: u16) -> Value {
    json!({"socket_address": {"address": host, "port_value": port}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(xds: &str, sotw: bool) -> Value {
        let xds = xds.parse().unwrap();
        bootstrap(xds, sotw, Tls::default()).document()
    }

    fn bootstrap(xds: Target, sotw: bool, tls: Tls) -> Bootstrap {
        Bootstrap { xds, node: "n".to_owned(), cluster: "c".to_owned(), admin: None, sotw, wasm: false, tls }
    }

    #[test]
    fn tls_if_there_is_a_root() {
        let socket = |xds: &str, tls| {
            let document = bootstrap(xds.parse().unwrap(), false, tls).document();
            document["static_resources"]["clusters"][0]["transport_socket"]["typed_config"].clone()
        };
        assert_eq!(socket("xds.test:1", Tls::default()), Value::Null);
        let ca = || Tls { xds_ca: Some("ca".to_owned()), ..Tls::default() };
        let name = socket("xds.test:1", ca());
        let names = |config: &Value| {
            let name = &config["common_tls_context"]["validation_context"]["match_typed_subject_alt_names"][0];
            (name["san_type"].clone(), name["matcher"]["exact"].clone())
        };
        assert_eq!((names(&name), &name["sni"]), ((json!("DNS"), json!("xds.test")), &json!("xds.test")));
        let id = socket("127.0.0.1:1", Tls { xds_san: Some("spiffe://a/b".to_owned()), ..ca() });
        assert_eq!((names(&id), &id["sni"]), ((json!("URI"), json!("spiffe://a/b")), &Value::Null));
    }

    #[test]
    fn a_vm_for_plugins() {
        let listeners = |wasm| {
            let bootstrap = Bootstrap { wasm, ..bootstrap("127.0.0.1:1".parse().unwrap(), false, Tls::default()) };
            bootstrap.document()["static_resources"]["listeners"].clone()
        };
        assert_eq!((listeners(false), listeners(true)), (Value::Null, json!([first_vm::listener()])));
    }

    #[test]
    fn the_control_plane_has_an_address_or_a_name() {
        let cluster = |xds| document(xds, false)["static_resources"]["clusters"][0].clone();
        let host = |cluster: &Value| cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"].clone();
        let (ip, six, name) = (cluster("127.0.0.1:1"), cluster("[::1]:2"), cluster("meltemi.mesh:18000"));
        assert_eq!(
            (&ip["type"], &six["type"], &name["type"]),
            (&json!("STATIC"), &json!("STATIC"), &json!("STRICT_DNS"))
        );
        assert_eq!(host(&six)["address"], socket("::1", 2));
        assert_eq!(host(&name)["address"], socket("meltemi.mesh", 18000));
        for bad in ["meltemi", ":1", "a b:1", "meltemi:99999", "::1"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_texts() {
        assert_eq!(quoted("node:\n  id: n\n  cluster: no-one\n"), "node:\n  id: 'n'\n  cluster: no-one\n");
    }

    #[test]
    fn only_what_changed_is_asked_for_by_default() {
        let kind = |sotw| document("127.0.0.1:1", sotw)["dynamic_resources"]["ads_config"]["api_type"].clone();
        assert_eq!((kind(false), kind(true)), (json!("DELTA_GRPC"), json!("GRPC")));
    }

    #[test]
    fn expressions_may_be_as_large_as_check_lets_them() {
        let layer = &document("127.0.0.1:1", false)["layered_runtime"]["layers"][0];
        assert_eq!(layer["static_layer"]["re2.max_program_size.error_level"], json!(re2::MAX_PROGRAM));
    }
}
