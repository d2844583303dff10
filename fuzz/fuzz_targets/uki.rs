//! Executables and unified kernel images.
#![no_main]

use adamant::boot::pe::{NewSection, Pe};
use adamant::boot::uki::{Uki, kernel_release};
use adamant::tree::Content;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: Vec<u8>| {
    let content = Content::from_bytes(data);
    let _ = kernel_release(&content);
    let _ = Uki::read(content.clone());
    if let Ok(pe) = Pe::read(content) {
        let _ = pe.check();
        let section = NewSection { name: ".new", content: Content::from_bytes("x") };
        // What was appended to must be readable.
        if let Ok(longer) = pe.append(&[section]) {
            let _ = Pe::read(longer).map(|pe| pe.check());
        }
    }
});
