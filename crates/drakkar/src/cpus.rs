//! Tells when the pool has more slots than there are CPUs for it.

use drakkar_exec::Cpus;

/// Warns if more tasks can run at once than can compute at once. This is an error of nobody's if the
/// tasks mostly wait for something else; if they compute, they only slow each other down, the worker
/// included, and each sees more of its deadline pass.
pub(crate) fn tell_shortage(slots: usize, cpus: Cpus) {
    let count = cpus.count();
    if slots <= count {
        return;
    }
    let advice = "set executor.max_executors to the CPUs, unless the tasks mostly wait for something \
                  else; or give the worker more CPUs";
    tracing::warn!(
        category = "executor",
        slots,
        cpus = count,
        cpus_of_affinity = cpus.affinity,
        cpus_of_quota = cpus.quota,
        advice,
        "executor_slots_exceed_cpus"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_shortage_is_told_with_its_figures() {
        let told = |slots, affinity, quota| {
            let cpus = Cpus { affinity, quota };
            crate::logging::capture(|| tell_shortage(slots, cpus))
        };
        assert!(told(4, 4, None).is_empty() && told(2, 8, Some(1.5)).is_empty());
        let [line] = &told(4, 8, Some(1.5))[..] else { panic!("one line") };
        for (field, expect) in [
            ("event", json!("executor_slots_exceed_cpus")),
            ("level", json!("warning")),
            ("category", json!("executor")),
            ("slots", json!(4)),
            ("cpus", json!(2)),
            ("cpus_of_affinity", json!(8)),
            ("cpus_of_quota", json!(1.5)),
        ] {
            assert_eq!(line[field], expect, "{line}");
        }
        assert!(line["advice"].as_str().is_some_and(|it| it.contains("executor.max_executors")));
        let [line] = &told(5, 4, None)[..] else { panic!("one line") };
        assert_eq!(line.get("cpus_of_quota"), None, "{line}");
    }
}
