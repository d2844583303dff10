//! `manifest.json`: what an image claims to be.
