//! On-disk formats of file systems: each a `format` (structs), a `writer` and a `reader`.

pub mod cpio;
pub mod erofs;
pub mod fat;
