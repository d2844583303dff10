//! Content-addressed objects on disk, and fetching them.
