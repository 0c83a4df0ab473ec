//! How much of each assignment may be handed over. Pure: no clock, no client, no thread.

use drakkar_api::{Credit, Epoch, Flow};
use std::collections::BTreeMap;

/// The credit of every assignment, and the flow of all.
#[derive(Debug)]
pub(crate) struct FlowTable {
    flow: Flow,
    credits: BTreeMap<Epoch, Balance>,
}

/// What is left of the credit of one assignment.
///
/// Bytes go below zero when the last message was larger than what was left; the debt is paid by
/// later grants, so that over time no more is handed over than was granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Balance {
    messages: usize,
    bytes: i64,
}

/// What may be handed over in one go: up to `messages`, and no further one once `bytes` are
/// reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowance {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

impl Default for FlowTable {
    /// Makes a table without assignments, with an open flow.
    fn default() -> Self {
        Self { flow: Flow::Open, credits: BTreeMap::new() }
    }
}

impl FlowTable {
    /// Adds an assignment without credit.
    pub(crate) fn open(&mut self, epoch: Epoch) {
        self.credits.insert(epoch, Balance::default());
    }

    /// Forgets an assignment; later grants for it have no effect.
    pub(crate) fn close(&mut self, epoch: Epoch) {
        self.credits.remove(&epoch);
    }

    /// Opens or closes the flow of all assignments.
    pub(crate) fn set_flow(&mut self, flow: Flow) {
        self.flow = flow;
    }

    /// Adds to what is left. Ignored for an assignment that has ended.
    pub(crate) fn grant(&mut self, epoch: Epoch, credit: Credit) {
        if let Some(balance) = self.credits.get_mut(&epoch) {
            balance.messages = balance.messages.saturating_add(credit.messages);
            let bytes = i64::try_from(credit.bytes).unwrap_or(i64::MAX);
            balance.bytes = balance.bytes.saturating_add(bytes);
        }
    }

    /// Returns what may be handed over now, at most `messages_max`; `None` if nothing.
    pub(crate) fn allowance(&self, epoch: Epoch, messages_max: usize) -> Option<Allowance> {
        let balance = self.credits.get(&epoch)?;
        let messages = balance.messages.min(messages_max);
        let is_open = self.flow == Flow::Open && messages > 0 && balance.bytes > 0;
        let bytes = usize::try_from(balance.bytes).unwrap_or(0);
        is_open.then_some(Allowance { messages, bytes })
    }

    /// Takes off what was handed over, which was within an allowance.
    pub(crate) fn spend(&mut self, epoch: Epoch, messages: usize, bytes: usize) {
        if let Some(balance) = self.credits.get_mut(&epoch) {
            debug_assert!(messages <= balance.messages, "{messages} of {balance:?}");
            balance.messages = balance.messages.saturating_sub(messages);
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            balance.bytes = balance.bytes.saturating_sub(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Epoch = Epoch::new(1);
    const B: Epoch = Epoch::new(2);

    fn credit(messages: usize, bytes: usize) -> Credit {
        Credit { messages, bytes }
    }

    fn granted(messages: usize, bytes: usize) -> FlowTable {
        let mut table = FlowTable::default();
        table.open(A);
        table.grant(A, credit(messages, bytes));
        table
    }

    #[test]
    fn nothing_is_allowed_without_credit_of_both_kinds() {
        let check = |messages, bytes, expect: Option<(usize, usize)>| {
            let expect = expect.map(|(messages, bytes)| Allowance { messages, bytes });
            assert_eq!(granted(messages, bytes).allowance(A, 100), expect);
        };
        check(0, 0, None);
        check(1, 0, None);
        check(0, 1, None);
        check(7, 9, Some((7, 9)));
        check(700, 9, Some((100, 9)));
    }

    #[test]
    fn grants_add_up() {
        let mut table = granted(2, 10);
        table.grant(A, credit(3, 5));
        assert_eq!(table.allowance(A, 100), Some(Allowance { messages: 5, bytes: 15 }));
        table.grant(A, credit(usize::MAX, usize::MAX));
        let allowance = table.allowance(A, usize::MAX).expect("saturated");
        assert_eq!(allowance.messages, usize::MAX);
    }

    #[test]
    fn a_large_message_is_paid_back() {
        let mut table = granted(10, 10);
        table.spend(A, 1, 25);
        assert_eq!(table.allowance(A, 100), None);
        table.grant(A, credit(0, 15));
        assert_eq!(table.allowance(A, 100), None);
        table.grant(A, credit(0, 1));
        assert_eq!(table.allowance(A, 100), Some(Allowance { messages: 9, bytes: 1 }));
    }

    #[test]
    fn a_closed_flow_allows_nothing_and_loses_nothing() {
        let mut table = granted(1, 1);
        table.set_flow(Flow::Closed);
        assert_eq!(table.allowance(A, 100), None);
        table.grant(A, credit(1, 1));
        table.set_flow(Flow::Open);
        assert_eq!(table.allowance(A, 100), Some(Allowance { messages: 2, bytes: 2 }));
    }

    // Promise: RB-2
    #[test]
    fn an_assignment_that_ended_gets_nothing_more() {
        let mut table = granted(1, 1);
        table.close(A);
        table.open(B);
        table.grant(A, credit(5, 5));
        table.spend(A, 1, 1);
        assert_eq!(table.allowance(A, 100), None);
        assert_eq!(table.allowance(B, 100), None);
    }
}
