//! Kernel command lines and os-release files.
#![no_main]

use adamant::boot::{command_line, os_release};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = command_line::root_hash(text);
    let _ = command_line::check(text);
    let _ = os_release::get(&os_release::with_image(text, text, "1"), "IMAGE_ID");
});
