//! Options of what sidecars are told: where our xDS server is, how they know it, and what they tell of calls.

use std::{fs, path::PathBuf};

use anyhow::{Context, bail};
use clap::{ArgAction, Args, ValueEnum};

use crate::{
    compile::Telemetry,
    istio::{Options, Root, ServiceTls, XdsService},
};

/// What sidecars are told.
#[derive(Debug, Args)]
#[group(id = "sidecars", multiple = true)]
pub struct Sidecars {
    /// Sidecars are stock Envoys: leave Istio's own extensions out of what is made for them.
    #[arg(long)]
    stock_envoy: bool,
    /// How sidecars know our xDS server (see --xds-cert).
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Trust::None)]
    xds_service_tls: Trust,
    /// SPIFFE identity, DNS name or address that the xDS server's certificate has. With `ca`, the host of --xds-service
    /// if absent.
    #[arg(long, value_name = "NAME")]
    xds_service_san: Option<String>,
    /// With `ca`: the root certificates (PEM) for the xDS server. Read at the start.
    #[arg(long, value_name = "FILE")]
    xds_service_ca: Option<PathBuf>,
    /// Ports named tcp-metaprotocol-*: count calls by Istio's own filters, as on HTTP ports. Never with --stock-envoy.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    telemetry: bool,
    /// Ports named tcp-metaprotocol-*: file that gets a line for each call, such as /dev/stdout, unless the Service has
    /// the annotation meltemi.dev/access-log.
    #[arg(long, value_name = "FILE")]
    access_log: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Trust {
    /// They speak plain text.
    None,
    /// Its certificate is of the mesh, with the identity of --xds-service-san.
    Istio,
    /// Its certificate is of the CA of --xds-service-ca.
    Ca,
}

impl Sidecars {
    /// Sidecars speak TLS with us.
    pub fn tls(&self) -> bool {
        self.xds_service_tls != Trust::None
    }

    /// Something is said that is for sidecars alone.
    pub fn given(&self) -> bool {
        self.stock_envoy
            || !self.telemetry
            || self.tls()
            || self.xds_service_san.is_some()
            || self.xds_service_ca.is_some()
            || self.access_log.is_some()
    }

    pub fn options(&self, xds: Option<(String, u16)>) -> anyhow::Result<Options> {
        let san = self.xds_service_san.clone();
        if self.xds_service_ca.is_some() && self.xds_service_tls != Trust::Ca {
            bail!("--xds-service-ca is for --xds-service-tls ca");
        }
        let telemetry = Telemetry {
            istio: self.telemetry && !self.stock_envoy,
            access_log: self.access_log.clone().filter(|path| !path.is_empty()),
        };
        let Some((host, port)) = xds else {
            if self.tls() {
                bail!("--xds-service-tls needs --xds-service");
            }
            return Ok(Options { stock_envoy: self.stock_envoy, telemetry, ..Options::default() });
        };
        let tls = match (self.xds_service_tls, &self.xds_service_ca) {
            (Trust::None, _) => None,
            (Trust::Istio, _) => {
                let san = san.context("--xds-service-tls istio needs --xds-service-san spiffe://<trust domain>/ns/<namespace>/sa/<account>")?;
                Some(ServiceTls { root: Root::Mesh, san })
            }
            (Trust::Ca, None) => bail!("--xds-service-tls ca needs --xds-service-ca"),
            (Trust::Ca, Some(file)) => {
                let pem = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
                Some(ServiceTls { root: Root::Pem(pem), san: san.unwrap_or_else(|| host.clone()) })
            }
        };
        let xds = Some(XdsService { host, port, tls });
        Ok(Options { stock_envoy: self.stock_envoy, xds, telemetry, ..Options::default() })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        sidecars: Sidecars,
    }

    fn options(words: &str) -> Result<Options, String> {
        let line = Line::try_parse_from(["meltemi"].into_iter().chain(words.split_whitespace()));
        let xds = Some(("xds.test".to_owned(), 18000));
        line.map_err(|error| error.to_string())?.sidecars.options(xds).map_err(|error| error.to_string())
    }

    #[test]
    fn telemetry_is_for_istios_own_proxies() {
        let istio = |words| options(words).unwrap().telemetry.istio;
        assert!(istio(""));
        assert!(!istio("--stock-envoy") && !istio("--telemetry false"));
        assert_eq!(options("--access-log=").unwrap().telemetry.access_log, None);
        assert_eq!(options("--access-log /dev/stdout").unwrap().telemetry.access_log.as_deref(), Some("/dev/stdout"));
    }

    #[test]
    fn what_is_for_sidecars_alone_is_noticed() {
        let given = |words: &str| {
            Line::try_parse_from(["meltemi"].into_iter().chain(words.split_whitespace())).unwrap().sidecars.given()
        };
        assert!(!given(""));
        for words in
            ["--stock-envoy", "--telemetry false", "--xds-service-tls ca", "--xds-service-san a", "--access-log f"]
        {
            assert!(given(words), "{words}");
        }
    }

    #[test]
    fn what_belongs_together() {
        assert_eq!(options("").unwrap().xds.unwrap().tls, None);
        for (words, missing) in [
            ("--xds-service-tls istio", "--xds-service-san"),
            ("--xds-service-tls ca", "--xds-service-ca"),
            ("--xds-service-ca x.pem", "--xds-service-tls ca"),
            ("--xds-service-tls ca --xds-service-ca /there/is/none.pem", "none.pem"),
        ] {
            let error = options(words).unwrap_err();
            assert!(error.contains(missing), "{words}: {error}");
        }
        let mesh = options("--xds-service-tls istio --xds-service-san spiffe://a/b").unwrap().xds.unwrap();
        assert_eq!(mesh.tls, Some(ServiceTls { root: Root::Mesh, san: "spiffe://a/b".to_owned() }));
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "PEM").unwrap();
        let other = options(&format!("--xds-service-tls ca --xds-service-ca {}", file.path().display())).unwrap();
        let tls = ServiceTls { root: Root::Pem("PEM".to_owned()), san: "xds.test".to_owned() };
        assert_eq!(other.xds.unwrap().tls, Some(tls));
    }
}
