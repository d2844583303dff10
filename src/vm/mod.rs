//! QEMU machines: firmware, console, outcome.
