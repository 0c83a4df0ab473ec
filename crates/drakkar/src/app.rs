//! The application: wires a handler to the parts that the configuration names, and runs it.

use crate::align;
use crate::config::{Config, ConfigError, Draft};
use crate::cpus;
use crate::error::{Error, ErrorKind};
use crate::exit::{self, Emergency};
use crate::health::Health;
use crate::logging::{self, LineIdentity};
use crate::observers::Observers;
use crate::parts::Parts;
use crate::server::{Pages, Server};
use crate::signals::{self, Signals};
use crate::telemetry::{
    Exposition, Gauges, Identity, LogObserver, MetricsObserver, install_recorder, keep_up,
};
use crate::watchdog::Watchdog;
use drakkar_api::{
    Clients, Clock, Context, ContextScope, Executor, Handler, HookResult, Observer, Sink, WorkerId,
    WorkerInfo,
};
use drakkar_core::{
    AnySink, Engine, EngineParts, LoadGauge, PeriodicErrorPolicy, PeriodicTask, TokioClock,
    ZeroInterval,
};
use drakkar_exec::{Cpus, ProcessPool};
use drakkar_source_kafka::KafkaSource;
use std::any::Any;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::task::JoinSet;

/// How long the source's loop may rest before `/healthz` fails, beyond what a revoke may take.
const STALL_MARGIN: Duration = Duration::from_secs(30);

type OnStartup = Box<dyn FnOnce(&mut Config) -> HookResult<()> + Send>;
type MakePeriodic<H> = Box<dyn FnOnce(Arc<H>, Context) -> PeriodicTask + Send>;

/// A pipeline and how it is run.
///
/// ```no_run
/// use drakkar::prelude::*;
/// use std::process::ExitCode;
///
/// struct Nothing;
///
/// impl Handler for Nothing {
///     type Input = RawInput;
///
///     async fn arrange(&self, _window: &Window<RawInput>, _cx: &Context) -> Result<Vec<Task>> {
///         Ok(Vec::new())
///     }
/// }
///
/// #[tokio::main]
/// async fn main() -> ExitCode {
///     App::new(Nothing).config_file("drakkar.yaml").run_to_exit_code().await
/// }
/// ```
pub struct App<H> {
    handler: Arc<H>,
    source: ConfigSource,
    worker_name: Option<String>,
    on_startup: Option<OnStartup>,
    periodic: Vec<MakePeriodic<H>>,
    /// The first periodic task that would run without a pause.
    zero_interval: Option<ZeroInterval>,
    sinks: Vec<AnySink>,
    clients: Clients,
    observers: Vec<Arc<dyn Observer>>,
}

impl<H> fmt::Debug for App<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("sinks", &self.sinks).finish_non_exhaustive()
    }
}

/// Where the configuration comes from.
enum ConfigSource {
    /// `DRAKKAR_CONFIG`, or the environment alone.
    Environment,
    File(PathBuf),
    Given(Box<Config>),
}

impl<H: Handler> App<H> {
    /// Begins with a handler and the configuration that `DRAKKAR_CONFIG` names.
    pub fn new(handler: H) -> Self {
        Self {
            handler: Arc::new(handler),
            source: ConfigSource::Environment,
            worker_name: None,
            on_startup: None,
            periodic: Vec::new(),
            zero_interval: None,
            sinks: Vec::new(),
            clients: Clients::new(),
            observers: Vec::new(),
        }
    }

    /// Reads this file, overridden by `DRAKKAR_` variables.
    #[must_use]
    pub fn config_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.source = ConfigSource::File(path.into());
        self
    }

    /// Takes this configuration; neither file nor environment is read.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.source = ConfigSource::Given(Box::new(config));
        self
    }

    /// Names the worker, whatever the environment says.
    #[must_use]
    pub fn worker_name(mut self, name: impl Into<String>) -> Self {
        self.worker_name = Some(name.into());
        self
    }

    /// Lets `change` change the loaded configuration before anything starts, say to size the pool by
    /// the CPUs that the worker may use. The result is checked again. It is not called when the file has
    /// problems.
    ///
    /// ```
    /// # use drakkar::prelude::*;
    /// # fn sized<H: Handler>(app: App<H>) -> App<H> {
    /// app.on_startup(|config| {
    ///     config.set("executor.max_executors", drakkar::Cpus::available().count())?;
    ///     Ok(())
    /// })
    /// # }
    /// ```
    #[must_use]
    pub fn on_startup(
        mut self,
        change: impl FnOnce(&mut Config) -> HookResult<()> + Send + 'static,
    ) -> Self {
        self.on_startup = Some(Box::new(change));
        self
    }

    /// Runs `task` every so often while the worker lives: first after `every`, then `every` after the
    /// end of each run. An error is logged and counted, and the task goes on. An interval of zero is an
    /// error of [`run`](Self::run).
    #[must_use]
    pub fn periodic<F>(
        self,
        name: impl Into<String>,
        every: Duration,
        task: impl Fn(Arc<H>, Context) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = HookResult<()>> + Send + 'static,
    {
        self.periodic_with(name, every, PeriodicErrorPolicy::Continue, task)
    }

    /// The same, with a choice of what an error does.
    #[must_use]
    pub fn periodic_with<F>(
        mut self,
        name: impl Into<String>,
        every: Duration,
        on_error: PeriodicErrorPolicy,
        task: impl Fn(Arc<H>, Context) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = HookResult<()>> + Send + 'static,
    {
        let name = name.into();
        if every.is_zero() {
            self.zero_interval.get_or_insert(ZeroInterval { name: name.clone() });
        }
        self.periodic.push(Box::new(move |handler, context| PeriodicTask {
            name,
            interval: every,
            on_error,
            run: Box::new(move || Box::pin(task(Arc::clone(&handler), context.clone()))),
        }));
        self
    }

    /// Adds a sink of your own beside those of the configuration.
    #[must_use]
    pub fn sink(mut self, sink: impl Sink) -> Self {
        self.sinks.push(AnySink::new(sink));
        self
    }

    /// Lends hooks a client of your own, found by [`Context::client`]; in a probe it is refused.
    #[must_use]
    pub fn client<T: Any + Send + Sync>(mut self, name: impl Into<String>, client: Arc<T>) -> Self {
        self.clients.insert(name, client);
        self
    }

    /// Adds an observer, which hears of every event in the pipeline's own threads.
    #[must_use]
    pub fn observer<O: Observer>(mut self, observer: Arc<O>) -> Self {
        self.observers.push(observer);
        self
    }

    /// Runs until SIGTERM or SIGINT, then drains and ends. A second signal ends the process at once
    /// with code 130, also while hooks block all threads of the runtime. SIGHUP has the file of the log
    /// opened anew, if the log goes to one. After the end all signals do again what they do by default.
    ///
    /// # Errors
    ///
    /// When the configuration is wrong, something cannot start, or the source ends by itself. Nothing
    /// is left running then.
    pub async fn run(self) -> Result<(), Error> {
        let emergency = Arc::new(Emergency::default());
        let signals = Signals::install(Arc::clone(&emergency))
            .map_err(|error| Error::io("failed to listen for signals", error))?;
        self.run_inner(signals.first(), &emergency).await
    }

    /// Runs until `shutdown` is ready, then drains and ends. Signals are the caller's affair.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        self.run_inner(shutdown, &Emergency::default()).await
    }

    /// Runs as [`run`](Self::run) does, writes an error to standard error, and answers the exit code
    /// of the documented table. The program is expected to end then: if it has not within 5 s, because
    /// a thread is blocked, say, the process ends with that code.
    pub async fn run_to_exit_code(self) -> ExitCode {
        exit::report(self.run().await)
    }

    /// Loads the configuration, lets the program change it, and makes the parts. Everything that is
    /// wrong is reported at once; what cannot be loaded is not given to the program.
    fn check(&mut self) -> Result<(Config, WorkerId, Parts), Error> {
        let source = std::mem::replace(&mut self.source, ConfigSource::Environment);
        let Draft { mut config, mut problems } = load(source)?;
        let change = self.on_startup.take();
        let may_add_sinks = change.is_some() && !problems.is_empty();
        if let Some(change) = change.filter(|_| problems.is_empty()) {
            change(&mut config).map_err(|error| Error::hook("on_startup", error))?;
            config.check_together(&mut problems);
        }
        if self.sinks.is_empty() && !may_add_sinks {
            config.check_sinks(&mut problems);
        }
        if self.worker_name.is_none() && config.given_worker_name().is_none() {
            config.check_nameless(&mut problems);
        }
        let worker = self.worker_name.take().unwrap_or_else(|| config.worker_name().to_owned());
        let worker = WorkerId::new(worker);
        let parts = Parts::new(&config, &worker, problems)
            .map_err(|all| ConfigError::from_problems(config.file(), all))?;
        Ok((config, worker, parts))
    }

    async fn run_inner(
        mut self,
        shutdown: impl Future<Output = ()>,
        emergency: &Emergency,
    ) -> Result<(), Error> {
        if let Some(error) = self.zero_interval {
            return Err(Error::start("periodic", error));
        }
        let (config, worker, parts) = self.check()?;
        let info = WorkerInfo {
            worker_id: worker.clone(),
            cluster: config.cluster_name().to_owned(),
            consumer_group: parts.source.group().to_owned(),
        };
        let identity = LineIdentity {
            worker_id: worker.to_string(),
            consumer_group: info.consumer_group.clone(),
            cluster_name: info.cluster.clone(),
        };
        let log = logging::init(&config.logging(), identity)
            .map_err(|error| Error::start("logging", error))?;
        emergency.keep_log(log);
        signals::reopen_log_at_hangup()
            .map_err(|error| Error::io("failed to listen for signals", error))?;
        tell_start(&config, &worker);
        // Boxed, because it holds all parts at some time, and its callers would have to move it.
        let running = Box::pin(self.run_checked(&config, parts, info, shutdown, emergency));
        let result = running.await;
        match &result {
            Ok(()) => tracing::info!(category = "lifecycle", "drakkar_stopped"),
            Err(error) => tracing::error!(category = "lifecycle", ?error, "drakkar_failed"),
        }
        emergency.write_out_log();
        result
    }

    /// Starts the parts and runs them to the end.
    async fn run_checked(
        self,
        config: &Config,
        parts: Parts,
        info: WorkerInfo,
        shutdown: impl Future<Output = ()>,
        emergency: &Emergency,
    ) -> Result<(), Error> {
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
        let pool =
            ProcessPool::start(parts.pool).map_err(|error| Error::start("executor", error))?;
        let pool = Arc::new(pool);
        emergency.keep_pool(&pool);
        cpus::tell_shortage(pool.slots().total, Cpus::available());
        let recorder = install_recorder();
        let source = KafkaSource::new(parts.client, parts.source, &info.worker_id);
        let identity = Identity {
            worker_id: info.worker_id.to_string(),
            consumer_group: info.consumer_group.clone(),
        };
        let load = Arc::<OnceLock<LoadGauge>>::default();
        let gauges = gauges(&pool, &source, Arc::clone(&load));
        let metrics = Arc::new(MetricsObserver::new(identity, Arc::clone(&clock), gauges));
        let log_observer = LogObserver::new(Arc::clone(&clock), config.slow_task_duration());
        let log_observer = Arc::new(log_observer);
        let stall_limit = parts.engine.drain_timeout + STALL_MARGIN;
        let connection = source.gauges();
        let is_connected = Box::new(move || connection.is_connected());
        let health = Arc::new(Health::new(Arc::clone(&clock), stall_limit, is_connected));
        let mut sinks = parts.sinks;
        sinks.extend(self.sinks);
        for sink in &sinks {
            health.set_sink(sink.id(), false);
            metrics.register_sink(sink.id());
        }
        health.set_sink(parts.dead_letters.id(), false);
        tell_sinks(&sinks);
        let exposition = Exposition::new(recorder, Arc::clone(&metrics));
        let server = serve(config, exposition.clone(), &health).await?;
        let mut background = keep_up(Arc::clone(&metrics), Arc::clone(&log_observer), exposition);

        let mut observers: Vec<Arc<dyn Observer>> =
            vec![metrics, log_observer, Arc::<Health>::clone(&health)];
        observers.extend(self.observers);
        let observer: Arc<dyn Observer> = Arc::new(Observers::new(observers));
        let connected = sinks.iter().chain([&parts.dead_letters]);
        let connected: Vec<_> = connected.map(|sink| sink.id().clone()).collect();
        let engine_parts = EngineParts {
            handler: Arc::clone(&self.handler),
            source: Arc::new(source),
            executor: Arc::<ProcessPool>::clone(&pool),
            sinks,
            dead_letters: parts.dead_letters,
            observer: Arc::clone(&observer),
            worker: info,
            clients: self.clients,
            config: parts.engine,
        };
        let shutdown = async {
            shutdown.await;
            health.stopping();
            tracing::info!(category = "lifecycle", "drakkar_shutting_down");
        };
        tokio::pin!(shutdown);
        let mut watchdog = None;
        let watch = |status| watchdog = Watchdog::start_or_warn(status);
        let connecting =
            Engine::connect_until(engine_parts, Arc::clone(&clock), watch, shutdown.as_mut());
        let Some(engine) = connecting.await? else { return Ok(()) };
        load.get_or_init(|| engine.load_gauge());
        let context = engine.context().scoped(ContextScope::default());
        let mut periodic = JoinSet::new();
        for make in self.periodic {
            let task = make(Arc::clone(&self.handler), context.clone());
            tracing::info!(category = "periodic", name = task.name, "periodic_task_started");
            let calls = engine.status().watched_calls();
            periodic.spawn(task.run_forever(Arc::clone(&observer), Arc::clone(&clock), calls));
        }
        let shutdown = async {
            shutdown.await;
            periodic.abort_all();
        };
        let aligned = align::wait(config, clock.as_ref());
        let result = engine.run(aligned, shutdown).await;
        drop(watchdog);
        for sink in &connected {
            health.set_sink(sink, false);
        }
        if let Some(server) = server {
            server.close().await;
        }
        background.abort_all();
        result.map_err(Error::from)
    }
}

fn load(source: ConfigSource) -> Result<Draft, ConfigError> {
    match source {
        ConfigSource::Environment => Config::draft(None),
        ConfigSource::File(path) => Config::draft(Some(&path)),
        ConfigSource::Given(config) => Ok(Draft::from_program(*config)),
    }
}

fn tell_start(config: &Config, worker: &WorkerId) {
    let summary = config.summary_line(worker.as_str());
    tracing::info!(category = "lifecycle", summary, "drakkar_starting");
    for warning in config.warnings() {
        tracing::warn!(category = "lifecycle", warning, "config_warning");
    }
}

fn tell_sinks(sinks: &[AnySink]) {
    let names: Vec<_> = sinks.iter().map(|sink| sink.id().to_string()).collect();
    let sinks = names.join(" ");
    tracing::info!(category = "sink", sinks, "sinks_configured");
}

/// What the page of metrics asks the parts for.
fn gauges(pool: &Arc<ProcessPool>, source: &KafkaSource, load: Arc<OnceLock<LoadGauge>>) -> Gauges {
    let pool = Arc::clone(pool);
    let (lags, connection) = (source.gauges(), source.gauges());
    Gauges {
        slots: Box::new(move || pool.slots()),
        // Before there is an engine nothing is in the worker.
        load: Box::new(move || load.get().map_or(0, |gauge| gauge.load().total)),
        lags: Box::new(move || lags.lags()),
        is_connected: Box::new(move || connection.is_connected()),
    }
}

/// Starts the server of metrics and health, if the configuration wants it.
async fn serve(
    config: &Config,
    exposition: Exposition,
    health: &Arc<Health>,
) -> Result<Option<Server>, Error> {
    let settings = config.metrics();
    if !settings.enabled {
        return Ok(None);
    }
    let pages =
        Pages { metrics: Box::new(move || exposition.render()), health: Arc::clone(health) };
    let address = SocketAddr::new(settings.host, settings.port);
    let server =
        Server::start(address, pages).await.map_err(|error| Error::start("metrics", error))?;
    let address = server.address();
    tracing::info!(category = "lifecycle", %address, "metrics_server_started");
    Ok(Some(server))
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::new(ErrorKind::Config(error))
    }
}
