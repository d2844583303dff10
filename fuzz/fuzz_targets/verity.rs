//! dm-verity: the first half of the input is the hash partition, the second the data.
#![no_main]

use adamant::verity::{RootHash, verify};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: Vec<u8>| {
    let (hash, data) = data.split_at(data.len() / 2);
    let (hash, data) = (hash.to_vec(), data.to_vec());
    let _ = verify(&data, data.len() as u64, &hash, hash.len() as u64, &RootHash::from_bytes([0; 32]));
});
