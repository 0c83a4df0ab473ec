//! Finding a Java runtime that is new enough for the broker.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

/// What Apache Kafka 4 asks for.
const MAJOR_MIN: u32 = 17;

/// Finds `java` through `JAVA_HOME`, then through `PATH`, and checks its version.
pub(crate) fn find() -> Result<PathBuf> {
    let home = env::var_os("JAVA_HOME").filter(|home| !home.is_empty());
    let in_home = home.map(|home| PathBuf::from(home).join("bin").join("java"));
    let mut refused = Vec::new();
    for java in in_home.into_iter().chain([PathBuf::from("java")]) {
        match major_version(&java) {
            Some(major) if major >= MAJOR_MIN => return Ok(java),
            Some(major) => refused.push(format!("\"{}\" is Java {major}", java.display())),
            None => refused.push(format!("\"{}\" does not run", java.display())),
        }
    }
    bail!(
        "Kafka needs a Java runtime of version {MAJOR_MIN} or newer: {}\n\
         install one (Debian, Ubuntu: apt-get install openjdk-17-jre-headless) or set JAVA_HOME",
        refused.join(", ")
    )
}

fn major_version(java: &PathBuf) -> Option<u32> {
    let output = Command::new(java).arg("-version").output().ok()?;
    parse_major(&String::from_utf8_lossy(&output.stderr))
}

/// Reads `openjdk version "17.0.15" …`; before Java 9 it was `"1.8.0_292"`.
fn parse_major(banner: &str) -> Option<u32> {
    let version = banner.split('"').nth(1)?;
    let mut parts = version.split(|at: char| !at.is_ascii_digit());
    match parts.next()?.parse().ok()? {
        1 => parts.next()?.parse().ok(),
        major => Some(major),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_the_banner() {
        let check = |banner, major| assert_eq!(parse_major(banner), major, "{banner}");
        check("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime …", Some(17));
        check("openjdk version \"26-ea\" 2026-03-17", Some(26));
        check("java version \"1.8.0_292\"", Some(8));
        check("Error: could not find libjava.so", None);
        check("", None);
    }
}
