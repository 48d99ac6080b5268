#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(m) = bertc_fuzz::targets::kernel_text::run(data) {
        panic!("{m}");
    }
});
