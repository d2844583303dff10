//! Recipes: what a person writes to say what an image is made of.
//!
//! ```text
//! file.toml ── parse ──> Document ─┐
//! parent.toml ─ parse ─> Document ─┴─ resolve ──> Recipe ──> every other stage
//!                  │                     │
//!                  └── Diagnostics <─────┘   file:line:column, the line, what was expected, the nearest name
//! ```
//!
//! `schema` has one field per key and its documentation; `shape` derives the JSON Schema from it and holds a file
//! against it; `values` has the rules of single values, `items` those of tables; `resolve` merges a chain of `extends`;
//! `load` reads recipes and `contents` what they name; `record` is a recipe as a manifest keeps it.

mod contents;
mod diagnostic;
mod items;
mod load;
mod parse;
mod record;
mod resolve;
mod resolved;
pub mod schema;
mod shape;
mod source;
mod starter;
pub(crate) mod values;

pub use contents::{SourceContent, SourceContents};
pub use diagnostic::{Diagnostic, Diagnostics, listed, nearest};
pub use load::{LoadError, load};
pub use parse::parse;
pub use record::{RecipeField, RecipeRecord, record_digest};
pub use resolve::{Layer, Overrides, resolve};
pub use resolved::*;
pub use shape::json_schema;
pub use source::{At, Location, SourceText, Sources, Span};
pub use starter::starter;
