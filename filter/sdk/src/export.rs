/// Makes a crate of type `cdylib` an Envoy dynamic module with these codecs: `export!(LIST)`, where `LIST` is a
/// `&'static [CodecEntry]`.
///
/// The module has the network filters `inlet` and `relay`, the listener filter `declare` and the upstream bridge `outlet`.
#[macro_export]
macro_rules! export {
    ($codecs:expr) => {
        #[unsafe(no_mangle)]
        #[doc(hidden)]
        pub extern "C" fn envoy_dynamic_module_on_program_init() -> *const ::core::ffi::c_char {
            $crate::module::register($codecs);
            $crate::module::program_init()
        }
    };
}
