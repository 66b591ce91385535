//! Envoy dynamic-module host.
