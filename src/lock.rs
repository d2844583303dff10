//! The lockfile: every package of an image by name, version and digest; canonical text.
