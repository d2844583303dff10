//! `adamant init`: a commented recipe to start from.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::{Failure, Kind, Output};
use crate::recipe::starter;

/// Write a commented recipe to start from. It builds as it is.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  adamant init                    # recipe.toml here, named after this folder
  adamant init images/web.toml    # named `web`
  adamant init --name db db.toml")]
pub struct Arguments {
    /// The file to write; it must not exist.
    #[arg(default_value = "recipe.toml", value_name = "FILE")]
    path: PathBuf,
    /// Name of the image. Without it: the file's name, or the folder's if the file is `recipe.toml`.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", .path.display())]
struct InitError {
    path: PathBuf,
    source: io::Error,
}

/// Writes it.
pub fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let name = arguments.name.clone().unwrap_or_else(|| name_for(&arguments.path));
    let text = starter(&name)?;
    write_new(&arguments.path, &text).map_err(|source| {
        let exists = source.kind() == io::ErrorKind::AlreadyExists;
        let failure = Failure::new(Kind::Environment, InitError { path: arguments.path.clone(), source });
        if exists { failure.hint("choose another file: `adamant init FILE`; nothing was overwritten") } else { failure }
    })?;
    let path = arguments.path.display().to_string();
    output.talk(&format!("wrote {path}; build the image with `adamant build {}`", shell_word(&path)));
    if output.json() {
        output.result("", || json!({ "schema": "adamant.init/1", "path": path, "name": name }))?;
    }
    Ok(())
}

/// As one would type it.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:,@%".contains(c);
    if text.chars().all(plain) { text.into() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}

/// A name made from that of the file or folder: what cannot be in a name becomes `-`.
fn name_for(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let folder = || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = folder.canonicalize().unwrap_or_default();
        folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
    };
    let word = if stem == "recipe" { folder() } else { stem.into_owned() };
    let clean = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' };
    let name: String = word.chars().map(clean).take(63).collect();
    match name.trim_matches(['-', '.']) {
        "" => "server".into(),
        name => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_an_image_after_its_file() {
        assert_eq!(name_for(Path::new("images/My_Web Server.toml")), "my-web-server");
        assert_eq!(name_for(Path::new("/recipe.toml")), "server");
        assert_eq!(name_for(Path::new("---.toml")), "server");
    }
}
