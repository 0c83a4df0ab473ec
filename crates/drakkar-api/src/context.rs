//! What hooks are given to work with. There are no globals.
//!
//! A probe is given a context whose clients all answer [`ClientError::RefusedInProbe`]; a hook that
//! takes everything from here therefore leaves no trace in a probe (promise PR-1).

use crate::{PartitionId, WindowId, WorkerId};
use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Handed to every hook: who and where we are, and the clients that a hook may use.
///
/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    worker: Arc<WorkerInfo>,
    clients: Arc<Clients>,
    scope: ContextScope,
}

/// What is the same for the whole life of a worker.
#[derive(Clone, Debug)]
pub struct WorkerInfo {
    /// The worker's name.
    pub worker_id: WorkerId,
    /// The group of workers that it belongs to; may be empty.
    pub cluster: String,
    /// The consumer group; may be empty for sources without groups.
    pub consumer_group: String,
}

/// What the present hook call is about.
#[derive(Clone, Debug, Default)]
pub struct ContextScope {
    /// The partition, for hooks that work on one.
    pub partition: Option<PartitionId>,
    /// The window, for hooks that work on one.
    pub window: Option<WindowId>,
    /// Whether this is a probe: nothing may be changed outside.
    pub probe: bool,
}

impl Context {
    /// Puts the parts together; the engine, the probe and tests call this.
    pub fn new(worker: Arc<WorkerInfo>, clients: Arc<Clients>, scope: ContextScope) -> Self {
        Self { worker, clients, scope }
    }

    /// Returns the same context for another scope.
    #[must_use]
    pub fn scoped(&self, scope: ContextScope) -> Self {
        Self { worker: Arc::clone(&self.worker), clients: Arc::clone(&self.clients), scope }
    }

    /// Returns the worker's name.
    pub fn worker_id(&self) -> &WorkerId {
        &self.worker.worker_id
    }

    /// Returns the group of workers; may be empty.
    pub fn cluster(&self) -> &str {
        &self.worker.cluster
    }

    /// Returns the consumer group; may be empty.
    pub fn consumer_group(&self) -> &str {
        &self.worker.consumer_group
    }

    /// Returns the partition that the hook works on; `None` in hooks of the whole worker.
    pub fn partition(&self) -> Option<&PartitionId> {
        self.scope.partition.as_ref()
    }

    /// Returns the window that the hook works on.
    pub fn window(&self) -> Option<WindowId> {
        self.scope.window
    }

    /// Returns whether this is a probe.
    pub fn is_probe(&self) -> bool {
        self.scope.probe
    }

    /// Returns the client of type `T` that was registered under `name`, such as a sink's pool.
    ///
    /// # Errors
    ///
    /// [`ClientError::RefusedInProbe`] in a probe, whatever is registered;
    /// [`ClientError::NotRegistered`] when there is none of this type and name.
    pub fn client<T: Any + Send + Sync>(&self, name: &str) -> Result<Arc<T>, ClientError> {
        if self.scope.probe {
            return Err(ClientError::RefusedInProbe { name: name.to_owned() });
        }
        self.clients.get(name)
    }
}

/// The clients that sinks, and the user, lend to hooks.
#[derive(Default)]
pub struct Clients {
    by_name: BTreeMap<(String, TypeId), Arc<dyn Any + Send + Sync>>,
}

impl Clients {
    /// Makes an empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a client; a second one of the same type and name replaces the first.
    pub fn insert<T: Any + Send + Sync>(&mut self, name: impl Into<String>, client: Arc<T>) {
        self.by_name.insert((name.into(), TypeId::of::<T>()), client);
    }

    fn get<T: Any + Send + Sync>(&self, name: &str) -> Result<Arc<T>, ClientError> {
        let found = self.by_name.get(&(name.to_owned(), TypeId::of::<T>())).map(Arc::clone);
        found.and_then(|client| client.downcast().ok()).ok_or_else(|| ClientError::NotRegistered {
            name: name.to_owned(),
            client_type: std::any::type_name::<T>(),
        })
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.by_name.keys().map(|(name, _)| name)).finish()
    }
}

/// Why a hook did not get a client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// This is a probe; it must leave no trace.
    #[error("client \"{name}\" is refused in a probe")]
    RefusedInProbe {
        /// The name that was asked for.
        name: String,
    },
    /// Nothing of this type and name is registered.
    #[error("no client \"{name}\" of type {client_type} is registered")]
    NotRegistered {
        /// The name that was asked for.
        name: String,
        /// The type that was asked for.
        client_type: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(probe: bool) -> Context {
        let mut clients = Clients::new();
        clients.insert("main", Arc::new(7_u32));
        let worker = WorkerInfo {
            worker_id: WorkerId::new("w1"),
            cluster: String::new(),
            consumer_group: "g".to_owned(),
        };
        let scope = ContextScope { probe, ..ContextScope::default() };
        Context::new(Arc::new(worker), Arc::new(clients), scope)
    }

    #[test]
    fn clients_are_found_by_name_and_type() {
        assert_eq!(*context(false).client::<u32>("main").expect("registered"), 7);
        let error = context(false).client::<u64>("main").expect_err("another type");
        assert!(matches!(error, ClientError::NotRegistered { .. }));
    }

    // Promise: PR-1
    #[test]
    fn a_probe_gets_no_client() {
        let error = context(true).client::<u32>("main").expect_err("a probe");
        assert_eq!(error, ClientError::RefusedInProbe { name: "main".to_owned() });
    }
}
