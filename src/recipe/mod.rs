//! Recipes: schema, extends, validation, diagnostics.
