//! The page of all metrics, in the Prometheus text format.

use super::families::{self as names, FAMILIES, Family, FamilyKind, Home, USER_BUCKETS, family_of};
use super::metrics_observer::MetricsObserver;
use super::process;
use crate::logging;
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Makes the page.
#[derive(Clone, Debug)]
pub(crate) struct Exposition {
    recorder: Option<PrometheusHandle>,
    observer: Arc<MetricsObserver>,
    /// The names of the application's own metrics that the log has told of.
    discovered: Arc<Mutex<BTreeSet<String>>>,
}

/// Installs the recorder of the process, unless one is installed.
///
/// A second call answers the same recorder, so that several applications of one process share it.
/// `None` when the program has installed a recorder of its own.
pub(crate) fn install_recorder() -> Option<PrometheusHandle> {
    static INSTALLED: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    INSTALLED
        .get_or_init(|| {
            let recorder = recorder();
            let handle = recorder.handle();
            metrics::set_global_recorder(recorder).ok().map(|()| handle)
        })
        .clone()
}

/// Makes a recorder with our buckets and descriptions.
pub(super) fn recorder() -> PrometheusRecorder {
    let mut builder = PrometheusBuilder::new().set_buckets(USER_BUCKETS).expect("not empty");
    for Family { name, kind, .. } in FAMILIES {
        if let FamilyKind::Histogram(bounds) = kind {
            let matcher = Matcher::Full((*name).to_owned());
            builder = builder.set_buckets_for_metric(matcher, bounds).expect("not empty");
        }
    }
    let recorder = builder.build_recorder();
    metrics::with_local_recorder(&recorder, || {
        for Family { name, kind, about, home, .. } in FAMILIES {
            match (home, kind) {
                (Home::Page, _) => {}
                (_, FamilyKind::Counter) => metrics::describe_counter!(*name, *about),
                (_, FamilyKind::Gauge) => metrics::describe_gauge!(*name, *about),
                (_, FamilyKind::Histogram(_)) => metrics::describe_histogram!(*name, *about),
            }
        }
    });
    recorder
}

impl Exposition {
    /// Makes the page of this observer and a recorder.
    pub(crate) fn new(recorder: Option<PrometheusHandle>, observer: Arc<MetricsObserver>) -> Self {
        Self { recorder, observer, discovered: Arc::default() }
    }

    /// Empties the recorder's buffers of samples, which would otherwise grow until the next scrape.
    /// To be called every few seconds.
    pub(crate) fn run_upkeep(&self) {
        if let Some(recorder) = &self.recorder {
            recorder.run_upkeep();
        }
    }

    /// Returns the page. Metrics are sorted by name, so that pages can be compared.
    pub(crate) fn render(&self) -> String {
        let recorded = self.recorder.as_ref().map(PrometheusHandle::render).unwrap_or_default();
        let mut blocks: Vec<(String, String)> =
            recorded.split("\n\n").filter_map(sorted_block).collect();
        self.tell_of_new_ones(blocks.iter().map(|(name, _)| name.as_str()));
        blocks.extend(self.own_blocks());
        blocks.sort();
        blocks.into_iter().map(|(_, block)| block).collect()
    }

    /// Tells of metrics that are not in the table and were not on an earlier page: they are the
    /// application's own.
    fn tell_of_new_ones<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let mut discovered = self.discovered.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = |name: &&str| family_of(name).is_none() && !discovered.contains(*name);
        let new: BTreeSet<&str> = names.filter(is_new).collect();
        if new.is_empty() {
            return;
        }
        let metrics = new.iter().copied().collect::<Vec<_>>().join(" ");
        tracing::info!(category = "lifecycle", metrics, "user_metrics_discovered");
        discovered.extend(new.into_iter().map(ToOwned::to_owned));
    }

    fn own_blocks(&self) -> Vec<(String, String)> {
        let observer = &self.observer;
        let slots = (observer.gauges.slots)();
        let idle = *observer.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let version = env!("CARGO_PKG_VERSION");
        let identity = &observer.identity;
        let who = labels(&[
            ("worker_id", &identity.worker_id),
            ("version", version),
            ("consumer_group", &identity.consumer_group),
        ]);
        let mut blocks = Vec::new();
        let mut put = |name: &str, samples: &[(String, f64)]| {
            blocks.push((name.to_owned(), block(name, samples)));
        };
        let single = |value: f64| [(String::new(), value)];
        put(names::WORKER_INFO, &[(who, 1.0)]);
        put(names::BUILD_INFO, &[(labels(&[("version", version)]), 1.0)]);
        put(names::POOL_ACTIVE, &single(number(slots.active as u64)));
        put(names::POOL_WAITING, &single(number(slots.waiting as u64)));
        put(names::POOL_SIZE, &single(number(slots.total as u64)));
        put(names::TOTAL_QUEUED, &single(number((observer.gauges.load)() as u64)));
        put(names::IDLE_SLOT_SECONDS, &single(idle.slot_seconds));
        put(names::CONSUMER_IDLE_SECONDS, &single(idle.consumer_seconds));
        put(names::LOG_LINES_DROPPED, &single(number(logging::dropped_lines())));
        for (name, value) in process::figures() {
            put(name, &single(value));
        }
        let is_connected = (observer.gauges.is_connected)();
        put(names::KAFKA_CONNECTED, &single(f64::from(u8::from(is_connected))));
        let lags: Vec<_> = (observer.gauges.lags)()
            .into_iter()
            .map(|(partition, lag)| (of_partition(partition.partition()), number(lag)))
            .collect();
        put(names::CONSUMER_LAG, &lags);
        let blocked: Vec<_> = (observer.blocked.snapshot().into_iter())
            .map(|((call, partition), count)| {
                (labels(&[("call", &call), ("partition", &partition)]), number(count))
            })
            .collect();
        put(names::BLOCKED_CALLS, &blocked);
        let partitions = observer.partitions.snapshot();
        let mut put_all = |name, value: fn(&super::partitions::PartitionSeries) -> &AtomicU64| {
            let samples: Vec<_> = partitions
                .iter()
                .map(|(partition, series)| {
                    (of_partition(*partition), number(value(series).load(Relaxed)))
                })
                .collect();
            put(name, &samples);
        };
        put_all(names::CONSUMED, |series| &series.consumed);
        put_all(names::COMMITTED, |series| &series.committed);
        put_all(names::QUEUE_SIZE, |series| &series.queued);
        put_all(names::OFFSET_LAG, |series| &series.uncommitted);
        put_all(names::STALLED, |series| &series.stalled);
        blocks
    }
}

/// Sorts the series of one metric as the exporter writes it, and answers its name.
///
/// Lines of histograms keep their order, which the format asks for. A metric of ours that somebody
/// else has put into the recorder is left out, because a name may be on the page once only.
fn sorted_block(text: &str) -> Option<(String, String)> {
    let text = text.trim_matches('\n');
    let (mut head, mut samples): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.starts_with('#'));
    let kind_line = head.iter().find_map(|line| line.strip_prefix("# TYPE "))?;
    let (name, kind) = kind_line.split_once(' ')?;
    if family_of(name).is_some_and(|family| family.home == Home::Page) {
        return None;
    }
    if matches!(kind, "counter" | "gauge") {
        samples.sort_unstable();
    }
    head.append(&mut samples);
    Some((name.to_owned(), head.join("\n") + "\n\n"))
}

fn block(name: &str, samples: &[(String, f64)]) -> String {
    let family = family_of(name).expect("every metric is in the table");
    let mut text =
        format!("# HELP {name} {}\n# TYPE {name} {}\n", family.about, family.kind.as_str());
    for (labels, value) in samples {
        writeln!(text, "{name}{labels} {value}").expect("a string takes all");
    }
    text + "\n"
}

fn of_partition(partition: i32) -> String {
    labels(&[("partition", &partition.to_string())])
}

/// Writes labels in braces, with their values escaped.
fn labels(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(name, value)| {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            format!("{name}=\"{value}\"")
        })
        .collect();
    format!("{{{}}}", pairs.join(","))
}

#[expect(clippy::cast_precision_loss, reason = "the format has no other numbers")]
fn number(value: u64) -> f64 {
    value as f64
}
