//! Reads recipes, and what they name, from the disk: the one file of this module that does.
//!
//! `extends` is relative to the file that says it and may lead anywhere on the disk, for it names a recipe, which
//! the user wrote to be used so; it must not be absolute. What `source` and `key` name must lie in the folder of the
//! file that names it, after all symbolic links are followed: a recipe from elsewhere cannot draw the secrets
//! of the building host into an image.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Diagnostics};
use super::parse::parse;
use super::resolve::{Layer, Overrides, resolve};
use super::resolved::Recipe;
use super::source::{Sources, Span};

/// Recipes in a chain of `extends`: more is a mistake, or cannot be understood by anybody.
const CHAIN_MAX: usize = 8;
/// Bytes in a recipe file. What is bigger is not written by people: it was not meant.
const FILE_MAX: u64 = 4 << 20;

/// Why there is no recipe.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The recipe itself cannot be read.
    #[error("cannot read the recipe {}", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It, or what it extends, is wrong.
    #[error("{0}")]
    Wrong(Diagnostics),
}

/// Reads the recipe at `path` and everything it extends.
pub fn load(path: &Path, overrides: &Overrides) -> Result<Recipe, LoadError> {
    let mut sources = Sources::default();
    let mut layers = Vec::new();
    let mut seen: Vec<PathBuf> = Vec::new();
    let mut next = path.to_owned();
    let mut asked: Option<Span> = None;
    loop {
        let wrong = |title: String, label: &str, sources: &Sources| {
            let found = Diagnostic::at(asked.unwrap_or_default(), title, label);
            LoadError::Wrong(Diagnostics::new(vec![found], sources.clone()))
        };
        let text = match (read(&next), asked) {
            (Ok(text), _) => text,
            (Err(source), None) => return Err(LoadError::Read { path: next, source }),
            (Err(error), Some(_)) => {
                let title = format!("cannot read {}: {error}", next.display());
                return Err(wrong(title, "needed here", &sources));
            }
        };
        let identity = next.canonicalize().unwrap_or_else(|_| next.clone());
        if seen.contains(&identity) {
            return Err(wrong(format!("{} extends itself", next.display()), "back to the start here", &sources));
        }
        if seen.len() >= CHAIN_MAX {
            return Err(wrong(format!("more than {CHAIN_MAX} recipes extend each other"), "one too many", &sources));
        }
        seen.push(identity);
        let folder = next.parent().map(Path::to_owned).unwrap_or_default();
        let document = parse(next.display().to_string(), text, &mut sources)
            .map_err(|found| LoadError::Wrong(Diagnostics::new(found, sources.clone())))?;
        let start = sources.start_of_last();
        let extends = document.extends.clone();
        layers.push(Layer { document, folder: folder.clone(), start });
        let Some(extends) = extends else { break };
        if extends.starts_with('/') || extends.is_empty() {
            let title = "`extends` is a path relative to this file".to_owned();
            let found = Diagnostic::at(extends.span, title, "not an absolute path");
            return Err(LoadError::Wrong(Diagnostics::new(vec![found], sources)));
        }
        next = folder.join(&extends.value);
        asked = Some(extends.span);
    }
    layers.reverse();
    resolve(layers, overrides, &sources).map_err(LoadError::Wrong)
}

fn read(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    let status = file.metadata()?;
    if status.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {FILE_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        io::Error::new(io::ErrorKind::InvalidData, format!("it is not UTF-8 text (byte {at})"))
    })
}
