//! Ports on loopback that nobody listens on.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

/// Below what the kernel gives to outgoing connections, and below the services' own ports, one of
/// which is free while a test has killed the broker.
const RANGE: Range<u16> = 10_000..20_000;

/// How many ports were handed out or found taken.
static TRIED: AtomicU32 = AtomicU32::new(0);

/// Finds a port that no test of this process has had before.
///
/// Somebody else may take it meanwhile; the worker then fails to start and says so.
///
/// # Errors
///
/// All are taken.
pub fn closed_port() -> Result<u16> {
    let span = u32::from(RANGE.end - RANGE.start);
    // 7919 is a prime, so neighbouring process ids begin far apart.
    let first = process::id().wrapping_mul(7919) % span;
    for _ in 0..span {
        let step = TRIED.fetch_add(1, Ordering::Relaxed) % span;
        let port = RANGE.start + u16::try_from((first + step) % span)?;
        if TcpListener::bind(loopback(port)).is_ok() {
            return Ok(port);
        }
    }
    None.context("no free port on loopback")
}

pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        let ports = [closed_port().expect("a port"), closed_port().expect("a port")];
        assert_ne!(ports[0], ports[1]);
        assert!(ports.iter().all(|port| RANGE.contains(port)));
    }
}
