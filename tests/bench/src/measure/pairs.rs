//! Runs the two sides in turn.

use anyhow::{Context, Result};

use crate::figures::{Figures, Pair};

/// Runs both sides so often, with the second first in every other pair: whoever is second finds a
/// warmer machine. `check` may refuse a pair whose two sides do not compare.
pub(crate) fn alternate(
    pairs: usize,
    mut reference: impl FnMut() -> Result<Figures>,
    mut worker: impl FnMut() -> Result<Figures>,
    mut check: impl FnMut(&Pair) -> Result<()>,
) -> Result<Vec<Pair>> {
    let mut measured = Vec::new();
    for number in 1..=pairs {
        let mut run_reference = || reference().context("the bare loop could not be measured");
        let mut run_worker = || worker().context("the worker could not be measured");
        let (reference, ours) = if number % 2 == 1 {
            let first = run_reference()?;
            (first, run_worker()?)
        } else {
            let first = run_worker()?;
            (run_reference()?, first)
        };
        eprintln!("  pair {number}/{pairs} worker: {ours}");
        eprintln!("  pair {number}/{pairs} bare loop: {reference}");
        let pair = Pair { ours, reference: Some(reference) };
        check(&pair)?;
        measured.push(pair);
    }
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn the_first_is_second_in_the_next_pair() {
        let order = RefCell::new(String::new());
        let run = |name| {
            order.borrow_mut().push(name);
            Ok(Figures::default())
        };
        let pairs = alternate(3, || run('r'), || run('w'), |_| Ok(()));
        assert_eq!(pairs.expect("nothing fails").len(), 3);
        assert_eq!(*order.borrow(), "rwwrrw");
    }

    #[test]
    fn one_failure_ends_all() {
        let mut runs = 0;
        let count = || {
            runs += 1;
            Ok(Figures::default())
        };
        let fail = || -> Result<Figures> { anyhow::bail!("broken") };
        assert!(alternate(3, count, fail, |_| Ok(())).is_err());
        assert_eq!(runs, 1);
        let succeed = || Ok(Figures::default());
        assert!(alternate(3, succeed, succeed, |_| anyhow::bail!("no match")).is_err());
    }
}
