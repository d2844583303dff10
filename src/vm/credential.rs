//! What a machine is told at boot: systemd credentials, as SMBIOS type 11 strings.
//!
//! Specification: systemd.system-credentials(7), "SMBIOS Type 11 Vendor Strings"; smbios-type-11(7).

use base64::Engine as _;

/// A named value for the machine's first process. It is handed over outside the image and is gone with the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// As systemd.system-credentials(7) or a unit's `ImportCredential=` names it.
    pub name: String,
    /// Any bytes.
    pub value: Vec<u8>,
}

impl Credential {
    /// A credential.
    pub fn new(name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), value: value.into() }
    }

    /// The SMBIOS string.
    pub fn smbios(&self) -> String {
        let value = base64::engine::general_purpose::STANDARD.encode(&self.value);
        format!("io.systemd.credential.binary:{}={value}", self.name)
    }
}

/// Credentials that give a root shell on the first serial port. The unit lives as long as the machine is up.
pub fn shell() -> Vec<Credential> {
    vec![
        Credential::new("systemd.extra-unit.adamant-shell.service", SHELL_UNIT),
        Credential::new("systemd.unit-dropin.multi-user.target~adamant-shell", "[Unit]\nWants=adamant-shell.service\n"),
    ]
}

/// Not agetty with autologin: an image need not have login(1), and root's account is locked.
const SHELL_UNIT: &str = "\
[Unit]
Description=Root Shell on the Console
Conflicts=serial-getty@ttyS0.service
After=serial-getty@ttyS0.service

[Service]
ExecStart=-/bin/sh -c 'cd /root; if command -v bash > /dev/null; then exec bash --login; else exec sh -l; fi'
Type=idle
Restart=always
RestartSec=0
StandardInput=tty-force
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
TTYReset=yes
TTYVHangup=yes
UtmpIdentifier=ttyS0
Environment=HOME=/root USER=root LOGNAME=root SHELL=/bin/bash
KillMode=process
IgnoreSIGPIPE=no
SendSIGHUP=yes
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_become_a_string_that_qemu_does_not_split() {
        let credential = Credential::new("a.b", b"x,y=\0z".to_vec());
        assert_eq!(credential.smbios(), "io.systemd.credential.binary:a.b=eCx5PQB6");
    }
}
