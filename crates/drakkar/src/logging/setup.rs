//! Setting the log of the process up, once.

use super::layer::LineLayer;
use super::line::LineIdentity;
use super::output::Output;
use super::writer::LineQueue;
use crate::config::{LogLevel, LogSettings};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::SubscriberExt;

/// How much of a queue the worker's log has.
const QUEUED_LINES_MAX: usize = 16_384;
const QUEUED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The log of this process, once it is ours.
static LOG: OnceLock<Log> = OnceLock::new();

#[derive(Debug)]
struct Log {
    queue: Arc<LineQueue>,
    /// Whether it goes to a file.
    is_file: bool,
}

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum LogError {
    /// The file of `logging.output`.
    #[error("failed to open the log file \"{}\"", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The writer's thread.
    #[error("failed to start the thread that writes the log")]
    Thread(#[source] std::io::Error),
    /// `logging.output`
    #[error("logging.output: {0}")]
    Output(String),
    /// `DRAKKAR_LOG` or `RUST_LOG`
    #[error("DRAKKAR_LOG or RUST_LOG: {0}")]
    Filter(String),
}

/// Writes out what is queued when it is dropped, waiting 2 s at most.
///
/// Without a queue the program has set up a log of its own, and there is nothing to write out.
#[derive(Debug)]
#[must_use = "lines are lost at exit unless this is kept until then"]
pub(crate) struct LogGuard {
    queue: Option<Arc<LineQueue>>,
}

impl LogGuard {
    /// Writes out what is queued, waiting `limit` at most; nothing more is waited for later.
    pub(crate) fn flush_within(mut self, limit: std::time::Duration) {
        if let Some(queue) = self.queue.take() {
            queue.flush(limit);
        }
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            queue.flush(std::time::Duration::from_secs(2));
        }
    }
}

/// Sets the log of the process up, unless the program has done so.
///
/// # Errors
///
/// When the output cannot be opened or the filter is not valid.
pub(crate) fn init(settings: &LogSettings, identity: LineIdentity) -> Result<LogGuard, LogError> {
    let filter = filter(settings)?;
    if LOG.get().is_some() {
        return Ok(LogGuard { queue: None });
    }
    let output = Output::parse(&settings.output).map_err(LogError::Output)?;
    let sink = output.open(&identity)?;
    let queue =
        LineQueue::start(sink, QUEUED_LINES_MAX, QUEUED_BYTES_MAX).map_err(LogError::Thread)?;
    let layer = LineLayer::new(settings.format, identity, Arc::clone(&queue));
    let subscriber = tracing_subscriber::registry().with(filter).with(layer);
    if tracing::subscriber::set_global_default(subscriber).is_err() {
        return Ok(LogGuard { queue: None });
    }
    let is_file = matches!(output, Output::File(_));
    // Whoever has set the global default is the only one to come here.
    LOG.get_or_init(|| Log { queue: Arc::clone(&queue), is_file });
    Ok(LogGuard { queue: Some(queue) })
}

/// Returns whether the log of this process is ours and goes to a file.
pub(crate) fn goes_to_a_file() -> bool {
    LOG.get().is_some_and(|log| log.is_file)
}

/// Has the file of the log opened anew, because somebody has moved it away.
pub(crate) fn reopen() {
    if let Some(log) = LOG.get() {
        log.queue.reopen();
    }
}

/// Makes the filter: the level of the settings, and what the environment says beside it. Of two
/// directives for the same target the last one counts, so a bare level of the environment wins.
fn filter(settings: &LogSettings) -> Result<EnvFilter, LogError> {
    let level = match settings.level {
        LogLevel::Trace => LevelFilter::TRACE,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Off => LevelFilter::OFF,
    };
    let beside = settings.filter.as_deref().unwrap_or_default();
    parse_filter(&format!("{level},{beside}")).map_err(LogError::Filter)
}

/// Checks a filter of the environment.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn check_filter(filter: &str) -> Result<(), String> {
    parse_filter(filter).map(drop)
}

fn parse_filter(filter: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(filter).map_err(|error| {
        format!(
            "\"{filter}\" is no filter of the log ({error}); write for example drakkar=debug,info"
        )
    })
}

/// Runs `log` and answers the lines that it wrote.
#[cfg(test)]
pub(crate) fn capture(log: impl FnOnce()) -> Vec<serde_json::Value> {
    capture_through("trace", log)
}

/// Runs `log` and answers the lines that pass a filter.
#[cfg(test)]
pub(crate) fn capture_through(filter: &str, log: impl FnOnce()) -> Vec<serde_json::Value> {
    let lines = super::layer::tests::lines_through(filter, crate::config::LogFormat::Json, log);
    lines.iter().map(|line| serde_json::from_str(line).expect("every line is JSON")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn filters_of_the_environment_are_checked() {
        let load = |filter: &str| {
            let variable = ("DRAKKAR_LOG".to_owned(), filter.to_owned());
            Config::from_yaml_str("", [variable])
        };
        let config = load("drakkar=debug,info").expect("valid");
        assert!(filter(&config.logging()).is_ok());
        let error = load("drakkar=loud").expect_err("not valid").to_string();
        assert!(error.contains("DRAKKAR_LOG: \"drakkar=loud\""), "{error}");
    }

    #[test]
    fn a_filter_of_the_environment_works_beside_the_level() {
        let check = |level: &str, variable: &str, expect: [bool; 4]| {
            let text = format!("logging: {{level: '{level}'}}");
            let variable = ("RUST_LOG".to_owned(), variable.to_owned());
            let config = Config::from_yaml_str(&text, [variable.clone()]).expect("valid");
            let filter = filter(&config.logging()).expect("valid");
            let subscriber = tracing_subscriber::registry().with(filter);
            let enabled = tracing::subscriber::with_default(subscriber, || {
                [
                    tracing::enabled!(target: "hyper", tracing::Level::DEBUG),
                    tracing::enabled!(target: "other", tracing::Level::DEBUG),
                    tracing::enabled!(target: "other", tracing::Level::INFO),
                    tracing::enabled!(target: "other", tracing::Level::ERROR),
                ]
            });
            assert_eq!(enabled, expect, "{level} and {variable:?}");
        };
        check("INFO", "", [false, false, true, true]);
        check("INFO", "hyper=debug", [true, false, true, true]);
        check("WARN", "hyper=debug", [true, false, false, true]);
        check("INFO", "debug", [true, true, true, true]);
        check("INFO", "error,hyper=debug", [true, false, false, true]);
        check("INFO", "off", [false, false, false, false]);
        check("OFF", "hyper=debug", [true, false, false, false]);
    }

    #[test]
    fn the_log_of_the_process_is_set_up_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("{worker_id}.log");
        let text = format!("logging: {{output: '{}'}}", path.display());
        let settings = Config::from_yaml_str(&text, []).expect("valid").logging();
        let identity = LineIdentity { worker_id: "w1".into(), ..LineIdentity::default() };
        let guard: crate::logging::LogGuard =
            crate::logging::init(&settings, identity.clone()).expect("it can be set up");
        assert!(guard.queue.is_some());
        tracing::info!(event = "drakkar_starting", category = "lifecycle");
        tracing::debug!(event = "not_wanted");
        drop(guard);
        let written = std::fs::read_to_string(folder.path().join("w1.log")).expect("it is there");
        assert!(written.contains("\"event\":\"drakkar_starting\""), "{written}");
        assert!(!written.contains("not_wanted"), "{written}");
        let second = init(&settings, identity).expect("it is left as it is");
        assert!(second.queue.is_none());
    }
}
