use std::net::SocketAddr;

use clap::Args;
use serde_json::{Value, json};

/// Print a bootstrap with which Envoy gets everything from `meltemi serve`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  meltemi bootstrap --xds 127.0.0.1:18000 --node proxy-1 > envoy.yaml
  ENVOY_DYNAMIC_MODULES_SEARCH_PATH=dist envoy -c envoy.yaml")]
pub struct Bootstrap {
    /// Address of the control plane.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:18000")]
    xds: SocketAddr,
    /// Name of this Envoy.
    #[arg(long, value_name = "ID")]
    node: String,
    /// Cluster of this Envoy.
    #[arg(long, value_name = "NAME", default_value = "meltemi")]
    cluster: String,
    /// Address of Envoy's own admin endpoint; none if absent.
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Ask for what changed only.
    #[arg(long)]
    delta: bool,
}

impl Bootstrap {
    pub fn run(self) -> anyhow::Result<u8> {
        print!("{}", serde_yaml_ng::to_string(&self.document())?);
        Ok(0)
    }

    fn document(&self) -> Value {
        let ads = json!({"ads": {}, "resource_api_version": "V3"});
        let mut document = json!({
            "node": {"id": self.node, "cluster": self.cluster},
            "dynamic_resources": {
                "ads_config": {
                    "api_type": if self.delta { "DELTA_GRPC" } else { "GRPC" },
                    "transport_api_version": "V3",
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "meltemi_xds"}}],
                },
                "cds_config": ads,
                "lds_config": ads,
            },
            "static_resources": {"clusters": [{
                "name": "meltemi_xds",
                "type": "STATIC",
                "connect_timeout": "1s",
                "load_assignment": {"cluster_name": "meltemi_xds", "endpoints": [{"lb_endpoints": [
                    {"endpoint": {"address": socket(self.xds)}},
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
        if let (Some(admin), Some(fields)) = (self.admin, document.as_object_mut()) {
            fields.insert("admin".to_owned(), json!({"address": socket(admin)}));
        }
        document
    }
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}
