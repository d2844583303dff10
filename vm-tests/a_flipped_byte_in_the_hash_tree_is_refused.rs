//! One bit of the hash tree differs, in its uppermost block, which stands for all others: no boot.

use adamant::vm::{Machine, Outcome};

use crate::support::{self, BOOT};

#[test]
fn a_flipped_byte_in_the_hash_tree_is_refused() {
    let Some(built) = support::built("minimal") else { return };
    let (offset, _) = built.partition("verity");
    // One block of superblock, then the tree from its top.
    let (_directory, image) = built.altered(|file, _| support::flip(file, offset + 4096));
    let mut running = support::start(Machine::new(image));
    let outcome = running.guest.wait(BOOT).unwrap();
    assert!(matches!(outcome, Outcome::Panicked | Outcome::Refused(_)), "{outcome:?}\n{}", running.guest.last_words());
}
