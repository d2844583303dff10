//! What several integration tests share.
#![allow(dead_code)]

pub mod archive;
pub mod executable;
pub mod http;
pub mod image;
pub mod oracle;
pub mod recipes;
pub mod torture;
