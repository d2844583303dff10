//! One bit of the root file system differs: the machine stops rather than hand it out.

use adamant::vm::{Machine, Outcome, VmError};

use crate::support::{self, BOOT};

#[test]
fn a_flipped_byte_in_the_data_is_refused() {
    let Some(built) = support::built("minimal") else { return };
    let (offset, _) = built.partition("root");
    let middle = offset + built.manifest.verity.data_size / 2;
    let (_directory, image) = built.altered(|file, _| support::flip(file, middle));
    let mut running = support::start(Machine::new(image));
    // If nothing reads that block by itself, this does. The unaltered image reads to its end in another scenario.
    let outcome = match running.guest.wait(BOOT).unwrap() {
        Outcome::Ready => match running.guest.run("cat /dev/dm-0 > /dev/null", BOOT) {
            Err(VmError::Lost { outcome }) => outcome,
            other => panic!("the block was handed out: {other:?}"),
        },
        outcome => outcome,
    };
    assert_eq!(outcome, Outcome::Panicked, "{}", running.guest.last_words());
}
