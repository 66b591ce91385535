use anyhow::{Context, bail};
use clap::Args;
use http::Uri;

use crate::compile::{Code, Host};

const IMAGE: &str = "oci://";

/// The filters in Wasm.
#[derive(Debug, Default, Args)]
#[group(id = "plugins", multiple = true)]
pub(super) struct Wasm {
    /// Run the filters in Wasm, for Envoys that may not load the module: file or URL of the `.wasm`, as Envoys find it. In a
    /// mesh: in workloads with the label meltemi.dev/wasm=1 whose proxies are older than Istio 1.31, on ports named
    /// tcp-metaprotocol-*; an image of a registry (oci://registry/name:tag) does as well.
    #[arg(long, value_name = "FILE|URL")]
    wasm: Option<String>,
    /// SHA-256 of what the URL gives, in hexadecimal digits (`sha256sum meltemi.wasm`).
    #[arg(long, value_name = "HEX", requires = "wasm")]
    wasm_sha256: Option<String>,
}

impl Wasm {
    /// What runs the filters of a standalone Envoy.
    pub(super) fn host(&self) -> anyhow::Result<Host> {
        match self.code()? {
            None => Ok(Host::Module),
            Some(Code::Image(image)) => bail!("--wasm {image}: only Istio's agents fetch images; give a file or a URL"),
            Some(code) => Ok(Host::Wasm(code)),
        }
    }

    pub(super) const fn is_given(&self) -> bool {
        self.wasm.is_some()
    }

    /// The code, if any is given.
    pub(super) fn code(&self) -> anyhow::Result<Option<Code>> {
        let Some(place) = self.wasm.clone() else { return Ok(None) };
        if place.is_empty() {
            bail!("--wasm: neither a file nor a URL");
        }
        let image = place.get(..IMAGE.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(IMAGE));
        if image {
            if self.wasm_sha256.is_some() {
                bail!("--wasm {place}: an image has its hash in its name, as in oci://registry/name@sha256:...");
            }
            if let Some((_, digest)) = place.split_once('@')
                && !digest.strip_prefix("sha256:").is_some_and(is_sha256)
            {
                bail!("--wasm {place}: `{digest}` is not sha256: and 64 hexadecimal digits");
            }
            return Ok(Some(Code::Image(place)));
        }
        let lower = place.to_ascii_lowercase();
        let scheme = ["http://", "https://"].into_iter().find(|scheme| lower.starts_with(scheme));
        let code = match (scheme, self.wasm_sha256.clone()) {
            (None, None) => Code::File(place),
            (None, Some(_)) => bail!("--wasm-sha256: only code that is fetched from a URL is compared with it"),
            (Some(_), None) => bail!("--wasm {place}: Envoy takes code from a URL only with its --wasm-sha256"),
            (Some(scheme), Some(sha256)) => remote(place, scheme == "https://", sha256)?,
        };
        Ok(Some(code))
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

fn remote(url: String, tls: bool, sha256: String) -> anyhow::Result<Code> {
    if !is_sha256(&sha256) {
        bail!("--wasm-sha256 {sha256}: not 64 hexadecimal digits");
    }
    let uri: Uri = url.parse().with_context(|| format!("--wasm {url}"))?;
    let host = uri.host().filter(|host| !host.is_empty()).with_context(|| format!("--wasm {url}: no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = match uri.authority().and_then(|authority| authority.as_str().rsplit_once(':')) {
        Some((_, port)) if !port.ends_with(']') => {
            port.parse().with_context(|| format!("--wasm {url}: port `{port}`"))?
        }
        _ if tls => 443,
        _ => 80,
    };
    Ok(Code::Remote { url, host, port, tls, sha256: sha256.to_ascii_lowercase() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(wasm: Option<&str>, sha256: Option<&str>) -> anyhow::Result<Host> {
        Wasm { wasm: wasm.map(str::to_owned), wasm_sha256: sha256.map(str::to_owned) }.host()
    }

    #[test]
    fn a_file_or_a_url_with_its_hash() {
        assert_eq!(host(None, None).unwrap(), Host::Module);
        assert_eq!(host(Some("/a.wasm"), None).unwrap(), Host::Wasm(Code::File("/a.wasm".to_owned())));
        let sum = "AB".repeat(32);
        let Host::Wasm(Code::Remote { host: name, port, tls, sha256, .. }) =
            host(Some("https://[::1]/m.wasm"), Some(&sum)).unwrap()
        else {
            panic!("not remote");
        };
        assert_eq!((name.as_str(), port, tls, sha256), ("::1", 443, true, sum.to_lowercase()));
    }

    #[test]
    fn a_mesh_takes_images() {
        let wasm = |place: &str, sha256: Option<&str>| {
            Wasm { wasm: Some(place.to_owned()), wasm_sha256: sha256.map(str::to_owned) }.code()
        };
        assert_eq!(wasm("oci://a/b:1", None).unwrap(), Some(Code::Image("oci://a/b:1".to_owned())));
        let digest = format!("oci://a/b@sha256:{}", "0".repeat(64));
        assert_eq!(wasm(&digest, None).unwrap(), Some(Code::Image(digest.clone())));
        for wrong in ["oci://a/b@sha256:12", "oci://a/b@md5:12", "oci://a/b@"] {
            assert!(wasm(wrong, None).unwrap_err().to_string().contains("64 hexadecimal"), "{wrong}");
        }
        assert!(wasm("oci://a/b:1", Some(&"0".repeat(64))).unwrap_err().to_string().contains("@sha256:"));
        assert_eq!(Wasm::default().code().unwrap(), None);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let wrong = |wasm, sha256| host(Some(wasm), sha256).unwrap_err().to_string();
        assert!(wrong("http://a/m.wasm", None).contains("--wasm-sha256"));
        assert!(wrong("http://a/m.wasm", Some("12")).contains("64 hexadecimal"));
        assert!(wrong("/m.wasm", Some("12")).contains("only code"));
        assert!(wrong("", None).contains("neither"));
        assert!(wrong("oci://a/b:1", None).contains("only Istio's agents"));
        let sum = "0".repeat(64);
        assert!(wrong("http:///m.wasm", Some(&sum)).starts_with("--wasm http:///m.wasm"));
        assert!(wrong("http://a:99999/m.wasm", Some(&sum)).contains("99999"));
    }
}
