//! The processor architectures that images are built for, and what each is called by the specifications.
//!
//! One row per architecture; whoever needs a name takes it from the row.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::identifier::Uuid;

/// A processor architecture, by Debian's name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// 64-bit x86 (x86-64)
    #[default]
    Amd64,
    /// 64-bit ARM (aarch64)
    Arm64,
}

/// What an architecture is called where.
#[derive(Debug)]
pub struct Row {
    /// Which one.
    pub architecture: Architecture,
    /// Debian's name, also in file names of images.
    pub name: &'static str,
    /// systemd's name for EFI: `linux<efi>.efi.stub`; in capitals `BOOT<EFI>.EFI` (UEFI 2.10, 3.5.1.1).
    pub efi: &'static str,
    /// `Machine` of a PE header.
    pub pe_machine: u16,
    /// Discoverable Partitions Specification: root.
    pub root: Uuid,
    /// Discoverable Partitions Specification: dm-verity hash partition of root.
    pub root_verity: Uuid,
}

/// All architectures.
pub const ROWS: [Row; 2] = [
    Row {
        architecture: Architecture::Amd64,
        name: "amd64",
        efi: "x64",
        pe_machine: 0x8664,
        root: Uuid::from_u128(0x4f68bce3_e8cd_4db1_96e7_fbcaf984b709),
        root_verity: Uuid::from_u128(0x2c7357ed_ebd2_46d9_aec1_23d437ec2bf5),
    },
    Row {
        architecture: Architecture::Arm64,
        name: "arm64",
        efi: "aa64",
        pe_machine: 0xaa64,
        root: Uuid::from_u128(0xb921b045_1df0_41c3_af44_4c6f280d3fae),
        root_verity: Uuid::from_u128(0xdf3300ce_d69f_4c92_978c_9bfb0f38d820),
    },
];

/// A name that no architecture has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no architecture that images are built for: amd64, arm64")]
pub struct UnknownArchitecture(pub String);

impl Architecture {
    /// Its row.
    pub fn row(self) -> &'static Row {
        match self {
            Self::Amd64 => &ROWS[0],
            Self::Arm64 => &ROWS[1],
        }
    }

    /// The path below the root of an EFI system partition that firmware boots when nothing is configured.
    pub fn efi_boot_path(self) -> String {
        format!("EFI/BOOT/BOOT{}.EFI", self.row().efi.to_ascii_uppercase())
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().name)
    }
}

impl FromStr for Architecture {
    type Err = UnknownArchitecture;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let row = ROWS.iter().find(|row| row.name == text);
        row.map(|row| row.architecture).ok_or_else(|| UnknownArchitecture(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_name_and_by_its_architecture() {
        for row in &ROWS {
            assert_eq!(row.name.parse(), Ok(row.architecture));
            assert_eq!(row.architecture.row().name, row.name);
        }
        assert_eq!("i386".parse::<Architecture>(), Err(UnknownArchitecture("i386".into())));
        assert_eq!(Architecture::Arm64.efi_boot_path(), "EFI/BOOT/BOOTAA64.EFI");
    }
}
