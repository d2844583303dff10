//! What boots: initrd, command line, unified kernel image.
