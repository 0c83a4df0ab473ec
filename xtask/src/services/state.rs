//! What is remembered of a service between two runs of xtask.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Provider;
use crate::process::ProcessIdentity;

/// A service that was brought up and not yet taken down; its process may have died since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    pub(crate) provider: Provider,
    /// Where clients connect.
    pub(crate) address: SocketAddr,
    /// Present exactly for the native provider.
    pub(crate) native: Option<NativeState>,
}

/// What only a native service has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NativeState {
    pub(crate) process: ProcessIdentity,
    /// Every port that it was given, the one of `address` first.
    pub(crate) ports: Vec<u16>,
    pub(crate) data: PathBuf,
}
