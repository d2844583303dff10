//! Verifies an image from its bytes.
