//! `adamant key`: key pairs that sign what machines share.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Failure, Kind, Output};
use crate::sign::{KeyError, SecretKey};

/// Make a key pair that signs what machines share.
///
/// Who builds for a cache signs with the secret key (`build --cache-sign FILE`); who believes it lists the public one
/// (`--cache-key FILE.pub`). The keys are Ed25519, in the files that OpenSSL reads and writes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  adamant key generate ci.pem                                  # ci.pem, to be kept secret, and ci.pem.pub
  adamant build web.toml --cache s3://team/adamant --cache-sign ci.pem
  adamant build web.toml --cache s3://team/adamant --cache-key ci.pem.pub")]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do with keys.
#[derive(Debug, Clone, Subcommand)]
pub enum Action {
    /// Write a new secret key into FILE, which must not exist, and its public key into FILE.pub.
    Generate {
        /// The secret key's file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// Why there is no key pair.
#[derive(Debug, thiserror::Error)]
enum GenerateError {
    /// A file.
    #[error("cannot make {}", .path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// No random bytes.
    #[error("the kernel gives no random bytes ({0})")]
    Random(getrandom::Error),
    /// A text.
    #[error("cannot write a key as text")]
    Text(#[from] KeyError),
}

/// Makes a key pair.
pub fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let Action::Generate { file } = &arguments.action;
    let mut public_name = OsString::from(file);
    public_name.push(".pub");
    let public_file = PathBuf::from(public_name);
    let id = generate(file, &public_file).map_err(|error| Failure::new(Kind::Environment, error))?;
    let text = format!("{}\n{}\n", file.display(), public_file.display());
    output.result(&text, || json!({ "schema": "adamant.key/1", "secret": file, "public": public_file, "id": id }))
}

/// Writes both files; gives the key's short name.
fn generate(file: &Path, public_file: &Path) -> Result<String, GenerateError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(GenerateError::Random)?;
    let key = SecretKey::from_random(bytes);
    write_new(file, 0o600, &key.to_pem()?)?;
    write_new(public_file, 0o644, &key.public().to_pem()?)?;
    Ok(key.public().id().to_string())
}

fn write_new(path: &Path, mode: u32, text: &str) -> Result<(), GenerateError> {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| GenerateError::Write { path: path.to_owned(), source })
}
