//! Asking a service, in its own protocol, whether it serves.
//!
//! An open port proves little: a broker listens before it answers, and a stranger may hold the
//! port.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Service;

/// For connecting, for sending and for each read of the answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Succeeds if the service answers a request.
pub(crate) fn probe(service: Service, address: SocketAddr) -> Result<()> {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)
        .with_context(|| format!("failed to connect to {address}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let answer = match service {
        Service::Kafka => kafka(&stream),
        Service::Postgres => postgres(&stream),
        Service::Redis => redis(&stream),
        // Nothing starts it natively yet, and Docker checks the health of its container.
        Service::Mongo => Ok(()),
    };
    answer.with_context(|| format!("{address} does not answer as {service} does"))
}

/// ApiVersions, version 0: the first request of every Kafka client.
fn kafka(mut stream: &TcpStream) -> Result<()> {
    const API_VERSIONS: u16 = 18;
    const CORRELATION: u32 = 0x6472_6b72;
    let mut request = Vec::new();
    request.extend(API_VERSIONS.to_be_bytes());
    request.extend(0u16.to_be_bytes());
    request.extend(CORRELATION.to_be_bytes());
    let client = b"xtask";
    request.extend(u16::try_from(client.len())?.to_be_bytes());
    request.extend(client);
    stream.write_all(&u32::try_from(request.len())?.to_be_bytes())?;
    stream.write_all(&request)?;

    // Length, correlation id, error code; the list of versions that follows does not matter.
    let mut answer = [0; 10];
    stream.read_exact(&mut answer)?;
    ensure!(answer[4..8] == CORRELATION.to_be_bytes(), "the answer is to another request");
    ensure!(answer[8..10] == [0, 0], "the answer is an error");
    Ok(())
}

/// A startup message; the server accepts it (`R`) once it takes connections, and reports an error
/// (`E`) before.
fn postgres(mut stream: &TcpStream) -> Result<()> {
    const PROTOCOL_3_0: u32 = 0x0003_0000;
    let settings = b"user\0postgres\0database\0postgres\0\0";
    stream.write_all(&u32::try_from(8 + settings.len())?.to_be_bytes())?;
    stream.write_all(&PROTOCOL_3_0.to_be_bytes())?;
    stream.write_all(settings)?;
    let mut kind = [0; 1];
    stream.read_exact(&mut kind)?;
    ensure!(kind == *b"R", "it refuses the connection");
    Ok(())
}

fn redis(mut stream: &TcpStream) -> Result<()> {
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    ensure!(answer == *b"+PONG\r\n", "the answer to PING is not PONG");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Probes a fake that reads one request and then gives `answer`; yields the request, too.
    fn check(service: Service, answer: &'static [u8]) -> (Result<()>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let fake = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the probe connects");
            let mut request = [0; 64];
            let len = stream.read(&mut request).expect("the probe asks");
            stream.write_all(answer).expect("the probe listens");
            request[..len].to_vec()
        });
        let result = probe(service, address);
        (result, fake.join().expect("the fake does not panic"))
    }

    #[test]
    fn kafka_is_asked_for_its_versions() {
        let (result, request) = check(Service::Kafka, b"\0\0\0\x0adrkr\0\0\0\0\0\0");
        result.expect("a good answer");
        // The length may arrive by itself, as it is written by itself.
        assert!(request.starts_with(b"\0\0\0\x0f"));
    }

    #[test]
    fn bad_answers_are_refused() {
        for (service, answer) in [
            (Service::Kafka, b"\0\0\0\x0axxxx\0\0\0\0\0\0".as_slice()),
            (Service::Kafka, b"\0\0\0\x0adrkr\0\x23\0\0\0\0"),
            (Service::Kafka, b"HTTP/1.1 400"),
            (Service::Postgres, b"E"),
            (Service::Redis, b"-LOADING"),
        ] {
            assert!(check(service, answer).0.is_err(), "{service} must not answer {answer:?}");
        }
    }

    #[test]
    fn a_closed_port_is_no_service() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        drop(listener);
        assert!(probe(Service::Redis, address).is_err());
    }
}
