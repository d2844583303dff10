//! What a virtual machine is made of, and the QEMU command line for it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Credential, Tools, VmError, agent};

/// What runs the guest's code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Acceleration {
    /// KVM if it runs this machine's firmware, else software. `/dev/kvm` may exist, even open, and still not run it.
    #[default]
    Tried,
    /// KVM or nothing.
    Kvm,
    /// QEMU's own translation, on any host.
    Software,
}

/// What becomes of what the guest writes to its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disk {
    /// Gone when the machine ends; the disk is as large as the image.
    Snapshot,
    /// Kept in an overlay file (qcow2), made if it does not exist, with the image below it; the guest sees a disk of
    /// `size` bytes. The image is not written.
    Overlay {
        /// The overlay file.
        path: PathBuf,
        /// In bytes; at least the image's size. Only for an overlay that does not exist yet.
        size: u64,
    },
    /// The image itself is written.
    Direct,
}

/// A TCP port of the host that leads to one of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// On 127.0.0.1.
    pub host: u16,
    /// On the guest's first interface.
    pub guest: u16,
}

/// A virtual machine, not started.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The disk image, raw.
    pub image: PathBuf,
    /// What becomes of writes to it.
    pub disk: Disk,
    /// Main memory.
    pub memory_mib: u32,
    /// Virtual processors where KVM runs it; software runs one.
    pub cpus: u32,
    /// What runs it.
    pub acceleration: Acceleration,
    /// What it is told at boot.
    pub credentials: Vec<Credential>,
    /// Added to the image's kernel command line by the boot stub (not where Secure Boot is on).
    pub command_line: Vec<String>,
    /// Ports of the host.
    pub forwards: Vec<Forward>,
    /// Whether the agent is given to the guest: scripts and checks need it.
    pub agent: bool,
    /// Whether it has a TPM 2.0 (swtpm), with its state in the workspace.
    pub tpm: bool,
}

impl Machine {
    /// A machine that boots `image` and alters nothing: 2 processors, 2 GiB, no credentials.
    pub fn new(image: impl Into<PathBuf>) -> Self {
        Self {
            image: image.into(),
            disk: Disk::Snapshot,
            memory_mib: 2048,
            cpus: 2,
            acceleration: Acceleration::Tried,
            credentials: Vec::new(),
            command_line: vec!["console=ttyS0".into()],
            forwards: Vec::new(),
            agent: false,
            tpm: false,
        }
    }

    /// QEMU's arguments. `workspace` holds its sockets and the firmware's variables; QEMU runs in that directory.
    pub(super) fn arguments(&self, tools: &Tools, kvm: bool) -> Result<Vec<OsString>, VmError> {
        let code = tools.file("usr/share/OVMF/OVMF_CODE_4M.fd")?;
        let mut arguments = Arguments::default();
        let data = tools.file("usr/share/qemu")?;
        arguments.option("-L", data.as_os_str().to_owned());
        arguments.text("-machine", if kvm { "q35,accel=kvm,smm=off" } else { "q35,accel=tcg,smm=off" });
        if kvm {
            arguments.text("-cpu", "host");
        }
        // With several, QEMU 10's translation loses a timer interrupt in about one of 300 boots: the APIC of the second
        // processor has it in service, the processor has halted without it, and Linux waits for ever.
        arguments.text("-smp", &if kvm { self.cpus } else { 1 }.to_string());
        arguments.text("-m", &format!("{}M", self.memory_mib));
        // No devices but the ones named here: each costs the firmware and the kernel time.
        for flag in ["-nodefaults", "-no-user-config", "-no-reboot"] {
            arguments.0.push(flag.into());
        }
        arguments.text("-display", "none");
        arguments.file("-drive", "if=pflash,format=raw,readonly=on,file=", &code, "");
        arguments.text("-drive", &format!("if=pflash,format=raw,file={VARIABLES}"));
        match &self.disk {
            Disk::Snapshot => arguments.file("-drive", "if=none,id=disk,format=raw,snapshot=on,file=", &self.image, ""),
            Disk::Direct => arguments.file("-drive", "if=none,id=disk,format=raw,file=", &self.image, ""),
            Disk::Overlay { path, .. } => arguments.file("-drive", "if=none,id=disk,format=qcow2,file=", path, ""),
        }
        arguments.text("-device", "virtio-blk-pci,drive=disk,bootindex=1");
        arguments.text("-device", "virtio-rng-pci");
        // Says of a panic what the guest's kernel knows: the one report it can still give.
        arguments.text("-device", "pvpanic-pci");
        arguments.text("-chardev", &format!("socket,id=console,path={CONSOLE},logfile={CONSOLE_LOG}"));
        arguments.text("-serial", "chardev:console");
        arguments.text("-chardev", &format!("socket,id=qmp,path={QMP}"));
        arguments.text("-mon", "chardev=qmp,mode=control");
        arguments.text("-device", "virtio-serial-pci");
        arguments.text("-chardev", &format!("socket,id=agent,path={AGENT}"));
        arguments.text("-device", &format!("virtserialport,chardev=agent,name={}", agent::PORT));
        self.network(&mut arguments);
        if self.tpm {
            arguments.text("-chardev", &format!("socket,id=tpm,path={TPM}"));
            arguments.text("-tpmdev", "emulator,id=tpm0,chardev=tpm");
            arguments.text("-device", "tpm-crb,tpmdev=tpm0");
        }
        for value in self.strings() {
            // QEMU splits options at commas; a doubled one stands for itself.
            arguments.text("-smbios", &format!("type=11,value={}", value.replace(',', ",,")));
        }
        Ok(arguments.0)
    }

    fn network(&self, arguments: &mut Arguments) {
        let mut network = String::from("user,id=network");
        for Forward { host, guest } in &self.forwards {
            network.push_str(&format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}"));
        }
        arguments.text("-netdev", &network);
        // No option ROM: nothing is booted from the network.
        arguments.text("-device", "virtio-net-pci,netdev=network,romfile=");
    }

    /// The SMBIOS type 11 strings.
    fn strings(&self) -> Vec<String> {
        let mut strings = Vec::new();
        if !self.command_line.is_empty() {
            strings.push(format!("io.systemd.stub.kernel-cmdline-extra={}", self.command_line.join(" ")));
        }
        let agent = if self.agent { agent::credentials() } else { Vec::new() };
        strings.extend(agent.iter().chain(&self.credentials).map(Credential::smbios));
        strings
    }
}

/// Files in the workspace, by the names that QEMU's arguments use.
pub(super) const VARIABLES: &str = "variables.fd";
pub(super) const CONSOLE: &str = "console";
pub(super) const CONSOLE_LOG: &str = "console.log";
pub(super) const QMP: &str = "qmp";
pub(super) const AGENT: &str = "agent";
pub(super) const TPM: &str = "tpm";

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn option(&mut self, name: &str, value: OsString) {
        self.0.push(name.into());
        self.0.push(value);
    }

    fn text(&mut self, name: &str, value: &str) {
        self.option(name, value.into());
    }

    /// An option with a host path in it, whose commas are doubled as QEMU wants them.
    fn file(&mut self, name: &str, before: &str, path: &Path, after: &str) {
        use std::os::unix::ffi::{OsStrExt, OsStringExt};
        let mut value = before.as_bytes().to_vec();
        for byte in path.as_os_str().as_bytes() {
            value.extend(std::iter::repeat_n(*byte, if *byte == b',' { 2 } else { 1 }));
        }
        value.extend(after.as_bytes());
        self.option(name, OsString::from_vec(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools(directory: &Path) -> Tools {
        for path in ["usr/lib64/ld-linux-x86-64.so.2", "usr/share/OVMF/OVMF_CODE_4M.fd", "usr/share/qemu/x"] {
            std::fs::create_dir_all(directory.join(path).parent().unwrap()).unwrap();
            std::fs::write(directory.join(path), "").unwrap();
        }
        Tools::at(directory).unwrap()
    }

    fn arguments(machine: &Machine) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let arguments = machine.arguments(&tools(directory.path()), false).unwrap();
        arguments.into_iter().map(|argument| argument.into_string().unwrap()).collect()
    }

    #[test]
    fn the_image_is_not_written_unless_asked_for() {
        let line = arguments(&Machine::new("/images/a,b.raw"));
        assert!(line.contains(&"if=none,id=disk,format=raw,snapshot=on,file=/images/a,,b.raw".to_owned()), "{line:?}");
        let overlay = Disk::Overlay { path: "/tmp/o.qcow2".into(), size: 1 };
        let line = arguments(&Machine { disk: overlay, ..Machine::new("/images/a.raw") });
        assert!(!line.iter().any(|argument| argument.contains("a.raw")), "{line:?}");
    }

    #[test]
    fn software_runs_one_processor() {
        let machine = Machine { cpus: 4, ..Machine::new("/i.raw") };
        let count = |kvm| {
            let directory = tempfile::tempdir().unwrap();
            let line = machine.arguments(&tools(directory.path()), kvm).unwrap();
            let at = line.iter().position(|argument| argument == "-smp").unwrap();
            line[at + 1].to_str().unwrap().to_owned()
        };
        assert_eq!((count(true), count(false)), ("4".into(), "1".into()));
    }

    #[test]
    fn credentials_and_command_line_reach_the_guest_by_smbios() {
        let machine = Machine {
            credentials: vec![Credential::new("n", "v")],
            command_line: vec!["a=1,2".into(), "b".into()],
            ..Machine::new("/i.raw")
        };
        let line = arguments(&machine);
        assert!(line.contains(&"type=11,value=io.systemd.stub.kernel-cmdline-extra=a=1,,2 b".to_owned()), "{line:?}");
        assert!(line.contains(&"type=11,value=io.systemd.credential.binary:n=dg==".to_owned()), "{line:?}");
    }

    #[test]
    fn a_port_of_the_guest_is_reached_from_this_host_only() {
        let machine = Machine { forwards: vec![Forward { host: 8080, guest: 80 }], ..Machine::new("/i.raw") };
        let expected = "user,id=network,hostfwd=tcp:127.0.0.1:8080-:80";
        assert!(arguments(&machine).contains(&expected.to_owned()));
    }
}
