//! Tests of the filesystem sink through its public interface.
#![expect(clippy::disallowed_methods, reason = "some tests need a second process")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;
mod conformance;
mod delivery;
mod full_disk;
mod shared_file;
