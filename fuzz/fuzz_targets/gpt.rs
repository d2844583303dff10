//! Partition tables.
#![no_main]

use adamant::disk::Table;
use adamant::tree::Content;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: Vec<u8>| {
    let _ = Table::read(&Content::from_bytes(data));
});
