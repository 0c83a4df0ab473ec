//! The only way from workers to the broker, which can be cut for one worker at a time.
//!
//! The broker has a listener of its own for this, which sends clients back to the proxy's port, so
//! that nothing goes past it. Whose a connection is stands in the client id of its first request.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::net::sockopt::set_socket_linger;

/// What the client of a worker calls itself, before the worker's name.
const CLIENT_PREFIX: &str = "drakkar-";

/// The least that a connection must send to say whose it is: size, request, version and number of
/// the request, and the length of the client's id.
const HEAD_BYTES: usize = 14;

/// The longest client id that is believed.
const CLIENT_ID_BYTES_MAX: usize = 256;

const CHUNK_BYTES: usize = 64 * 1024;

/// For a connection to say whose it is, and for the broker to take it.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// What becomes of a worker's connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Way {
    #[default]
    Open,
    /// Nothing is passed on; connections stay.
    Stalled,
    /// Every new connection is reset.
    Refused,
}

/// The way of one worker.
#[derive(Debug, Default)]
struct Link {
    state: Mutex<LinkState>,
    changed: Condvar,
    bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct LinkState {
    way: Way,
    connections: Vec<Arc<Connection>>,
}

/// A worker's connection, and the one to the broker that belongs to it.
#[derive(Debug)]
struct Connection {
    client: TcpStream,
    upstream: TcpStream,
    is_reset: AtomicBool,
}

/// A proxy that listens until the process ends.
#[derive(Debug)]
pub(crate) struct Proxy {
    links: Arc<BTreeMap<String, Arc<Link>>>,
    address: SocketAddr,
}

impl Proxy {
    /// Begins to listen for workers whose names begin with these words and a dash.
    pub(crate) fn start(
        listen: SocketAddr,
        broker: SocketAddr,
        workers: impl IntoIterator<Item = String>,
    ) -> Result<Self> {
        let links: BTreeMap<_, Arc<Link>> =
            workers.into_iter().map(|worker| (worker, Arc::default())).collect();
        let links = Arc::new(links);
        let listener = TcpListener::bind(listen)
            .with_context(|| format!("the proxy cannot listen on {listen}"))?;
        let address = listener.local_addr()?;
        let known = Arc::clone(&links);
        thread::Builder::new().name("proxy".to_owned()).spawn(move || {
            for client in listener.incoming().flatten() {
                let known = Arc::clone(&known);
                let serve = move || serve(client, broker, &known);
                // A connection that cannot be served is closed, which is what a network does.
                drop(thread::Builder::new().name("proxy-client".to_owned()).spawn(serve));
            }
        })?;
        Ok(Self { links, address })
    }

    /// Where workers connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what becomes of a worker's connections from now on.
    pub(crate) fn set(&self, worker: &str, way: Way) -> Result<()> {
        let link = self.link(worker)?;
        let mut state = link.lock();
        state.way = way;
        if way == Way::Refused {
            state.reset();
        }
        link.changed.notify_all();
        Ok(())
    }

    /// Resets the connections that a worker has.
    pub(crate) fn reset(&self, worker: &str) -> Result<()> {
        self.link(worker)?.lock().reset();
        Ok(())
    }

    /// How much has been passed on for a worker, both ways.
    pub(crate) fn bytes(&self, worker: &str) -> Result<u64> {
        Ok(self.link(worker)?.bytes.load(Ordering::Relaxed))
    }

    fn link(&self, worker: &str) -> Result<&Link> {
        let link = self.links.get(worker).with_context(|| format!("no worker {worker}"))?;
        Ok(link)
    }
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, LinkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something may pass; says whether it may at all.
    fn pass(&self) -> bool {
        let state = self.lock();
        let stalled = |state: &mut LinkState| state.way == Way::Stalled;
        let state = self.changed.wait_while(state, stalled);
        state.unwrap_or_else(PoisonError::into_inner).way == Way::Open
    }

    /// Remembers a connection, so that it can be reset; says no when it is to be refused.
    fn enter(&self, connection: &Arc<Connection>) -> bool {
        let mut state = self.lock();
        let may_enter = state.way != Way::Refused;
        if may_enter {
            state.connections.push(Arc::clone(connection));
        }
        may_enter
    }

    fn leave(&self, connection: &Arc<Connection>) {
        self.lock().connections.retain(|it| !Arc::ptr_eq(it, connection));
    }
}

impl LinkState {
    fn reset(&mut self) {
        for connection in self.connections.drain(..) {
            connection.is_reset.store(true, Ordering::SeqCst);
            for stream in [&connection.client, &connection.upstream] {
                reset_when_closed(stream);
                // Wakes who reads from it. Either may have ended already.
                stream.shutdown(Shutdown::Read).ok();
            }
        }
    }
}

/// Lets the other side see a reset, as of a firewall, and no orderly end, when the stream is closed.
fn reset_when_closed(stream: &TcpStream) {
    // One that has ended already cannot be reset any more.
    set_socket_linger(stream, Some(Duration::ZERO)).ok();
}

/// Serves one connection to its end. Its errors end it, and that is all that a client may see.
fn serve(
    mut client: TcpStream,
    broker: SocketAddr,
    links: &BTreeMap<String, Arc<Link>>,
) -> Result<()> {
    client.set_read_timeout(Some(OPEN_TIMEOUT))?;
    let (worker, head) = first_request(&mut client)?;
    client.set_read_timeout(None)?;
    let owner = links.iter().find(|(name, _)| belongs_to(&worker, name));
    let (_, link) = owner.with_context(|| format!("a connection of a stranger, {worker}"))?;
    if !link.pass() {
        reset_when_closed(&client);
        return Ok(());
    }
    let mut upstream = TcpStream::connect_timeout(&broker, OPEN_TIMEOUT)?;
    for stream in [&client, &upstream] {
        stream.set_nodelay(true)?;
    }
    upstream.write_all(&head)?;
    let connection = Arc::new(Connection { client, upstream, is_reset: AtomicBool::new(false) });
    if !link.enter(&connection) {
        reset_when_closed(&connection.client);
        return Ok(());
    }
    let (of_back, link_of_back) = (Arc::clone(&connection), Arc::clone(link));
    let back = thread::Builder::new().name("proxy-back".to_owned()).spawn(move || {
        copy(&of_back.upstream, &of_back.client, &of_back, &link_of_back);
    });
    copy(&connection.client, &connection.upstream, &connection, link);
    link.leave(&connection);
    drop(back?.join());
    Ok(())
}

/// Passes bytes on until one side ends, then ends the other one, too.
fn copy(mut from: &TcpStream, mut to: &TcpStream, connection: &Connection, link: &Link) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        if !link.pass() || to.write_all(&chunk[..count]).is_err() {
            break;
        }
        link.bytes.fetch_add(u64::try_from(count).unwrap_or(0), Ordering::Relaxed);
    }
    // What was reset is only closed: an orderly end before would be all that the other side sees.
    if !connection.is_reset.load(Ordering::SeqCst) {
        // Either may have ended already; that both are is all that matters.
        from.shutdown(Shutdown::Both).ok();
        to.shutdown(Shutdown::Both).ok();
    }
}

/// Whether the client id is that of a process of the worker.
fn belongs_to(client_id: &str, worker: &str) -> bool {
    let name = client_id.strip_prefix(CLIENT_PREFIX).and_then(|it| it.strip_prefix(worker));
    name.is_some_and(|rest| rest.starts_with('-'))
}

/// Reads the client id of a connection's first request, and what was read for it.
fn first_request(client: &mut TcpStream) -> Result<(String, Vec<u8>)> {
    let mut head = vec![0; HEAD_BYTES];
    client.read_exact(&mut head)?;
    let length = usize::try_from(i16::from_be_bytes([head[12], head[13]]));
    let length = length.context("a request without a client id")?;
    ensure!(length <= CLIENT_ID_BYTES_MAX, "a client id of {length} bytes");
    head.resize(HEAD_BYTES + length, 0);
    client.read_exact(&mut head[HEAD_BYTES..])?;
    Ok((String::from_utf8_lossy(&head[HEAD_BYTES..]).into_owned(), head))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::loopback;

    /// The head of a request of a worker's client.
    fn head(client_id: &str) -> Vec<u8> {
        let mut head = vec![0; 12];
        head.extend(i16::try_from(client_id.len()).expect("short").to_be_bytes());
        head.extend(client_id.as_bytes());
        head
    }

    /// A broker that sends back what it gets, and a proxy before it.
    fn proxy() -> Proxy {
        let listener = TcpListener::bind(loopback(0)).expect("a port");
        let broker = listener.local_addr().expect("an address");
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut back = stream.try_clone().expect("a socket");
                    std::io::copy(&mut &stream, &mut back)
                });
            }
        });
        let workers = ["w1".to_owned(), "w10".to_owned()];
        Proxy::start(loopback(0), broker, workers).expect("a port")
    }

    fn connect(proxy: &Proxy, client_id: &str) -> TcpStream {
        let mut stream = TcpStream::connect(proxy.address()).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
        stream.write_all(&head(client_id)).expect("sent");
        stream
    }

    fn expect_echo(stream: &mut TcpStream, sent: &[u8]) {
        let mut got = vec![0; sent.len()];
        stream.read_exact(&mut got).expect("an echo");
        assert_eq!(got, sent);
    }

    fn is_gone(stream: &mut TcpStream) -> bool {
        match stream.read(&mut [0; 1]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    #[test]
    fn bytes_pass_and_are_counted_for_their_worker() {
        let proxy = proxy();
        let mut stream = connect(&proxy, "drakkar-w10-3");
        expect_echo(&mut stream, &head("drakkar-w10-3"));
        stream.write_all(b"more").expect("sent");
        expect_echo(&mut stream, b"more");
        assert!(proxy.bytes("w10").expect("known") > 0);
        assert_eq!(proxy.bytes("w1").expect("known"), 0);
    }

    #[test]
    fn a_stranger_gets_nowhere() {
        let proxy = proxy();
        assert!(is_gone(&mut connect(&proxy, "rdkafka")));
        assert!(is_gone(&mut connect(&proxy, "drakkar-w2-1")));
    }

    #[test]
    fn a_stalled_way_holds_everything_back_until_it_is_open() {
        let proxy = proxy();
        let mut stream = connect(&proxy, "drakkar-w1-1");
        expect_echo(&mut stream, &head("drakkar-w1-1"));
        proxy.set("w1", Way::Stalled).expect("known");
        stream.write_all(b"late").expect("sent");
        let mut waiting = connect(&proxy, "drakkar-w1-2");
        stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a socket");
        stream.read(&mut [0; 1]).expect_err("nothing passes");
        // The other worker does not notice.
        expect_echo(&mut connect(&proxy, "drakkar-w10-1"), &head("drakkar-w10-1"));
        proxy.set("w1", Way::Open).expect("known");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
        expect_echo(&mut stream, b"late");
        expect_echo(&mut waiting, &head("drakkar-w1-2"));
    }

    #[test]
    fn a_reset_ends_what_is_there_and_a_refusal_what_comes_too() {
        let proxy = proxy();
        let mut stream = connect(&proxy, "drakkar-w1-1");
        expect_echo(&mut stream, &head("drakkar-w1-1"));
        proxy.reset("w1").expect("known");
        assert!(is_gone(&mut stream));
        let mut stream = connect(&proxy, "drakkar-w1-1");
        expect_echo(&mut stream, &head("drakkar-w1-1"));
        proxy.set("w1", Way::Refused).expect("known");
        assert!(is_gone(&mut stream));
        assert!(is_gone(&mut connect(&proxy, "drakkar-w1-1")));
        proxy.set("w1", Way::Open).expect("known");
        expect_echo(&mut connect(&proxy, "drakkar-w1-1"), &head("drakkar-w1-1"));
    }
}
