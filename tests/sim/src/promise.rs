//! The promises that the simulation watches over, under the names of `docs/guarantees.md`.

use std::fmt;

/// What can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// An offset is finished only when everything that its message produced is settled.
    Dl1,
    /// Outputs of the hooks of messages and windows count as outputs of their messages.
    Dl2,
    /// A retry sends again what is not confirmed, and only that.
    Dl3,
    /// Dead letters are complete, and held until they are written.
    Dl4,
    /// The committed offset passes nothing unfinished and never goes back.
    Wm1,
    /// One commit in flight; commits are coalesced, and do come.
    Wm2,
    /// What a revoke, a loss and a shutdown do to started and unstarted work.
    Rb1,
    /// Nothing of an older assignment has any effect.
    Rb2,
    /// Partitions that stay go on.
    Rb3,
    /// Nothing stops a partition silently.
    Ft1,
    /// Every wait on the outside has a deadline.
    Ft2,
    /// Everything kept has a bound.
    Ft3,
    /// What the engine tells of its work agrees with what was seen of it.
    Account,
    /// What one part of the engine owes another, as the fakes check it.
    Contract,
}

impl Promise {
    /// Every promise.
    pub const ALL: [Self; 14] = [
        Self::Dl1,
        Self::Dl2,
        Self::Dl3,
        Self::Dl4,
        Self::Wm1,
        Self::Wm2,
        Self::Rb1,
        Self::Rb2,
        Self::Rb3,
        Self::Ft1,
        Self::Ft2,
        Self::Ft3,
        Self::Account,
        Self::Contract,
    ];

    /// Returns the name in `docs/guarantees.md`; the last two stand for no promise there.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dl1 => "DL-1",
            Self::Dl2 => "DL-2",
            Self::Dl3 => "DL-3",
            Self::Dl4 => "DL-4",
            Self::Wm1 => "WM-1",
            Self::Wm2 => "WM-2",
            Self::Rb1 => "RB-1",
            Self::Rb2 => "RB-2",
            Self::Rb3 => "RB-3",
            Self::Ft1 => "FT-1",
            Self::Ft2 => "FT-2",
            Self::Ft3 => "FT-3",
            Self::Account => "account",
            Self::Contract => "contract",
        }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A promise that was broken, and how that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// Which.
    pub promise: Promise,
    /// What happened that must not, or did not that must.
    pub what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.what)
    }
}
