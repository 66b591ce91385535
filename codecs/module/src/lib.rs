//! `libmeltemi.so`: every codec of this workspace as one Envoy dynamic module.

meltemi::export!(meltemi_codecs::ALL);
