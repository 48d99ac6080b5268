#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(m) = bertc_fuzz::targets::import::run(data) {
        panic!("{m}");
    }
});
