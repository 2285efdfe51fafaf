//! The cache behind the changelog, in sled; an in-memory twin that can crash.
