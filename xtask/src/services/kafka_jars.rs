//! The broker's jars: Apache Kafka and what it needs, fetched once through Maven and kept in the
//! cache folder.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use anyhow::{Context, Result, bail, ensure};

use crate::workspace;

/// The broker that tests run against; `compose.yaml` names the same one.
pub(crate) const VERSION: &str = "4.4.0";

/// Gives the folder with the jars, fetching them if the cache has none.
pub(crate) fn fetch() -> Result<PathBuf> {
    let jars = folder()?;
    if jars.is_dir() {
        return Ok(jars);
    }
    eprintln!("fetching Apache Kafka {VERSION} into {}", jars.display());
    let draft = jars.with_extension(format!("{}.new", process::id()));
    let fetched = copy_dependencies(&draft).and_then(|()| publish(&draft, &jars));
    if fetched.is_err() {
        // What failed matters more than a folder that stays behind.
        fs::remove_dir_all(&draft).ok();
    }
    fetched?;
    Ok(jars)
}

/// Says whether a fetch would find the jars in the cache, or could get them.
pub(crate) fn check_available() -> Result<()> {
    if folder()?.is_dir() {
        return Ok(());
    }
    let found = Command::new("mvn").arg("--version").output();
    found.map(drop).map_err(|error| explain(&error))
}

fn folder() -> Result<PathBuf> {
    Ok(workspace::cache()?.join(format!("kafka-{VERSION}")))
}

fn copy_dependencies(into: &Path) -> Result<()> {
    fs::create_dir_all(into).with_context(|| format!("failed to create {}", into.display()))?;
    let mut output_directory = OsString::from("-DoutputDirectory=");
    output_directory.push(into);
    let output = Command::new("mvn")
        .args(["--batch-mode", "--quiet", "-Dstyle.color=never", "--file"])
        .arg(workspace::root()?.join("xtask/services/kafka/pom.xml"))
        .arg("dependency:copy-dependencies")
        .arg("-DincludeScope=runtime")
        .arg(format!("-Dkafka.version={VERSION}"))
        .arg(output_directory)
        .output()
        .map_err(|error| explain(&error))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        bail!("Maven could not fetch Apache Kafka {VERSION} ({}):\n{}", output.status, said.trim());
    }
    let broker = into.join(format!("kafka_2.13-{VERSION}.jar"));
    ensure!(broker.is_file(), "Maven succeeded, yet there is no {}", broker.display());
    Ok(())
}

/// Moves the finished folder to its place; if another run was first, its folder is as good.
fn publish(draft: &Path, jars: &Path) -> Result<()> {
    match fs::rename(draft, jars) {
        Err(_) if jars.is_dir() => fs::remove_dir_all(draft).context("failed to tidy up"),
        renamed => renamed.with_context(|| format!("failed to create {}", jars.display())),
    }
}

fn explain(error: &std::io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::NotFound => anyhow::anyhow!(
            "fetching Apache Kafka needs Maven: install it (Debian, Ubuntu: apt-get install maven)"
        ),
        _ => anyhow::anyhow!("failed to run mvn: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_of_two_fetches_keeps_what_the_first_left() {
        let cache = tempfile::tempdir().expect("a temporary folder");
        let (draft, jars) = (cache.path().join("draft"), cache.path().join("kafka"));
        for content in ["first", "second"] {
            fs::create_dir(&draft).expect("created");
            fs::write(draft.join("jar"), content).expect("written");
            publish(&draft, &jars).expect("published");
            assert!(!draft.exists());
            assert_eq!(fs::read_to_string(jars.join("jar")).expect("readable"), "first");
        }
    }

    #[test]
    fn docker_runs_the_same_broker() {
        let compose = include_str!("../../services/compose.yaml");
        assert!(compose.contains(&format!("image: apache/kafka:{VERSION}\n")));
    }
}
