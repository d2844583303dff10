//! dm-verity, FAT and the partition table, judged by the tools of others.

use std::fs;

use adamant::identifier::Uuid;
use adamant::verity;

use crate::support::oracle::{oracle, run};

/// Bytes without a pattern, the same in each run.
pub fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

#[test]
fn veritysetup_makes_the_same_hash_partition_byte_for_byte() {
    let uuid = "01234567-89ab-cdef-0123-456789abcdef".parse::<Uuid>().unwrap();
    let salt: [u8; 32] = std::array::from_fn(|i| i as u8);
    let salt_text: String = salt.iter().map(|byte| format!("{byte:02x}")).collect();
    for blocks in [1, 2, 127, 128, 129, 5000, 128 * 128, 128 * 128 + 1] {
        let Some(mut veritysetup) = oracle("veritysetup") else { return };
        let directory = tempfile::tempdir().unwrap();
        let (data_path, hash_path) = (directory.path().join("data"), directory.path().join("hash"));
        let data = noise(blocks * 4096, blocks as u64);
        fs::write(&data_path, &data).unwrap();
        let output = run(veritysetup
            .args(["format", "--salt", &salt_text, "--uuid", &uuid.to_string()])
            .args([&data_path, &hash_path]));
        let mut hash = Vec::new();
        let root = verity::format(&data, data.len() as u64, salt, uuid, &mut hash).unwrap();
        assert!(output.contains(&root.to_string()), "{blocks} blocks: {output}, ours {root}");
        let theirs = fs::read(&hash_path).unwrap();
        assert_eq!(hash.len(), theirs.len(), "{blocks} blocks");
        assert!(hash == theirs, "{blocks} blocks");
        fs::write(&hash_path, &hash).unwrap();
        run(oracle("veritysetup").unwrap().arg("verify").args([&data_path, &hash_path]).arg(root.to_string()));
    }
}
