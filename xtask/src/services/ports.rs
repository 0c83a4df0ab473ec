//! Free ports on loopback.
//!
//! They are taken from below the range that the kernel gives to outgoing connections. Otherwise,
//! while a killed broker is away, a client that keeps connecting to its port could be given that
//! very port and talk to itself.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::process;

use anyhow::{Context, Result};

/// Ends well below Linux' default `ip_local_port_range`, which begins at 32768.
const RANGE: Range<u16> = 20_000..32_000;

/// The loopback address with a port.
pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Finds ports that nobody listens on.
///
/// Somebody else may take one before the service does; the service then fails to start and says so.
/// Where the search begins depends on this process, so that two runs at the same time rarely meet.
pub(crate) fn free(count: usize) -> Result<Vec<u16>> {
    let span = u32::from(RANGE.end - RANGE.start);
    // 7919 is a prime, so neighbouring process ids begin far apart.
    let first = process::id().wrapping_mul(7919) % span;
    let candidates = (0..span).filter_map(|step| u16::try_from((first + step) % span).ok());
    // Held together until all are found, so that no port is found twice.
    let listeners: Vec<TcpListener> =
        candidates.filter_map(|at| listen(RANGE.start + at)).take(count).collect();
    let ports = listeners.iter().map(|listener| Ok(listener.local_addr()?.port()));
    let ports: Vec<u16> = ports.collect::<Result<_>>()?;
    (ports.len() == count).then_some(ports).context("no free port on loopback")
}

/// Says whether nobody listens on any of the ports.
pub(crate) fn are_free(ports: &[u16]) -> bool {
    ports.iter().all(|port| listen(*port).is_some())
}

fn listen(port: u16) -> Option<TcpListener> {
    TcpListener::bind(loopback(port)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_distinct_and_free() {
        let ports = free(3).expect("there are free ports");
        assert!(ports[0] != ports[1] && ports[1] != ports[2] && ports[0] != ports[2]);
        assert!(ports.iter().all(|port| RANGE.contains(port)));
    }

    #[test]
    fn a_port_in_use_is_not_free() {
        let holder = TcpListener::bind(loopback(0)).expect("a free port");
        let taken = holder.local_addr().expect("bound").port();
        assert!(!are_free(&[taken]));
    }
}
