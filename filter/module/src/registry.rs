use std::sync::OnceLock;

use meltemi_core::{Codec, CodecEntry};
use meltemi_engine::config::{CodecConfig, ConfigError};

static CODECS: OnceLock<&'static [CodecEntry]> = OnceLock::new();

/// Makes these codecs the ones of this module. Called once, when Envoy loads it; later calls change nothing.
pub fn register(codecs: &'static [CodecEntry]) {
    // A module is loaded once: whoever comes second brings the same list.
    let _ = CODECS.set(codecs);
}

/// Makes the codec that a configuration names.
pub(crate) fn build(config: &CodecConfig) -> Result<Box<dyn Codec>, ConfigError> {
    let codecs = CODECS.get().copied().unwrap_or_default();
    let Some(entry) = codecs.iter().find(|entry| entry.name == config.name) else {
        let known: Vec<&str> = codecs.iter().map(|entry| entry.name).collect();
        return Err(ConfigError(format!(
            "field `codec.name`: this module has no codec `{}`; it has: {}",
            config.name,
            known.join(", ")
        )));
    };
    (entry.build)(&config.options()).map_err(|error| ConfigError(format!("field `codec.options`: {error}")))
}
