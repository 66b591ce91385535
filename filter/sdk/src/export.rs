/// Makes a crate of type `cdylib` an Envoy dynamic module with these codecs: `export!(&[ENTRY])`, where the argument is a
/// `&'static [CodecEntry]`. Needs feature `module`.
///
/// The module has the network filters `inlet` and `relay`, the listener filter `declare` and the upstream bridge
/// `outlet`.
#[cfg(feature = "module")]
#[macro_export]
macro_rules! export {
    ($codecs:expr) => {
        #[unsafe(no_mangle)]
        #[doc(hidden)]
        pub extern "C" fn envoy_dynamic_module_on_program_init() -> *const ::core::ffi::c_char {
            static CODECS: &[$crate::CodecEntry] = $codecs;
            $crate::module::register(CODECS);
            $crate::module::program_init()
        }
    };
}

/// Needs feature `module`.
#[cfg(not(feature = "module"))]
#[macro_export]
macro_rules! export {
    ($codecs:expr) => {
        ::core::compile_error!("`meltemi::export!` needs a host: enable feature `module` of crate `meltemi`");
    };
}
