//! Joins `tracing` and the queue of lines.

use super::line::{Fields, LineFormat, LineIdentity};
use super::writer::LineQueue;
use crate::config::LogFormat;
use std::sync::Arc;
use std::time::SystemTime;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// Makes a line of every event, with the fields of its spans: those of the event win over those of
/// an inner span, which win over those of an outer one.
#[derive(Debug)]
pub(super) struct LineLayer {
    format: LineFormat,
    queue: Arc<LineQueue>,
}

impl LineLayer {
    pub(super) fn new(format: LogFormat, identity: LineIdentity, queue: Arc<LineQueue>) -> Self {
        Self { format: LineFormat::new(format, &identity), queue }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LineLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.inherit(outer);
            }
        }
        self.queue.push(self.format.line(SystemTime::now(), event.metadata(), &fields));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::logging::LogError;
    use crate::logging::line::ECS_OBJECTS;
    use crate::logging::output::LineOutput;
    use serde_json::{Value, json};
    use std::io::Write;
    use std::sync::Mutex;
    use std::time::Duration;
    use tracing_subscriber::filter::EnvFilter;
    use tracing_subscriber::layer::SubscriberExt;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl LineOutput for Memory {
        fn reopen(&mut self) -> Result<(), LogError> {
            Ok(())
        }
    }

    /// Runs `log` and answers the lines.
    pub(crate) fn lines(format: LogFormat, log: impl FnOnce()) -> Vec<String> {
        lines_through("trace", format, log)
    }

    /// Runs `log` and answers the lines that pass a filter.
    pub(crate) fn lines_through(
        filter: &str,
        format: LogFormat,
        log: impl FnOnce(),
    ) -> Vec<String> {
        let memory = Memory::default();
        let queue = LineQueue::start(Box::new(memory.clone()), 1000, 1_000_000).expect("a thread");
        let identity = LineIdentity {
            worker_id: "w\"1".into(),
            consumer_group: "group".into(),
            cluster_name: String::new(),
        };
        let layer = LineLayer::new(format, identity, Arc::clone(&queue));
        let filter = EnvFilter::new(filter);
        let subscriber = tracing_subscriber::registry().with(filter).with(layer);
        tracing::subscriber::with_default(subscriber, log);
        queue.flush(Duration::from_secs(10));
        let text = String::from_utf8(memory.0.lock().expect("no panic").clone()).expect("UTF-8");
        text.lines().map(ToOwned::to_owned).collect()
    }

    #[test]
    fn every_json_line_has_the_common_fields() {
        let written = lines(LogFormat::Json, || {
            let outer = tracing::info_span!("hook", partition = 3, window_id = 7, hook = "arrange");
            let _outer = outer.enter();
            let inner = tracing::info_span!("task", task_id = tracing::field::Empty, window_id = 8);
            inner.record("task_id", "t-1");
            let _inner = inner.enter();
            tracing::warn!(event = "commit_failed", category = "kafka", error = %"broken\npipe");
            tracing::info!(target: "my_app", answer = 42, partition = 4, "hello {}", "you");
            tracing::error!(level = "odd", worker_id = "forged", ratio = f64::NAN, "");
            tracing::debug!(event = "named", "and described");
            tracing::info!(log.level = "odd", service.name = "forged", event = 7, "numbered");
        });
        let parsed: Vec<Value> =
            written.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(parsed.len(), 5);
        for (line, text) in parsed.iter().zip(&written) {
            for [ecs, own] in [
                ["@timestamp", "timestamp"],
                ["log.level", "level"],
                ["service.name", "service_name"],
                ["service.version", "service_version"],
                ["service.node.name", "worker_id"],
            ] {
                assert!(line[ecs].is_string(), "{ecs} is missing in {text}");
                assert_eq!(line[ecs], line[own], "{ecs}");
                // A parser takes the last of two; others refuse the line.
                assert_eq!(text.matches(&format!("\"{ecs}\":")).count(), 1, "{text}");
            }
            assert_eq!(line["ecs.version"], "8.11.0");
            assert!(line["message"].is_string() && line["category"].is_string(), "{text}");
            assert_eq!(line["service_name"], "drakkar");
            assert_eq!(line["service_version"], env!("CARGO_PKG_VERSION"));
            assert_eq!(line["worker_id"], "w\"1");
            assert_eq!(line["consumer_group"], "group");
            assert_eq!((&line["hook"], &line["window_id"]), (&json!("arrange"), &json!(8)));
            assert_eq!(line["task_id"], "t-1");
            assert_eq!(line.get("cluster_name"), None, "empty names are left out");
            let stamp = line["timestamp"].as_str().expect("text");
            assert!(stamp.len() == 27 && stamp.ends_with('Z'), "{stamp}");
        }
        let keys = |line: &Value, keys: [&str; 4]| keys.map(|key| line[key].clone());
        let common = ["level", "event", "category", "partition"];
        assert_eq!(
            keys(&parsed[0], common),
            [json!("warning"), json!("commit_failed"), json!("kafka"), json!(3)]
        );
        assert_eq!(parsed[0]["error"], "broken\npipe");
        assert_eq!(
            keys(&parsed[1], common),
            [json!("info"), json!("hello you"), json!("app"), json!(4)]
        );
        assert_eq!((&parsed[1]["answer"], &parsed[1]["module"]), (&json!(42), &json!("my_app")));
        assert_eq!(parsed[0]["message"], "commit_failed", "a line without a text has its name");
        assert_eq!(parsed[1]["message"], "hello you");
        assert_eq!(parsed[0]["module"], "drakkar.logging.layer.tests");
        assert_eq!(parsed[0]["log.logger"], "drakkar::logging::layer::tests");
        assert_eq!(parsed[2]["level"], "error");
        assert_eq!(
            (&parsed[2]["level_"], &parsed[2]["worker_id_"]),
            (&json!("odd"), &json!("forged"))
        );
        assert_eq!(
            (&parsed[2]["ratio"], &parsed[2]["category"]),
            (&Value::Null, &json!("lifecycle"))
        );
        assert_eq!(
            (&parsed[3]["event"], &parsed[3]["message"]),
            (&json!("named"), &json!("and described"))
        );
        assert_eq!(
            ["event", "event_", "log.level_", "service.name_"].map(|key| parsed[4][key].clone()),
            [json!("numbered"), json!(7), json!("odd"), json!("forged")]
        );
    }

    /// Fails as an index with the mapping of the Elastic Common Schema refuses a document: nothing may
    /// stand twice, and no value where there is an object.
    fn check_ecs(text: &str) -> Value {
        let line: Value = serde_json::from_str(text).expect("JSON");
        let names: Vec<&String> = line.as_object().expect("an object").keys().collect();
        for name in names {
            assert_eq!(text.matches(&format!("\"{name}\":")).count(), 1, "{name} in {text}");
            assert!(!ECS_OBJECTS.contains(&name.as_str()), "{name} is a value in {text}");
            let inside = format!("\"{name}.");
            assert!(!text.contains(&inside), "{name} is a value and an object in {text}");
        }
        line
    }

    #[test]
    fn a_line_of_the_common_schema_is_refused_by_no_index() {
        let written = lines(LogFormat::Ecs, || {
            tracing::warn!(event = "commit_failed", category = "kafka", error = %"broken pipe");
            tracing::info!(host = "h", source = 7, labels = true, host.name = "h", "hello");
            tracing::info!(error = "a", error.message = "b", error.code = 3, event.action = "c");
            tracing::info!(event = "named", event.action = "d", "text");
            tracing::info!(
                event = 7,
                event_ = 8,
                log.level = "odd",
                worker_id = "w",
                service = "s"
            );
        });
        let lines: Vec<Value> = written.iter().map(|text| check_ecs(text)).collect();
        assert_eq!(lines.len(), 5);
        let names = ["event.action", "error.message", "category", "message", "log.level"];
        assert_eq!(
            names.map(|name| lines[0][name].clone()),
            ["commit_failed", "broken pipe", "kafka", "commit_failed", "warning"]
        );
        assert_eq!(lines[0]["service.name"], "drakkar");
        assert_eq!(lines[0]["service.node.name"], "w\"1");
        assert_eq!(lines[0]["consumer_group"], "group");
        assert_eq!(lines[0]["ecs.version"], "8.11.0");
        let names = ["host_", "source_", "labels_", "host.name", "message"];
        let expect = [json!("h"), json!(7), json!(true), json!("h"), json!("hello")];
        assert_eq!(names.map(|name| lines[1][name].clone()), expect);
        assert_eq!(lines[1].get("event.action"), None, "the line has no name");
        let names = ["error_", "error.message", "error.code", "event.action"];
        let expect = [json!("a"), json!("b"), json!(3), json!("c")];
        assert_eq!(names.map(|name| lines[2][name].clone()), expect);
        assert_eq!(
            (&lines[3]["event.action"], &lines[3]["event.action_"]),
            (&json!("named"), &json!("d"))
        );
        let names = ["event_", "event__", "log.level_", "worker_id_", "service_"];
        let expect = [json!(8), json!(7), json!("odd"), json!("w"), json!("s")];
        assert_eq!(names.map(|name| lines[4][name].clone()), expect);
    }

    #[test]
    fn a_line_without_a_category_gets_that_of_its_part() {
        let written = lines(LogFormat::Json, || {
            tracing::info!(target: "librdkafka", "x");
            tracing::info!(target: "drakkar_source_kafka::poll", "x");
            tracing::info!(target: "drakkar_sink_file::sink", "x");
            tracing::info!(target: "drakkar_exec::child", "x");
            tracing::info!(target: "drakkar_core::engine", "x");
            tracing::info!(target: "drakkar_words", "the program's own crate");
        });
        let categories: Vec<Value> = written
            .iter()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["category"].clone())
            .collect();
        assert_eq!(categories, ["kafka", "kafka", "sink", "executor", "lifecycle", "app"]);
    }

    /// Reads how much text the fields of a span hold, each time that one is recorded.
    struct Scales(Arc<Mutex<Vec<usize>>>);

    impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Scales {
        fn on_record(&self, id: &Id, _values: &Record<'_>, context: Context<'_, S>) {
            let span = context.span(id).expect("it is open");
            let bytes = span.extensions().get::<Fields>().map(Fields::text_bytes);
            self.0.lock().expect("no panic").push(bytes.expect("the other layer keeps them"));
        }
    }

    // Promise: FT-3
    #[test]
    fn a_span_keeps_only_what_was_recorded_last() {
        let queue =
            LineQueue::start(Box::new(Memory::default()), 1000, 1_000_000).expect("a thread");
        let layer = LineLayer::new(LogFormat::Json, LineIdentity::default(), queue);
        let weights = Arc::<Mutex<Vec<usize>>>::default();
        // A layer hears of a record after those that were added before it.
        let registry =
            tracing_subscriber::registry().with(layer).with(Scales(Arc::clone(&weights)));
        tracing::subscriber::with_default(registry, || {
            let span = tracing::info_span!("work", name = "n", step = tracing::field::Empty);
            for step in 0..1000 {
                span.record("step", format!("{step:010}").as_str());
            }
        });
        assert_eq!(*weights.lock().expect("no panic"), [11; 1000]);
    }

    #[test]
    fn long_texts_are_cut() {
        let written = lines(LogFormat::Json, || tracing::info!(text = "ü".repeat(20_000)));
        let line: Value = serde_json::from_str(&written[0]).expect("JSON");
        let text = line["text"].as_str().expect("text");
        assert!(text.ends_with('…') && text.len() <= 16 * 1024 + 3, "{}", text.len());
    }

    #[test]
    fn lines_for_people_cannot_be_forged() {
        let written = lines(LogFormat::Console, || {
            tracing::info!(
                event = "started",
                category = "lifecycle",
                port = 9090,
                name = "a\u{9b} b"
            );
            tracing::warn!("two\nlines \u{1b}[31m");
        });
        assert_eq!(written.len(), 2, "{written:?}");
        let end = "INFO  started category=lifecycle port=9090 name=\"a\\u{9b} b\" [drakkar::logging::layer::tests]";
        assert!(written[0].ends_with(end), "{}", written[0]);
        assert!(written[1].contains("two\\nlines \\u{1b}[31m"), "{}", written[1]);
    }
}
