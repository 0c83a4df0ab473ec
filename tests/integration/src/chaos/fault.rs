//! What was done to the workers and to the broker, and when.

use std::fmt;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// A worker got SIGKILL.
    Kill,
    /// A worker got SIGTERM and ended as it should.
    Terminate,
    /// A worker was stopped for less than its session.
    Pause,
    /// A worker was stopped for longer than its session.
    Freeze,
    /// The connections of a worker were reset once.
    Reset,
    /// The connections of a worker were reset, and new ones too, for a while.
    Refuse,
    /// Nothing passed the connections of a worker for a while.
    Stall,
    /// The broker ended cleanly and came back.
    BrokerRestart,
    /// The broker got SIGKILL and came back.
    BrokerKill,
}

impl Kind {
    pub(crate) const ALL: [Self; 9] = [
        Self::Kill,
        Self::Terminate,
        Self::Pause,
        Self::Freeze,
        Self::Reset,
        Self::Refuse,
        Self::Stall,
        Self::BrokerRestart,
        Self::BrokerKill,
    ];

    pub(crate) fn is_of_broker(self) -> bool {
        matches!(self, Self::BrokerRestart | Self::BrokerKill)
    }

    /// Whether it can take work by itself from a worker that is not committed yet. An end that was asked
    /// for, a pause within the session and connections that can be made anew at once must not.
    fn can_cause_repeats(self) -> bool {
        !matches!(self, Self::Terminate | Self::Pause | Self::Reset)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "SIGKILL",
            Self::Terminate => "SIGTERM",
            Self::Pause => "short SIGSTOP",
            Self::Freeze => "long SIGSTOP",
            Self::Reset => "connections reset",
            Self::Refuse => "connections refused",
            Self::Stall => "connections stalled",
            Self::BrokerRestart => "broker restart",
            Self::BrokerKill => "broker SIGKILL",
        })
    }
}

/// One fault as it happened. Times are in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// The worker it happened to; `None` for the broker.
    pub(crate) worker: Option<String>,
    pub(crate) from: i64,
    pub(crate) until: i64,
    /// When the worker lost its assignment in a reset of its connections, by its own log.
    pub(crate) lost_at: Option<i64>,
}

impl Fault {
    /// Whether it can take work from a worker that is not committed yet.
    pub(crate) fn can_cause_repeats(&self) -> bool {
        self.kind.can_cause_repeats() || self.lost_at.is_some()
    }

    /// When work of before was still being done or taken away.
    pub(crate) fn end(&self) -> i64 {
        self.lost_at.unwrap_or(self.until)
    }
}
