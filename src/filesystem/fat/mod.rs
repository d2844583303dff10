//! FAT32 for the EFI system partition: writer and reader.
