#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(m) = bertc_fuzz::targets::export::run(data) {
        panic!("{m}");
    }
});
