//! What several integration tests share.
#![allow(dead_code)]

pub mod http;
pub mod executable;
pub mod oracle;
