#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bdh_gpu_fuzz::targets::requests(data));
