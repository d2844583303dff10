//! FAT32 volumes: the input is laid over the front of a volume of the smallest size.
#![no_main]

use adamant::filesystem::fat::Volume;
use adamant::tree::{Content, Segments};
use libfuzzer_sys::fuzz_target;

const SIZE: u64 = 33 << 20;

fuzz_target!(|data: Vec<u8>| {
    let mut segments = Segments::new(SIZE);
    if segments.push(0, Content::from_bytes(data)).is_some()
        && let Ok(volume) = Volume::open(segments.into_content())
    {
        let _ = volume.check();
    }
});
