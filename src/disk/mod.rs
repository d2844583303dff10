//! Disks: GUID partition table, discoverable partitions, sparse raw output.
