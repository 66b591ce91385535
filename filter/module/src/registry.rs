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
    config.build(CODECS.get().copied().unwrap_or_default())
}
