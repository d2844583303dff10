//! Debian archives: signed indexes, packages, versions, dependency resolution. Pure: bytes in, values out.
