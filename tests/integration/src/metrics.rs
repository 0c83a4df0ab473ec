//! A worker's metrics page.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

/// The samples of one page.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// By name; labels as they are written, between the braces.
    samples: BTreeMap<String, Vec<(String, f64)>>,
}

impl Metrics {
    /// Reads the text format of Prometheus.
    ///
    /// # Errors
    ///
    /// A line is not understood.
    pub fn parse(page: &str) -> Result<Self> {
        let mut metrics = Self::default();
        let is_sample = |line: &&str| !line.is_empty() && !line.starts_with('#');
        for line in page.lines().filter(is_sample) {
            let (name, labels, value) =
                parse_sample(line).with_context(|| format!("not a sample: {line}"))?;
            let samples = metrics.samples.entry(name.to_owned()).or_default();
            samples.push((labels.to_owned(), value));
        }
        Ok(metrics)
    }

    /// The sum over all samples of the name.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn sum(&self, name: &str) -> Result<f64> {
        self.sum_with(name, "")
    }

    /// The sum over the samples that have the label, written as `status="completed"`.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn sum_with(&self, name: &str, label: &str) -> Result<f64> {
        let samples = self.samples.get(name).map_or(&[][..], Vec::as_slice);
        let fitting: Vec<f64> =
            samples.iter().filter(|it| it.0.contains(label)).map(|it| it.1).collect();
        let found = (!fitting.is_empty()).then(|| fitting.iter().sum());
        found.with_context(|| format!("the page has no {name} with \"{label}\""))
    }
}

/// Name, labels, value; a time after the value is not expected.
fn parse_sample(line: &str) -> Option<(&str, &str, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (series, ""),
    };
    Some((name, labels, value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP drakkar_tasks_total Tasks.\n# TYPE drakkar_tasks_total counter\n\
        drakkar_tasks_total{status=\"started\"} 3\n\
        drakkar_tasks_total{status=\"completed\",a=\"b c\"} 2\n\ndrakkar_queued 0.5\n";

    #[test]
    fn samples_are_summed_by_name_and_label() {
        let metrics = Metrics::parse(PAGE).expect("well-formed");
        let check = |name, label, expect| {
            assert_eq!(metrics.sum_with(name, label).expect("it is there"), expect);
        };
        check("drakkar_tasks_total", "", 5.0);
        check("drakkar_tasks_total", "status=\"completed\"", 2.0);
        check("drakkar_queued", "", 0.5);
    }

    #[test]
    fn what_is_not_there_is_an_error_and_not_zero() {
        let metrics = Metrics::parse(PAGE).expect("well-formed");
        assert!(metrics.sum("drakkar_tasks").is_err());
        assert!(metrics.sum_with("drakkar_tasks_total", "status=\"failed\"").is_err());
    }

    #[test]
    fn a_strange_line_is_an_error() {
        for page in ["drakkar_queued", "drakkar_queued x", "drakkar_queued{a=\"b\" 1"] {
            assert!(Metrics::parse(page).is_err(), "{page}");
        }
    }
}
