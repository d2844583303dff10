//! EROFS: writer and reader.
