#![no_main]

use libfuzzer_sys::fuzz_target;

// The fuzzer's hook ends the process at any panic; those that are caught are no findings.
fuzz_target!(
    init: std::panic::set_hook(Box::new(|_| {})),
    |data: &[u8]| bdh_gpu_fuzz::targets::tokenizer(data)
);
