//! What several integration tests share.
#![allow(dead_code)]

pub mod archive;
pub mod blobs;
pub mod executable;
pub mod host_apt;
pub mod host_user;
pub mod http;
pub mod image;
pub mod mounts;
pub mod object_store;
pub mod oracle;
pub mod packages;
pub mod proxy;
pub mod recipes;
pub mod torture;
pub mod workshop;
