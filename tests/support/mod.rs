//! What several integration tests share.
#![allow(dead_code)]

pub mod oracle;
pub mod recipes;
