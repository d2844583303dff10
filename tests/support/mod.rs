//! What several integration tests share.
#![allow(dead_code)]

pub mod executable;
pub mod image;
pub mod oracle;
pub mod torture;
