//! What a machine may write, where that goes, and where its identity comes from.
//!
//! The root file system is EROFS on dm-verity: nothing in the image can be written, by anyone, ever. What programs
//! write goes elsewhere (the partitions themselves are set read-only too), by the image's [`State`]. The initrd prepares it ([`initrd`]) before it switches to the root
//! file system; a few files in the image itself ([`apply`]) belong to it.
//!
//! ```text
//!            volatile (default)             persistent
//! /usr, /    the image, read-only           the image, read-only
//! /etc       overlay: image + memory        overlay: image + memory
//! /var       overlay: image + memory        partition `var`, ext4, made on the first boot
//! /var/lib/dpkg   (as /var)                 the image's, read-only: it says what is in this image
//! /root      overlay: image + memory        /var/roothome
//! /home      overlay: image + memory        /var/home
//! /srv       overlay: image + memory        /var/srv
//! /run /tmp  memory                         memory
//! ```
//!
//! # The partition of a persistent machine
//! `systemd-repart` in the initrd makes it in the free space of the disk that carries the root file system, and grows
//! it, with its file system, when the disk has grown. Its type is `var` of the Discoverable Partitions Specification
//! and its UUID is random: it is found by its type on that disk, nowhere else. The partition table shows it only once
//! it holds a file system, so a first boot that is cut off starts again. There must be free space: a disk as large as
//! the image is refused.
//! It is filled from the image's `/var`, on the first boot and whenever the image has changed; what is there already
//! is never overwritten.
//!
//! # Identity
//! The image holds no machine-id (an empty `/etc/machine-id`), no host key, no password. All of it comes at boot:
//!
//! | what | from | kept by a persistent machine in |
//! |---|---|---|
//! | machine-id | credential `system.machine_id`, else SMBIOS UUID, else random | `/var/lib/adamant/machine-id` |
//! | SSH host key (Ed25519) | credential `adamant.ssh-host-key`, else made at boot | `/var/lib/adamant/ssh/ssh_host_ed25519_key` |
//! | names, certificates and databases of services | made at boot, if their package is there ([`IDENTITIES`]) | `/var` |
//! | random seed | the machine itself | `/var/lib/systemd/random-seed` |
//! | password of an account | credential `passwd.hashed-password.NAME` (crypt(3)) | nowhere: given at each boot |
//! | SSH keys of an account | credential `ssh.authorized_keys.NAME` | nowhere: given at each boot |
//! | host name | credential `system.hostname`, else the image's | nowhere: given at each boot |
//!
//! What a persistent machine has kept wins over the credential: an identity is given once. Credentials come by SMBIOS
//! type 11 strings (`io.systemd.credential:NAME=VALUE`, `io.systemd.credential.binary:NAME=BASE64`), by QEMU's fw_cfg or
//! whatever else systemd reads. An account that got neither password nor key cannot log in: its password field in the
//! image is locked.
//!
//! Further homes below `/var/lib/adamant`: `image`, the root hash of the image that `/var` was last filled from.
//!
//! Because `/etc/machine-id` is empty and not missing, systemd does not take any boot for a "first boot": presets are
//! not applied, so that exactly the units are enabled that the recipe enables.
pub mod files;
mod identity;

pub use files::{Entry, apply, initrd};
pub use identity::{IDENTITIES, Identity};

pub use crate::recipe::State;
