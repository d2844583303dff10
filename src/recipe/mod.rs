//! Recipes: schema, extends, validation, diagnostics.

mod resolved;
pub mod schema;
mod source;

pub use resolved::*;
pub use source::{At, Location, SourceText, Sources, Span};
