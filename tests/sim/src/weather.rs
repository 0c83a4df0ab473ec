//! Whether faults strike at present, and how hard.

use crate::scenario::Rates;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The rates of a world, and the switch that ends all faults for good. Clones share the switch.
#[derive(Clone, Debug)]
pub(crate) struct Weather {
    rates: Rates,
    clear: Arc<AtomicBool>,
}

impl Weather {
    /// Begins with faults.
    pub(crate) fn new(rates: Rates) -> Self {
        Self { rates, clear: Arc::default() }
    }

    /// Returns the rates in force: none once it has cleared up.
    pub(crate) fn rates(&self) -> Rates {
        if self.clear.load(Ordering::SeqCst) { Rates::default() } else { self.rates }
    }

    /// Ends all faults.
    pub(crate) fn clear_up(&self) {
        self.clear.store(true, Ordering::SeqCst);
    }
}
