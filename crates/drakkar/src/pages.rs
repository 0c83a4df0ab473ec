//! Compares a generated page of `docs/` with the committed one.

use std::path::PathBuf;

/// Fails when the page `docs/<name>` is not `expect`; with `DRAKKAR_UPDATE_REFERENCE` set, writes it.
pub(crate) fn check_page(name: &str, expect: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    if std::env::var_os("DRAKKAR_UPDATE_REFERENCE").is_some() {
        std::fs::create_dir_all(path.parent().expect("it has a parent")).expect("docs can be made");
        std::fs::write(&path, expect).expect("the page can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let line = found.lines().zip(expect.lines()).position(|(left, right)| left != right);
    assert!(
        found == expect,
        "docs/{name} is out of date (first difference after line {line:?}); run the tests with \
         DRAKKAR_UPDATE_REFERENCE=1"
    );
}
