//! Real Debian images in real virtual machines.
