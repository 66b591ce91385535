//! `libmeltemi.so` and `meltemi.wasm`: the codecs of this workspace as one plugin of Envoy.

meltemi::export!(meltemi_codecs::ALL);
