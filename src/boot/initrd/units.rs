//! What adamant itself writes into an initrd: units, drop-ins and the few files of `/etc`.

/// Busybox commands that the scripts here and in `boot::state` call; each a symlink, unless a package has the program.
pub const BUSYBOX_APPLETS: &[&str] = &[
    "sh", "awk", "basename", "cat", "chmod", "chown", "cp", "cut", "dmesg", "grep", "head", "ln", "ls", "mkdir", "mv",
    "readlink", "rm", "rmdir", "sed", "sleep", "stat", "sync", "tail", "tar", "tr",
];

/// Wants and requirements that the units of the packages do not have of themselves.
pub const SYMLINKS: &[(&str, &str)] = &[
    ("usr/lib/systemd/system/default.target", "initrd.target"),
    ("usr/lib/systemd/system/ctrl-alt-del.target", "reboot.target"),
    ("usr/lib/systemd/system/initrd-root-fs.target.requires/adamant-state.service", "../adamant-state.service"),
    // Upstream, initrd-parse-etc.service starts it after a look into /sysroot/etc/fstab; here nothing is loaded again.
    ("usr/lib/systemd/system/initrd.target.wants/initrd-cleanup.service", "../initrd-cleanup.service"),
    ("usr/lib/systemd/system/sysinit.target.wants/adamant-entropy.service", "../adamant-entropy.service"),
    ("usr/lib/systemd/system/sysinit.target.wants/systemd-udevd.service", "../systemd-udevd.service"),
    ("usr/lib/systemd/system/sysinit.target.wants/systemd-udev-trigger.service", "../systemd-udev-trigger.service"),
    ("usr/lib/systemd/system/sysinit.target.requires/veritysetup.target", "../veritysetup.target"),
    ("usr/lib/systemd/system/sockets.target.wants/systemd-udevd-control.socket", "../systemd-udevd-control.socket"),
    ("usr/lib/systemd/system/sockets.target.wants/systemd-udevd-kernel.socket", "../systemd-udevd-kernel.socket"),
];

/// Path, mode, text.
pub fn files() -> impl Iterator<Item = (&'static str, u16, &'static str)> {
    [
        ("etc/passwd", 0o644, "root:x:0:0:root:/root:/usr/sbin/nologin\n"),
        ("etc/group", 0o644, GROUP),
        ("etc/systemd/system.conf", 0o644, SYSTEM_CONF),
        ("usr/lib/systemd/system/systemd-veritysetup@root.service.d/initrd.conf", 0o644, VERITY_DROP_IN),
        ("usr/lib/adamant/coldplug", 0o755, COLDPLUG),
        ("usr/lib/systemd/system/adamant-state.service", 0o644, STATE_SERVICE),
        ("usr/lib/systemd/system/adamant-entropy.service", 0o644, ENTROPY_SERVICE),
        ("usr/lib/systemd/system/emergency.target", 0o644, EMERGENCY_TARGET),
        ("usr/lib/systemd/system/adamant-refuse.service", 0o644, REFUSE_SERVICE),
        ("usr/lib/adamant/refuse", 0o755, REFUSE),
        ("usr/lib/udev/rules.d/65-adamant.rules", 0o644, RULES),
        ("usr/lib/systemd/system/systemd-udevd.service.d/initrd.conf", 0o644, UDEVD_DROP_IN),
        ("usr/lib/systemd/system/systemd-udev-trigger.service.d/initrd.conf", 0o644, TRIGGER_DROP_IN),
    ]
    .into_iter()
}

/// The groups that udev's rules name, by Debian's fixed numbers; those without a fixed number are root's until the
/// system's own udev corrects them.
const GROUP: &str = "\
root:x:0:
tty:x:5:
disk:x:6:
lp:x:7:
kmem:x:15:
dialout:x:20:
cdrom:x:24:
tape:x:26:
audio:x:29:
video:x:44:
input:x:0:
kvm:x:0:
render:x:0:
sgx:x:0:
clock:x:0:
";

/// No journal here: systemd's programs speak to the kernel's log themselves. A disk that is not there within 45 seconds will not come.
const SYSTEM_CONF: &str = "\
[Manager]
DefaultEnvironment=SYSTEMD_LOG_TARGET=kmsg
DefaultStandardOutput=null
DefaultDeviceTimeoutSec=45s
";

/// libdevmapper makes `/dev/mapper/root` itself instead of waiting for udev to do so: nothing else here needs to know
/// of the device, and udev's way is three events and two programs longer.
const VERITY_DROP_IN: &str = "\
[Service]
Environment=DM_DISABLE_UDEV=1
";

const STATE_SERVICE: &str = "\
[Unit]
Description=State of the Machine
DefaultDependencies=no
Requires=veritysetup.target
After=veritysetup.target
Before=initrd-root-fs.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/lib/adamant/state
";

/// Without a source of entropy the kernel makes its own as soon as someone waits for it, which takes a second or two
/// of computing. Opening the root file system waits for it: this starts it while udev looks for the disk.
const ENTROPY_SERVICE: &str = "\
[Unit]
Description=Initialise the Random Number Generator
DefaultDependencies=no

[Service]
Type=simple
ExecStart=busybox head -c 1 /dev/random
CPUSchedulingPolicy=idle
";

/// Where systemd goes when something failed. There is no shell: a machine that does not prove its root file system
/// does not serve.
const EMERGENCY_TARGET: &str = "\
[Unit]
Description=Refuse to Boot
DefaultDependencies=no
Requires=adamant-refuse.service
After=adamant-refuse.service
AllowIsolate=yes
";

const REFUSE_SERVICE: &str = "\
[Unit]
Description=Refuse to Boot
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target

[Service]
Type=oneshot
ExecStart=/usr/lib/adamant/refuse
StandardOutput=tty
TTYPath=/dev/console
";

/// Says which units failed, on the console and to whoever listens on the report port; then ends the machine.
const REFUSE: &str = r#"#!/usr/bin/busybox sh
failed=$(systemctl --failed --plain --no-legend | cut -d ' ' -f 1 | tr '\n' ' ')
echo "adamant: the last messages before the failure:"
dmesg | tail -n 25
echo "adamant: this machine refuses to boot; failed: ${failed:-unknown}"
for name in /sys/class/virtio-ports/*/name; do
    [ "$(cat "$name" 2>/dev/null)" = adamant.agent ] || continue
    port=${name%/name}
    echo "refused ${failed:-unknown}" > "/dev/${port##*/}"
done
sleep 3
systemctl --force --force reboot
"#;

/// Nothing here loads a module on the kernel's request (there is no `modprobe`), so what the root file system needs is
/// loaded before any partition is announced.
const RULES: &str = r#"ACTION!="remove", SUBSYSTEM=="block", ENV{DEVTYPE}=="partition", IMPORT{builtin}="kmod load dm_verity erofs overlay"
"#;

/// The initrd runs nothing that the sandbox would keep udev from; setting it up costs more than udev's work.
const UDEVD_DROP_IN: &str = "\
[Service]
CapabilityBoundingSet=~
PrivateMounts=no
ProtectHostname=no
MemoryDenyWriteExecute=no
RestrictAddressFamilies=
RestrictRealtime=no
RestrictSUIDSGID=no
SystemCallFilter=
SystemCallArchitectures=
LockPersonality=no
IPAddressDeny=
WatchdogSec=0
";

const TRIGGER_DROP_IN: &str = "\
[Service]
ExecStart=
ExecStart=/usr/lib/adamant/coldplug
";

/// In place of `udevadm trigger`: only what may lead to a disk, or to what the table of modules has for other reasons.
/// Each event costs a worker's time; a machine has a hundred devices of which five matter here. What a driver finds
/// behind these announces itself.
const COLDPLUG: &str = r#"#!/usr/bin/busybox sh
# Storage first (class 01), then virtio in all its kinds (vendor 1af4), then what tells QEMU of panics (1b36:0011, a "system peripheral").
for device in /sys/bus/pci/devices/*; do
    read -r class < "$device/class"
    read -r vendor < "$device/vendor"
    case $class/$vendor in 0x01* | */0x1af4 | 0x08*/0x1b36) echo add > "$device/uevent" ;; esac
done
# Disks whose drivers are part of the kernel, buses of other hypervisors, and firmware's own devices by their ids:
# VMBUS, MSFT1000 Hyper-V; LNRO0005 virtio-mmio; QEMU0002 fw_cfg; MSFT0101 TPM.
for event in /sys/class/block/*/uevent /sys/bus/virtio/devices/*/uevent /sys/bus/vmbus/devices/*/uevent \
    /sys/bus/xen/devices/*/uevent /sys/bus/scsi/devices/*/uevent \
    /sys/bus/acpi/devices/VMBUS*/uevent /sys/bus/acpi/devices/MSFT*/uevent /sys/bus/acpi/devices/LNRO0005*/uevent \
    /sys/bus/acpi/devices/QEMU*/uevent /sys/devices/system/cpu/cpu0/uevent; do
    [ ! -e "$event" ] || echo add > "$event"
done
"#;
