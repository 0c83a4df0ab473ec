//! Asking a worker's own server.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::port::loopback;

/// For connecting and for each read and write.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The text.
    pub body: String,
}

/// One request, as HTTP/1.0 so that the answer ends with the connection.
pub(crate) fn get(port: u16, path: &str) -> Result<Response> {
    let mut stream = TcpStream::connect_timeout(&loopback(port), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    parse(&answer).with_context(|| format!("the answer to {path} is not HTTP"))
}

fn parse(answer: &str) -> Option<Response> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(Response { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_body_are_told_apart() {
        let answer = "HTTP/1.0 503 Service Unavailable\r\ncontent-length: 5\r\n\r\nno\r\n\r\n";
        let expect = Response { status: 503, body: "no\r\n\r\n".to_owned() };
        assert_eq!(parse(answer), Some(expect));
        for answer in ["", "HTTP/1.1 200 OK\r\n", "SSH-2.0\r\n\r\n", "HTTP/1.1 OK\r\n\r\n"] {
            assert_eq!(parse(answer), None, "{answer}");
        }
    }
}
