//! The small HTTP server of `/metrics`, `/healthz` and `/readyz`.
//!
//! `/readyz?verbose` also tells what the worker stays ready with: whether Kafka answers, and how the
//! last delivery of each sink ended.
//!
//! Limits: 64 connections at once (more wait to be accepted), 5 s and 16 KiB for the head of a request,
//! 30 s for a connection, one request each; bodies are not read. It serves nothing that must be protected: no
//! payloads, no settings.

use crate::health::{Check, Health};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

const CONNECTIONS_MAX: usize = 64;
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
const HEAD_BYTES_MAX: usize = 16 * 1024;
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests that are being answered may take once the server closes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// The wait after a connection could not be accepted, for instance for want of descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What the server tells.
pub(crate) struct Pages {
    /// Makes the page of metrics.
    pub(crate) metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// Whether the worker lives and is ready.
    pub(crate) health: Arc<Health>,
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("health", &self.health).finish_non_exhaustive()
    }
}

/// The address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen on {address} for metrics and health; is the port taken?")]
pub(crate) struct BindError {
    address: SocketAddr,
    source: std::io::Error,
}

/// A running server. Dropping it stops it at once; [`close`](Self::close) lets it finish answers.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    /// Listens on `address` and serves. Port 0 takes any free port.
    ///
    /// # Errors
    ///
    /// When the address cannot be listened on.
    pub(crate) async fn start(address: SocketAddr, pages: Pages) -> Result<Self, BindError> {
        let refuse = |source| BindError { address, source };
        let listener = TcpListener::bind(address).await.map_err(refuse)?;
        let address = listener.local_addr().map_err(refuse)?;
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(accept(listener, Arc::new(pages), stopped));
        Ok(Self { address, stop, task })
    }

    /// Returns the address that it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, and waits a second at most for answers under way.
    pub(crate) async fn close(mut self) {
        self.stop.send_replace(true);
        if tokio::time::timeout(CLOSE_TIMEOUT, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, pages: Arc<Pages>, mut stopped: watch::Receiver<bool>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit.expect("the semaphore is never closed"), listener.accept().await)
        };
        tokio::select! {
            // The order matters: a stop must not wait behind a stream of connections.
            biased;
            () = until_stopped(&mut stopped) => break,
            (permit, accepted) = next => match accepted {
                Ok((stream, _)) => {
                    let serving = serve(stream, Arc::clone(&pages), stopped.clone());
                    connections.spawn(async move {
                        serving.await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(
                        event = "metrics_server_accept_failed",
                        category = "lifecycle",
                        error = %error,
                    );
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            },
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Waits until the server is told to stop, or is dropped.
async fn until_stopped(stopped: &mut watch::Receiver<bool>) {
    drop(stopped.wait_for(|stop| *stop).await);
}

async fn serve(stream: TcpStream, pages: Arc<Pages>, mut stopped: watch::Receiver<bool>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(&pages, request.method(), request.uri());
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let served = async {
        tokio::select! {
            served = connection.as_mut() => served,
            () = until_stopped(&mut stopped) => {
                connection.as_mut().graceful_shutdown();
                connection.as_mut().await
            }
        }
    };
    // A client that goes away, is too slow or talks nonsense is no concern of the worker's.
    drop(tokio::time::timeout(CONNECTION_TIMEOUT, served).await);
}

fn respond(pages: &Pages, method: &Method, uri: &Uri) -> Response<Full<Bytes>> {
    const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
    let path = uri.path();
    if !matches!(path, "/metrics" | "/healthz" | "/readyz") {
        let known = ["/metrics", "/healthz", "/readyz"];
        return json_response(
            StatusCode::NOT_FOUND,
            &json!({"error": "not_found", "known": known}),
        );
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        let body = json!({"error": "method_not_allowed"});
        let mut response = json_response(StatusCode::METHOD_NOT_ALLOWED, &body);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/metrics" => response(StatusCode::OK, METRICS, (pages.metrics)()),
        "/healthz" => healthz(&pages.health),
        _ if is_verbose(uri) => readyz_verbose(&pages.health),
        _ => readyz(&pages.health),
    }
}

fn healthz(health: &Health) -> Response<Full<Bytes>> {
    match health.stalled_for() {
        None => json_response(StatusCode::OK, &json!({"status": "ok"})),
        Some(rested) => {
            let reasons = [format!("source_loop_stalled_for_{}s", rested.as_secs())];
            let body = json!({"status": "stalled", "reasons": reasons});
            json_response(StatusCode::SERVICE_UNAVAILABLE, &body)
        }
    }
}

fn readyz(health: &Health) -> Response<Full<Bytes>> {
    let reasons = health.reasons();
    if reasons.is_empty() {
        return json_response(StatusCode::OK, &json!({"status": "ready"}));
    }
    let body = json!({"status": "not_ready", "reasons": reasons});
    json_response(StatusCode::SERVICE_UNAVAILABLE, &body)
}

/// Whether the query has the parameter `verbose`, whatever its value.
fn is_verbose(uri: &Uri) -> bool {
    let query = uri.query().unwrap_or_default();
    query.split('&').any(|pair| pair.split('=').next() == Some("verbose"))
}

/// Tells each check by its name and state; the status is that of the short form.
fn readyz_verbose(health: &Health) -> Response<Full<Bytes>> {
    let checks = health.checks();
    let is_ready = checks.iter().all(|check| check.is_ok || !check.is_required);
    let checks: Vec<_> = checks
        .iter()
        .map(|Check { name, state, is_ok, is_required }| {
            json!({"name": name, "state": state, "ok": is_ok, "required": is_required})
        })
        .collect();
    let (status, word) = match is_ready {
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
    };
    json_response(status, &json!({"status": word, "checks": checks}))
}

fn json_response(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    response(status, "application/json", body.to_string())
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use drakkar_api::{
        Clock, Event, Instant, Observer, PartitionId, SinkError, SinkErrorKind, SinkId, SinkKind,
        Timestamp,
    };
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[derive(Default)]
    struct HandClock(Mutex<Duration>);

    impl HandClock {
        fn advance(&self, by: Duration) {
            *self.0.lock().expect("no panic") += by;
        }
    }

    impl Clock for HandClock {
        fn now(&self) -> Instant {
            Instant::from_origin(*self.0.lock().expect("no panic"))
        }

        fn wall(&self) -> Timestamp {
            Timestamp::from_millis(0)
        }
    }

    struct World {
        server: Server,
        health: Arc<Health>,
        clock: Arc<HandClock>,
        is_connected: Arc<AtomicBool>,
    }

    async fn world() -> World {
        let clock = Arc::new(HandClock::default());
        let shared: Arc<dyn Clock> = Arc::<HandClock>::clone(&clock);
        let is_connected = Arc::new(AtomicBool::new(true));
        let asked = Arc::clone(&is_connected);
        let is_kafka_connected = Box::new(move || asked.load(SeqCst));
        let health = Health::new(shared, Duration::from_secs(30), is_kafka_connected);
        let health = Arc::new(health);
        let metrics = Box::new(|| "drakkar_build_info 1\n".to_owned());
        let pages = Pages { metrics, health: Arc::clone(&health) };
        let server = Server::start(([127, 0, 0, 1], 0).into(), pages).await.expect("a free port");
        World { server, health, clock, is_connected }
    }

    /// Sends text and answers everything that comes back.
    async fn exchange(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("text");
        answer
    }

    async fn get(world: &World, path: &str) -> (u16, String) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        let answer = exchange(world.server.address(), &request).await;
        let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        (status.expect("a status"), body.expect("a body"))
    }

    #[tokio::test]
    async fn the_routes_answer() {
        let world = world().await;
        let (status, body) = get(&world, "/metrics?x=y").await;
        assert_eq!((status, body.as_str()), (200, "drakkar_build_info 1\n"));
        assert_eq!(get(&world, "/healthz").await, (200, r#"{"status":"ok"}"#.to_owned()));
        let (status, body) = get(&world, "/").await;
        assert_eq!(status, 404);
        assert!(body.contains("not_found"), "{body}");
        let address = world.server.address();
        let answer = exchange(address, "POST /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        assert!(answer.contains("allow: GET, HEAD"), "{answer}");
        let answer = exchange(address, "HEAD /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");
        assert!(answer.contains("text/plain; version=0.0.4"), "{answer}");
        let answer = exchange(address, "nonsense\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        world.server.close().await;
        assert!(TcpStream::connect(address).await.is_err(), "it is closed");
    }

    #[tokio::test]
    async fn the_page_of_metrics_says_what_it_is_whatever_was_asked_for() {
        let world = world().await;
        for accept in [
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily",
            "*/*",
        ] {
            let request = format!("GET /metrics HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\n\r\n");
            let answer = exchange(world.server.address(), &request).await;
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
            let kinds: Vec<_> =
                head.lines().filter_map(|line| line.strip_prefix("content-type: ")).collect();
            assert_eq!(kinds, ["text/plain; version=0.0.4; charset=utf-8"], "{accept}");
            // The other text format ends with a line of its own.
            assert_eq!(body, "drakkar_build_info 1\n", "{accept}");
        }
    }

    #[tokio::test]
    async fn readiness_names_its_reasons_in_order() {
        let world = world().await;
        let sink = SinkId::new(SinkKind::Filesystem, "out");
        let partition = PartitionId::new("in", 3);
        world.health.set_sink(&sink, false);
        world.health.observe(&Event::PartitionFailed {
            partition: &partition,
            reason: "stuck",
            keeps_ready: false,
        });
        let (status, body) = get(&world, "/readyz").await;
        assert_eq!(status, 503);
        let reasons =
            r#"["not_started","sink_filesystem:out_not_connected","partition_in:3_failed: stuck"]"#;
        assert_eq!(body, format!(r#"{{"reasons":{reasons},"status":"not_ready"}}"#));
        world.health.polled();
        world.health.set_sink(&sink, true);
        world.health.observe(&Event::Lost { partition: &partition });
        assert_eq!(get(&world, "/readyz").await, (200, r#"{"status":"ready"}"#.to_owned()));
        world.health.stopping();
        world.health.polled();
        let (status, body) = get(&world, "/readyz").await;
        assert_eq!(status, 503);
        assert!(body.contains(r#"["not_started"]"#), "{body}");
    }

    /// Asks for the long form, and answers the status with each check as `name state`; those that are
    /// not well have `!` in front, with `!!` if the worker is not ready for it.
    async fn verbose(world: &World, path: &str) -> (u16, Vec<String>) {
        let (status, body) = get(world, path).await;
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        let word = if status == 200 { "ready" } else { "not_ready" };
        assert_eq!(body["status"], word);
        let checks = body["checks"].as_array().expect("a list").iter().map(|check| {
            let text = |name: &str| check[name].as_str().expect("text").to_owned();
            let mark = match (check["ok"].as_bool(), check["required"].as_bool()) {
                (Some(true), Some(_)) => "",
                (Some(false), Some(false)) => "!",
                (Some(false), Some(true)) => "!!",
                _ => panic!("{check}"),
            };
            format!("{mark}{} {}", text("name"), text("state"))
        });
        (status, checks.collect())
    }

    #[tokio::test]
    async fn the_long_form_tells_every_check() {
        let world = world().await;
        let sink = &SinkId::new(SinkKind::Kafka, "out");
        let partition = &PartitionId::new("in", 3);
        world.health.set_sink(sink, false);
        world.is_connected.store(false, SeqCst);
        let expect = [
            "!!worker not_started",
            "source_loop resting",
            "!kafka not_connected",
            "partitions 0 assigned",
            "!!sink_kafka:out not_connected",
            "sink_kafka:out_delivery not_tried",
        ];
        assert_eq!(
            verbose(&world, "/readyz?verbose").await,
            (503, expect.map(String::from).into())
        );

        world.is_connected.store(true, SeqCst);
        world.health.observe(&Event::SinkConnected { sink });
        world.health.observe(&Event::Polled);
        world.health.observe(&Event::Rebalance { kind: "assign", partitions: 2, assigned: 2 });
        world.health.observe(&Event::Delivered { sink, payloads: 3, duration: Duration::ZERO });
        let mut expect = [
            "worker started",
            "source_loop turning",
            "kafka connected",
            "partitions 2 assigned",
            "sink_kafka:out connected",
            "sink_kafka:out_delivery confirmed",
        ];
        for path in ["/readyz?verbose", "/readyz?verbose=1", "/readyz?a=b&verbose"] {
            assert_eq!(verbose(&world, path).await, (200, expect.map(String::from).into()));
        }
        let (_, short) = get(&world, "/readyz?verbosely").await;
        assert_eq!(short, r#"{"status":"ready"}"#);

        // What may mend by itself is shown, and the worker stays ready.
        let error = &SinkError::temporary(SinkErrorKind::Timeout, "too slow");
        let failed = Event::DeliveryFailed { sink, payloads: 1, error, attempt: 1 };
        world.health.observe(&failed);
        world.is_connected.store(false, SeqCst);
        world.clock.advance(Duration::from_secs(31));
        expect[1] = "!source_loop stalled_for_31s";
        expect[2] = "!kafka not_connected";
        expect[5] = "!sink_kafka:out_delivery failed: too slow";
        let answer = verbose(&world, "/readyz?verbose").await;
        assert_eq!(answer, (200, expect.map(String::from).into()));

        world.health.observe(&Event::Delivered { sink, payloads: 0, duration: Duration::ZERO });
        world.health.observe(&Event::PartitionFailed {
            partition,
            reason: "stuck",
            keeps_ready: false,
        });
        let (status, checks) = verbose(&world, "/readyz?verbose").await;
        assert_eq!(status, 503);
        assert_eq!(checks[5], expect[5], "nothing was delivered");
        assert_eq!(checks[6..], ["!!partition_in:3 failed: stuck"]);
    }

    #[tokio::test]
    async fn a_loop_that_rests_too_long_is_dead() {
        let world = world().await;
        world.clock.advance(Duration::from_secs(100));
        assert_eq!(get(&world, "/healthz").await.0, 200, "it has not begun");
        world.health.polled();
        world.clock.advance(Duration::from_secs(29));
        assert_eq!(get(&world, "/healthz").await.0, 200);
        world.clock.advance(Duration::from_secs(2));
        let (status, body) = get(&world, "/healthz").await;
        assert_eq!(status, 503);
        assert!(body.contains("source_loop_stalled_for_31s"), "{body}");
        world.health.polled();
        assert_eq!(get(&world, "/healthz").await.0, 200);
        world.health.stopping();
        world.clock.advance(Duration::from_secs(100));
        assert_eq!(get(&world, "/healthz").await.0, 200, "a drain may take its time");
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_named() {
        let world = world().await;
        let address = world.server.address();
        let pages = Pages { metrics: Box::new(String::new), health: Arc::clone(&world.health) };
        let error = Server::start(address, pages).await.expect_err("it is taken");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }

    #[tokio::test]
    async fn silent_clients_do_not_hold_up_a_close() {
        let world = world().await;
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS_MAX + 4 {
            idle.push(TcpStream::connect(world.server.address()).await.expect("accepted"));
        }
        // With every place taken nobody else is answered, and nobody is turned away.
        let request = exchange(world.server.address(), "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
        assert!(tokio::time::timeout(Duration::from_millis(50), request).await.is_err());
        idle.truncate(10);
        assert_eq!(get(&world, "/healthz").await.0, 200);
        let closed = tokio::time::timeout(Duration::from_secs(5), world.server.close()).await;
        assert!(closed.is_ok(), "a close has a deadline");
    }
}
