/// Makes a crate of type `cdylib` a plugin of Envoy with these codecs: `export!(&[ENTRY])`, where the argument is a
/// `&'static [CodecEntry]`. Needs feature `module`.
///
/// Built for the machine, it is a dynamic module (`.so`): the network filters `inlet` and `relay`, the listener filter
/// `declare` and the upstream bridge `outlet`. Built for `wasm32-wasip1`, it is a proxy-wasm plugin (`.wasm`): the network
/// filters `inlet`, `outlet` and `relay`.
#[cfg(all(feature = "module", not(target_family = "wasm")))]
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

/// Makes a crate of type `cdylib` a proxy-wasm plugin with these codecs.
#[cfg(all(feature = "module", target_family = "wasm"))]
#[macro_export]
macro_rules! export {
    ($codecs:expr) => {
        #[unsafe(no_mangle)]
        #[doc(hidden)]
        pub extern "C" fn _initialize() {
            static CODECS: &[$crate::CodecEntry] = $codecs;
            $crate::module::initialize(CODECS);
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
