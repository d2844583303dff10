//! cpio (newc) for initrds: writer and reader.
