//! What several integration tests share.
#![allow(dead_code)]

pub mod executable;
pub mod oracle;
pub mod torture;
