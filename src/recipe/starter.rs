//! The recipe that `adamant init` writes: it builds as it is, and shows each key once.

use super::diagnostic::{Diagnostic, Diagnostics};
use super::source::Sources;
use super::values;

/// Lines that begin with `#` and no space after it are examples: they become part of the recipe without the `#`.
const TEXT: &str = include_str!("starter.toml");

/// The name in [`TEXT`].
const NAME: &str = "STARTER";

/// A recipe for an image called `name`.
pub fn starter(name: &str) -> Result<String, Diagnostics> {
    if let Err(fault) = values::image_name(name) {
        let title = format!("an image cannot be called \"{}\"", name.escape_debug());
        let help = [Some(fault.label), fault.help].into_iter().flatten().collect();
        let found = Diagnostic { title, span: None, label: String::new(), context: Vec::new(), help };
        return Err(Diagnostics::new(vec![found], Sources::default()));
    }
    Ok(TEXT.replace(NAME, name))
}
