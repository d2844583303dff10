//! A persistent machine: makes `/var` on its first boot, takes the identity it is given, keeps both, and grows.

use adamant::vm::{Check, Credential, Disk, Machine, Probe};

use crate::a_volatile_machine_boots_verified_and_forgets::support_login;
use crate::support::{self, HOST_KEY, HOST_KEY_PUBLIC, SOON, USER_KEY_PUBLIC};

const MACHINE_ID: &str = "0123456789abcdef0123456789abcdef";
const MIB: u64 = 1 << 20;

#[test]
fn a_persistent_machine_remembers() {
    let Some(built) = support::built("persistent") else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.qcow2");
    let size = built.manifest.disk.size + 512 * MIB;
    let machine = Machine { disk: Disk::Overlay { path: path.clone(), size }, ..Machine::new(built.image()) };
    let ssh = Check { name: "ssh".into(), probe: Probe::Unit("ssh.service".into()), timeout: SOON };

    let credentials = vec![
        Credential::new("system.machine_id", MACHINE_ID),
        Credential::new("adamant.ssh-host-key", HOST_KEY),
        Credential::new("ssh.authorized_keys.root", USER_KEY_PUBLIC),
        Credential::new("passwd.hashed-password.root", "$6$salt$hash"),
    ];
    let mut first = support::start(Machine { credentials, ..machine.clone() }).ready();
    assert_eq!(first.says("systemctl is-system-running --wait"), "running\n");
    assert_eq!(first.says("cat /etc/machine-id"), format!("{MACHINE_ID}\n"));
    assert_eq!(ssh.run(&mut first.guest, &[]).unwrap().verdict, Ok(()));
    assert_eq!(first.says(&support_login("echo in as '$(id -un)'")), "in as root\n");
    let key = first.says("cut -d ' ' -f 1,2 /var/lib/adamant/ssh/ssh_host_ed25519_key.pub");
    assert!(HOST_KEY_PUBLIC.starts_with(key.trim_end()), "{key}");
    assert_eq!(first.says("grep -o '^root:[^:]*' /etc/shadow"), "root:$6$salt$hash\n");
    assert_eq!(first.says("touch /var/lib/dpkg/x 2> /dev/null || echo refused"), "refused\n");
    let before: u64 = first.says("df --output=size -B 1048576 /var | tail -n 1").trim().parse().unwrap();
    assert!((400..=512).contains(&before), "{before} MiB");
    first.says("for place in /etc /var /root /home /srv; do echo kept > $place/mark; done");
    first.off();

    let mut command = support::tools().program("usr/bin/qemu-img").unwrap();
    command.args(["resize", "-q"]).arg(&path).arg((size + 512 * MIB).to_string());
    assert!(command.status().unwrap().success());

    let mut second = support::start(machine).ready();
    assert_eq!(second.says("systemctl is-system-running --wait"), "running\n");
    assert_eq!(second.says("cat /etc/machine-id"), format!("{MACHINE_ID}\n"));
    assert_eq!(second.says("cut -d ' ' -f 1,2 /var/lib/adamant/ssh/ssh_host_ed25519_key.pub"), key);
    assert_eq!(second.says("cat /var/mark /root/mark /home/mark /srv/mark"), "kept\nkept\nkept\nkept\n");
    assert_eq!(second.says("test -e /etc/mark || echo gone"), "gone\n");
    assert_eq!(second.says("journalctl --list-boots --no-pager | tail -n +2 | wc -l"), "2\n");
    assert_eq!(second.says("stat -c %s /var/lib/systemd/random-seed"), "32\n");
    let after: u64 = second.says("df --output=size -B 1048576 /var | tail -n 1").trim().parse().unwrap();
    assert!(after > before + 400, "{before} MiB, then {after} MiB");
    // Passwords and keys of accounts are given anew at each boot, or are none.
    assert_eq!(second.says("grep -c '^root:[!*]' /etc/shadow"), "1\n");
    assert_eq!(ssh.run(&mut second.guest, &[]).unwrap().verdict, Ok(()));
    assert_eq!(second.guest.run(&support_login("true"), SOON).unwrap().status, 255);
    second.off();
}
