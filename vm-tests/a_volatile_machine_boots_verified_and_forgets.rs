//! A volatile machine: its root file system is verified, nothing of the image can be written, nobody can log in who
//! was not let in at boot, and nothing outlives the machine.

use std::time::Duration;

use adamant::vm::{self, Check, Disk, Machine, Probe};

use crate::support::{self, SOON, USER_KEY};

/// What a machine writes in each place that takes writes.
const WRITE: &str = "set -e
for place in /etc /var /root /home /srv /tmp; do
    test ! -e $place/written-before
    echo x > $place/written-before
done
sync";

/// Everything that must be refused; says what was not.
const TRY_TO_WRITE: &str = r#"
mount -o remount,rw / 2> /dev/null
for place in / /usr /usr/bin /usr/lib/systemd /opt /boot; do
    if touch $place/probe 2> /dev/null; then echo "a file in $place"; fi
done
if echo x 2> /dev/null >> /usr/lib/os-release; then echo "an existing file"; fi
if chmod 777 /usr 2> /dev/null; then echo "a mode"; fi
for device in /dev/dm-0 /dev/vda2 /dev/vda3; do
    if dd if=/dev/zero of=$device bs=4096 count=1 conv=notrunc 2> /dev/null; then echo "the device $device"; fi
done
true"#;

#[test]
fn a_volatile_machine_boots_verified_and_forgets() {
    let Some(built) = support::built("minimal") else { return };
    let directory = tempfile::tempdir().unwrap();
    // Not a snapshot: the second boot sees the disk as the first one left it.
    let disk = Disk::Overlay { path: directory.path().join("disk.qcow2"), size: built.manifest.disk.size };
    let machine = Machine { disk, credentials: vm::shell(), ..Machine::new(built.image()) };

    let mut first = support::start(machine.clone()).ready();
    let settled = first.says("systemctl is-system-running --wait; systemctl list-units --failed --no-legend");
    assert_eq!(settled, "running\n");

    let root = first.says("grep ' / ' /proc/self/mounts; cat /sys/class/block/dm-0/dm/uuid; cat /proc/cmdline");
    let lines: Vec<&str> = root.lines().collect();
    assert!(lines[0].starts_with("/dev/mapper/root / erofs ro,"), "{root}");
    assert!(lines[1].starts_with("CRYPT-VERITY-"), "{root}");
    assert!(lines[2].starts_with(&format!("roothash={} ", built.manifest.verity.root_hash)), "{root}");
    // Every block is as it was built: reading a wrong one would be the machine's end.
    first.says("cat /dev/dm-0 > /dev/null");

    assert_eq!(first.says(TRY_TO_WRITE), "");

    let open = first.says("awk -F: '$2 !~ /^[!*]/ { print $1 }' /etc/shadow");
    assert_eq!(open, "", "accounts with a password that nobody gave");
    let unit = Check { name: "ssh".into(), probe: Probe::Unit("ssh.service".into()), timeout: SOON };
    assert_eq!(unit.run(&mut first.guest, &[]).unwrap().verdict, Ok(()));
    let login = first.guest.run(&support_login("true"), SOON).unwrap();
    assert_eq!(login.status, 255, "a key that was not given lets in");

    let shell = first.says("systemctl is-active adamant-shell.service");
    assert_eq!(shell, "active\n");

    let fails = Check { name: "no".into(), probe: Probe::Command(vec!["false".into()]), timeout: SOON };
    assert_eq!(fails.run(&mut first.guest, &[]).unwrap().verdict, Err("exit status 1\n".into()));
    let short = Duration::from_secs(1);
    let missing = Check { name: "no".into(), probe: Probe::Unit("nothing.service".into()), timeout: short };
    assert!(missing.run(&mut first.guest, &[]).unwrap().verdict.is_err());

    let host_key = "cat /var/lib/adamant/ssh/ssh_host_ed25519_key.pub";
    let key = first.says(host_key);
    first.says(WRITE);
    first.off();

    let mut second = support::start(machine).ready();
    second.says(WRITE);
    assert_eq!(unit.run(&mut second.guest, &[]).unwrap().verdict, Ok(()));
    assert_ne!(second.says(host_key), key, "the host key was in the image");
    second.off();
}

/// Logs in over SSH, from within the machine, with the tests' key.
pub fn support_login(command: &str) -> String {
    format!(
        "umask 077; printf %s '{USER_KEY}' > /tmp/key
ssh -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR \
    -i /tmp/key root@127.0.0.1 {command}"
    )
}
