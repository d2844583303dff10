//! A recipe as a manifest keeps it: every field with its value, the contents of files by their digests.
//!
//! Flows in: a recipe and what its sources hold. Flows out: a [`RecipeRecord`], whose digest names the recipe: the same
//! digest, the same image from the same lock.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::contents::{SourceContents, digest_of};
use super::resolved::{FileContent, Recipe};
use crate::digest::Digest;

/// A field of a recipe: defaults filled in, `extends` followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecipeField {
    /// Its name.
    pub field: String,
    /// Its value. The content of a file stands as a digest: a manifest may be seen by more people than its image.
    pub value: Value,
}

/// All that a recipe says, in the order of its fields.
pub type RecipeRecord = Vec<RecipeField>;

/// Names what the fields say.
pub fn record_digest(record: &[RecipeField]) -> Digest {
    let fields: Map<String, Value> = record.iter().map(|field| (field.field.clone(), field.value.clone())).collect();
    digest_of("adamant.recipe/2", &fields)
}

impl Recipe {
    /// The recipe, field by field. `None` if `contents` lacks a source.
    pub fn record(&self, contents: &SourceContents) -> Option<RecipeRecord> {
        let Ok(Value::Object(mut fields)) = serde_json::to_value(self) else { return None };
        for (file, value) in self.files.iter().zip(elements(&mut fields, "files")) {
            value["content"] = match &file.content {
                FileContent::Inline(text) => json!({ "inline": Digest::of(text.as_bytes()) }),
                FileContent::Source(path) => json!({ "source": path.text, "sha256": contents.get(path)?.digest()? }),
            };
        }
        if let Some(key) = &self.debian.key {
            fields["debian"]["key"] = json!({ "source": key.text, "sha256": contents.get(key)?.digest()? });
        }
        for (repository, value) in self.repositories.iter().zip(elements(&mut fields, "repositories")) {
            let key = &repository.key;
            value["key"] = json!({ "source": key.text, "sha256": contents.get(key)?.digest()? });
        }
        Some(fields.into_iter().map(|(field, value)| RecipeField { field, value }).collect())
    }

    /// Names all that the recipe says and all that its sources hold: the same digest, the same image from the same
    /// lock. `None` if `contents` lacks a source.
    pub fn digest(&self, contents: &SourceContents) -> Option<Digest> {
        self.record(contents).map(|record| record_digest(&record))
    }
}

fn elements<'f>(fields: &'f mut Map<String, Value>, name: &str) -> impl Iterator<Item = &'f mut Value> {
    fields.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten()
}
