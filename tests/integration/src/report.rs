//! Figures that are worth reading also when the test passes.

use std::io::{self, Write};

/// Writes a line past the test harness, which hides what passing tests print.
///
/// # Errors
///
/// Standard error is closed.
pub fn report(line: &str) -> io::Result<()> {
    writeln!(io::stderr().lock(), "  {line}")
}
