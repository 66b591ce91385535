//! Certificates from files, served as secrets: Envoy reads the files and watches them.

use std::path::Path;

use envoy_types::pb::envoy::{
    config::core::v3::{DataSource, TransportSocket, WatchedDirectory, data_source::Specifier},
    extensions::transport_sockets::tls::v3::{
        CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, Secret,
        SubjectAltNameMatcher, TlsCertificate, UpstreamTlsContext,
        common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
        secret,
        subject_alt_name_matcher::SanType,
    },
    r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
};

use super::{
    Output,
    packing::{ads, any, boolean},
    policy::Wrong,
    services::Port,
};
use crate::{
    model::{ClientTls, TlsMode},
    problem::{Origin, Problem},
    snapshot::TypeUrl,
};

const SOCKET: &str = "envoy.transport_sockets.tls";

/// Annotations of a service whose clients speak TLS.
const CERTIFICATE: &str = "meltemi.dev/tls-certificate";
const PRIVATE_KEY: &str = "meltemi.dev/tls-private-key";
/// With this one, clients must show a certificate.
const CLIENT_CA: &str = "meltemi.dev/tls-client-ca";

/// TLS to the endpoints of a cluster; none if the rule wants none.
pub(super) fn upstream(
    tls: &ClientTls,
    alpn: &[&str],
    origin: &Origin,
    output: &mut Output,
    problems: &mut Vec<Problem>,
) -> Result<Option<TransportSocket>, Wrong> {
    let field = "spec.trafficPolicy.tls";
    let wrong = |below: &str, reason: &str| Err((format!("{field}.{below}"), reason.to_owned()));
    match tls.mode {
        TlsMode::Disable => return Ok(None),
        TlsMode::IstioMutual => return wrong("mode", "ISTIO_MUTUAL needs Istio; give files with MUTUAL"),
        TlsMode::Simple | TlsMode::Mutual => {}
    }
    if tls.credential_name.is_some() {
        return wrong("credentialName", "needs Kubernetes; give files");
    }
    let alpn_protocols = alpn.iter().map(|&protocol| protocol.to_owned()).collect();
    let mut context = CommonTlsContext { alpn_protocols, ..CommonTlsContext::default() };
    match (&tls.client_certificate, &tls.private_key) {
        (Some(certificate), Some(key)) => {
            context.tls_certificate_sds_secret_configs = vec![output.certificate(certificate, key)];
        }
        _ if tls.mode == TlsMode::Mutual => {
            return wrong("clientCertificate", "MUTUAL needs clientCertificate and privateKey");
        }
        _ => {}
    }
    match &tls.ca_certificates {
        _ if tls.insecure_skip_verify => {}
        Some(file) => context.validation_context_type = Some(output.authorities(file, &tls.subject_alt_names)),
        None => problems
            .push(origin.warning(format!("{field}.caCertificates"), "missing: servers' certificates are not checked")),
    }
    let context = UpstreamTlsContext {
        common_tls_context: Some(context),
        sni: tls.sni.clone().unwrap_or_default(),
        ..UpstreamTlsContext::default()
    };
    Ok(Some(socket(&context)))
}

/// TLS from the clients of a service, if its annotations say so.
pub(super) fn downstream(port: &Port, output: &mut Output) -> Result<Option<TransportSocket>, Wrong> {
    let annotation = |name: &str| port.annotations.get(name);
    let (certificate, key) = match (annotation(CERTIFICATE), annotation(PRIVATE_KEY)) {
        (Some(certificate), Some(key)) => (certificate, key),
        (None, None) if annotation(CLIENT_CA).is_none() => return Ok(None),
        _ => {
            let reason = format!("{CERTIFICATE} and {PRIVATE_KEY} belong together");
            return Err(("metadata.annotations".to_owned(), reason));
        }
    };
    let mut context = CommonTlsContext {
        tls_certificate_sds_secret_configs: vec![output.certificate(certificate, key)],
        ..CommonTlsContext::default()
    };
    let client_ca = annotation(CLIENT_CA);
    if let Some(file) = client_ca {
        context.validation_context_type = Some(output.authorities(file, &[]));
    }
    Ok(Some(socket(&DownstreamTlsContext {
        common_tls_context: Some(context),
        require_client_certificate: boolean(client_ca.is_some()),
        ..DownstreamTlsContext::default()
    })))
}

fn socket<M: prost::Message + prost::Name>(context: &M) -> TransportSocket {
    TransportSocket {
        name: SOCKET.to_owned(),
        config_type: any(context)
            .map(envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType::TypedConfig),
    }
}

impl Output {
    /// Adds the secret of a certificate, once, and refers to it.
    fn certificate(&mut self, certificate: &str, key: &str) -> SdsSecretConfig {
        let name = format!("file-cert:{certificate}~{key}");
        self.secret(name, || {
            secret::Type::TlsCertificate(TlsCertificate {
                certificate_chain: file(certificate),
                private_key: file(key),
                watched_directory: folder(certificate),
                ..TlsCertificate::default()
            })
        })
    }

    /// Adds the secret of a file of authorities, once, and refers to it.
    fn authorities(&mut self, path: &str, names: &[String]) -> ValidationContextType {
        let config = self.secret(format!("file-root:{path}"), || {
            secret::Type::ValidationContext(CertificateValidationContext {
                trusted_ca: file(path),
                watched_directory: folder(path),
                ..CertificateValidationContext::default()
            })
        });
        let matchers = names.iter().flat_map(|name| {
            [SanType::Dns, SanType::Uri].map(|kind| SubjectAltNameMatcher {
                san_type: kind.into(),
                matcher: Some(StringMatcher {
                    match_pattern: Some(MatchPattern::Exact(name.clone())),
                    ..StringMatcher::default()
                }),
                ..SubjectAltNameMatcher::default()
            })
        });
        let default = CertificateValidationContext {
            match_typed_subject_alt_names: matchers.collect(),
            ..CertificateValidationContext::default()
        };
        #[allow(clippy::needless_update)]
        let combined = CombinedCertificateValidationContext {
            default_validation_context: Some(default),
            validation_context_sds_secret_config: Some(config),
            ..CombinedCertificateValidationContext::default()
        };
        ValidationContextType::CombinedValidationContext(combined)
    }

    fn secret(&mut self, name: String, content: impl FnOnce() -> secret::Type) -> SdsSecretConfig {
        if self.secrets.insert(name.clone()) {
            let secret = Secret { name: name.clone(), r#type: Some(content()) };
            self.add(TypeUrl::Secret, &name, &secret);
        }
        SdsSecretConfig { name, sds_config: ads() }
    }
}

fn file(path: &str) -> Option<DataSource> {
    Some(DataSource { specifier: Some(Specifier::Filename(path.to_owned())), ..DataSource::default() })
}

fn folder(path: &str) -> Option<WatchedDirectory> {
    // The folder of a bare file name is the one Envoy runs in.
    let folder = Path::new(path).parent()?.to_str().map(|folder| if folder.is_empty() { "." } else { folder })?;
    Some(WatchedDirectory { path: folder.to_owned(), ..WatchedDirectory::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_files_are_watched() {
        let watched = |path| folder(path).map(|folder| folder.path);
        assert_eq!(watched("/etc/tls/cert.pem").as_deref(), Some("/etc/tls"));
        assert_eq!(watched("cert.pem").as_deref(), Some("."));
    }
}
