// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The daemon: loads or takes over, then greets what is refused and keeps the ledger tidy. The limits
//! do not need it.

mod dues;
mod files;
mod followed;
mod heartbeat;
mod options;
mod refusals;
mod start;
mod supervisor;
mod unload;
mod upkeep;
mod users;

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::Path,
    process::Command,
    sync::{Mutex, PoisonError, mpsc},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{Signal, SignalKind, signal},
    sync::{oneshot, watch},
    task::JoinHandle,
};
use tracing::{error, info, warn};

use self::{
    dues::PinnedDues,
    followed::{FollowedCgroup, FollowedNetns},
    refusals::Refusals,
    start::Before,
    upkeep::Upkeep,
};
pub use self::{options::Options, unload::unload};
use crate::{
    bans, changes,
    config::{self, Config},
    greeter::{Bounds, Greeter, Listener, Services, Settings, Words, process::Program, tls},
    history,
    instance::{Applied, DaemonLock, Instance},
    kernel::{
        Found, Tables, environment, grace::Grace, greeter::Steering, listening::Listening, pins, privilege,
    },
    netlink, policy,
    reconcile::Reconciler,
    shield::Keeper,
    waiting::{self, Attendant},
};

/// How long threads may take that are in the middle of something when the daemon ends.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// How long the history may take to write the last minute: less than `limiter unload` waits.
const HISTORY_PATIENCE: Duration = Duration::from_secs(5);

/// Of a configuration that is in force, and that the daemon cannot read.
const UNKNOWN: &str = "the daemon cannot use the configuration that `limiter reload` put in force: it keeps \
                       its old host name, interfaces and times until the next reload";

/// Runs until a signal ends it. The limits stay in force after that.
pub fn run(instance: &Instance, options: &Options) -> Result<()> {
    privilege::check_to_load(options.netns.is_some())?;
    // The one call all rests on.
    Grace::prepare()?;
    environment::check()?;
    let bounds = files::raise()?;
    if let Some(warning) = environment::real_time_warning() {
        warn!("{warning}");
    }
    if let Some(netns) = &options.netns {
        environment::enter_netns(netns)?;
    }
    let warnings = [
        environment::network_warning(),
        environment::pins_warning(),
        environment::cgroup_warning(options.cgroup.as_deref())?,
    ];
    for warning in warnings.into_iter().flatten() {
        warn!("{warning}");
    }
    // After entering the namespace: every thread of the runtime inherits it.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    // Late, so that what is missing leaves no file.
    let mut lock = instance.lock_daemon()?;
    let end = runtime.block_on(async {
        // Before anybody can know the daemon's number: a signal without a handler ends a process.
        let signals = Signals::catch()?;
        let serving = start(instance, options, bounds, &mut lock)?;
        supervisor::serves(instance);
        Box::pin(serving.serve(signals, options)).await
    });
    // A thread that waits for somebody else is not waited for.
    runtime.shutdown_timeout(END_PATIENCE);
    if end.is_err() && !instance.pins().exists() {
        // Nothing is loaded, so nothing says anything of it.
        let _stays = instance.clear();
    }
    drop(lock);
    match end? {
        End::Stop => Ok(()),
        End::Again => Err(again(instance)),
    }
}

/// Does all that can fail, then says that the daemon serves. When it fails, everything is as it was.
fn start(instance: &Instance, options: &Options, bounds: Bounds, lock: &mut DaemonLock) -> Result<Serving> {
    let _policy = instance.lock_policy()?;
    let before = Before::look(instance, options)?;
    let mut serving = match Serving::prepare(instance, options, bounds, &before.found) {
        Ok(serving) => serving,
        Err(problem) => return Err(before.restore(instance, problem)),
    };
    let replaces = matches!(before.found, Found::Other(_));
    if replaces && let Err(problem) = pins::remove(&instance.new_pins()) {
        error!(
            "cannot remove the old limits, which stay in force beside the new ones: {problem:#}; remove both \
             with `{limiter} unload`",
            limiter = instance.program()
        );
    }
    serving.upkeep.shield.round(&options.config.interfaces);
    if let Err(problem) = lock.announce() {
        drop(serving);
        return Err(if replaces {
            problem.context("the new limits are in force, but the daemon cannot run: start it again")
        } else {
            before.restore(instance, problem)
        });
    }
    // Nothing that is in force depends on it.
    let applied = instance.prepare_applied(&options.config.to_string()).and_then(Applied::leave);
    if let Err(problem) = applied {
        warn!("{problem:#}; the next reload cannot tell which changes were made live");
    }
    before.tell(instance, serving.adopted);
    Ok(serving)
}

/// How serving ends.
enum End {
    /// For good.
    Stop,
    /// To begin anew, with another cgroup.
    Again,
}

/// Begins anew in the same process, as a takeover; returns if that cannot be done.
fn again(instance: &Instance) -> anyhow::Error {
    // `limiter reload --config` may have named another file since.
    let file = instance.config_path().ok().flatten();
    let mut arguments = with_config(std::env::args_os(), file.as_deref()).into_iter();
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    anyhow::Error::new(command.args(arguments).exec())
        .context("cannot restart for the new cgroup: start the daemon again")
}

/// The command line of `limiter run`, with this configuration file, if there is one.
fn with_config(arguments: impl Iterator<Item = OsString>, file: Option<&Path>) -> Vec<OsString> {
    let Some(file) = file else { return arguments.collect() };
    let (mut kept, mut arguments) = (Vec::new(), arguments);
    while let Some(argument) = arguments.next() {
        if argument == "--config" {
            arguments.next();
        } else if !argument.as_encoded_bytes().starts_with(b"--config=") {
            kept.push(argument);
        }
    }
    kept.extend(["--config".into(), file.into()]);
    kept
}

/// The signals that the daemon answers to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Read the file again, and put it in force.
    hangup: Signal,
    /// `limiter reload` has put a file in force.
    applied: Signal,
    /// `limiter unload` takes everything away.
    unload: Signal,
}

impl Signals {
    /// Catches them from now on; those that come before somebody asks are kept, one of each kind.
    fn catch() -> Result<Self> {
        let catch = |kind| signal(kind).context("cannot catch signals");
        Ok(Self {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
            hangup: catch(SignalKind::hangup())?,
            applied: catch(SignalKind::user_defined1())?,
            unload: catch(SignalKind::user_defined2())?,
        })
    }
}

/// A daemon that has all it needs.
struct Serving {
    instance: Instance,
    greeter: Greeter,
    log: KernelLog,
    /// Through which the kernel is told that the daemon answers.
    heart: Tables,
    attendant: Result<(Attendant, waiting::Stop)>,
    upkeep: Upkeep,
    /// The thread that begins when it gets its work, and what ends when it does.
    thread: (mpsc::Sender<Upkeep>, oneshot::Receiver<()>),
    moved: watch::Receiver<bool>,
    stop: watch::Sender<bool>,
    stopped: watch::Receiver<bool>,
    configure: watch::Sender<Config>,
    settings: Settings,
    /// How many connections were older than the limiter.
    adopted: u64,
}

impl Serving {
    fn prepare(instance: &Instance, options: &Options, bounds: Bounds, found: &Found) -> Result<Self> {
        // First: what changes after it was read is to be noticed.
        let addresses = netlink::Watch::new(netlink::ADDRESSES)?;
        let (listener, attached, shield) = start::load(instance, options, found)?;
        let adopted = attached.adopted;
        instance.set_config_path(options.file.as_deref())?;
        instance.set_netns_path(options.netns.as_deref())?;
        let shield = Keeper::new(shield, instance)?;
        let (stop, stopped) = watch::channel(false);
        let (configure, config) = watch::channel(options.config.clone());
        let settings = Settings::default();
        let greeter = greeter(instance, listener, settings.clone(), bounds)?;
        settings.set_words(Services::of(&options.config), words(&options.config)?);
        let certificates =
            tls::Keeper::new(settings.clone(), greeter.totals(), greeter.health(), instance.greeter_path());
        let (has_moved, moved) = watch::channel(false);
        let cgroup = options.cgroup.clone();
        let cgroup = cgroup.map(|path| FollowedCgroup::new(path, attached.cgroup, has_moved.clone()));
        let netns = options.netns.clone().map(|path| FollowedNetns::new(path, has_moved));
        let tables = Tables::open(&instance.pins())?;
        let mut upkeep = Upkeep {
            cgroup,
            netns,
            pins: instance.pins(),
            maintenance: attached.maintenance,
            reconciler: Reconciler::default(),
            instance: instance.clone(),
            addresses,
            shield,
            bans: bans::Upkeep::new(instance, &tables)?,
            config,
            listening: Listening::open(&instance.pins())?,
            is_blind: false,
            unknown_endpoints: 0,
            refusals: Refusals::new(&tables, greeter.log())?,
            certificates,
        };
        upkeep.keep_certificates();
        let attendant = Attendant::new(attached.waiters, tables, greeter.teller());
        let heart = Tables::open(&instance.pins())?;
        Ok(Self {
            instance: instance.clone(),
            greeter,
            log: attached.log,
            heart,
            attendant,
            upkeep,
            thread: upkeep::thread()?,
            moved,
            stop,
            stopped,
            configure,
            settings,
            adopted,
        })
    }

    async fn serve(self, mut signals: Signals, options: &Options) -> Result<End> {
        let Self { instance, upkeep, mut moved, stop, configure, settings, .. } = self;
        let instance = &instance;
        let totals = self.greeter.totals();
        let mut greeter = tokio::spawn(self.greeter.serve(self.stopped));
        let mut log = tokio::spawn(follow(self.log));
        let heartbeat = tokio::spawn(heartbeat::go_on(self.heart));
        let history = keep_history(instance, &configure);
        let (mut attendant, leave) = attend(self.attendant);
        let (work, mut upkeep_ended) = self.thread;
        // If it has ended already, that is seen below.
        let _ended = work.send(upkeep);
        let mut is_logging = true;

        let mut reload = Reload::new(instance);
        let mut end = End::Stop;
        let limits_stay = loop {
            let config = tokio::select! {
                _ = signals.terminate.recv() => break true,
                _ = signals.interrupt.recv() => break true,
                _ = signals.unload.recv() => break false,
                _ = &mut upkeep_ended => bail!("the maintenance thread has stopped: the limits stay in force, but counts, bans and interfaces are not updated until the daemon restarts"),
                result = &mut log, if is_logging => {
                    is_logging = false;
                    error!("messages of the kernel programs no longer reach this log ({result:?})");
                    continue;
                }
                Ok(_) = moved.wait_for(|moved| *moved) => {
                    end = End::Again;
                    break true;
                }
                _ = signals.hangup.recv() => {
                    supervisor::reloads();
                    reload.begin();
                    continue;
                }
                config = reload.end() => {
                    supervisor::has_reloaded();
                    config
                }
                // `limiter reload` has put it in force.
                _ = signals.applied.recv() => config::load(&instance.applied_path()).context(UNKNOWN),
                result = &mut attendant => bail!("waiting clients are no longer served ({result:?}): each gets in only when the kernel repeats its SYN-ACK, until the daemon restarts"),
                result = &mut greeter => bail!("the greeter has stopped ({result:?}): refused clients get a reset until the daemon restarts"),
            };
            match config {
                Ok(config) => {
                    let at_start = &options.config;
                    for (key, is_same) in [
                        ("max_sources", config.max_sources == at_start.max_sources),
                        ("max_bans", config.ladder.max_bans == at_start.ladder.max_bans),
                    ] {
                        if !is_same {
                            warn!(
                                "{key} is read only when the daemon starts: stop it and start `{limiter} run`",
                                limiter = instance.program()
                            );
                        }
                    }
                    settings.set_words(Services::of(&config), words(&config)?);
                    configure.send_replace(config);
                }
                Err(problem) => error!("{problem:#}"),
            }
        };
        match end {
            End::Again => supervisor::reloads(),
            End::Stop => supervisor::ends(limits_stay),
        }
        if let Some(leave) = leave {
            drop(leave);
            attendant.await?.context("cannot stop serving waiting clients")?;
        }
        // Fails when the greeter has ended by itself; then there is nobody to tell.
        let _nobody = stop.send(true);
        greeter.await?.context("the greeter failed")?;
        log.abort();
        heartbeat.abort();
        if history.is_some_and(|history| !history.end(HISTORY_PATIENCE)) {
            warn!("the last minute is missing in the history: its database did not answer in time");
        }
        info!("greeter: {}", totals.snapshot());
        if matches!(end, End::Again) {
            return Ok(end);
        }
        if let Err(problem) = changes::tell(instance) {
            error!("cannot log live changes: {problem:#}");
        }
        if limits_stay && let Err(problem) = bans::state::mark(instance) {
            warn!("{problem:#}; if the host's clock is wrong after the next restart, bans may last longer");
        }
        log_end(instance, limits_stay);
        Ok(end)
    }
}

/// Says in the log what becomes of the limits.
fn log_end(instance: &Instance, limits_stay: bool) {
    if limits_stay && environment::pins_warning().is_some() {
        info!(
            "the daemon stops; the limits stay in force, with resets instead of replies, only as long as \
             this /sys/fs/bpf is mounted somewhere"
        );
    } else if limits_stay {
        info!(
            "the daemon stops; the limits stay in force, with resets instead of replies, until `{limiter} unload`",
            limiter = instance.program()
        );
    } else {
        info!("the daemon stops: instance {instance} is being unloaded");
    }
}

/// Starts to keep the history.
fn keep_history(instance: &Instance, configure: &watch::Sender<Config>) -> Option<history::Thread> {
    let followed = users::follow(instance, configure.subscribe());
    let users = followed.inspect_err(|problem| warn!("the history has no users: {problem:#}")).ok();
    let started = history::start(instance, configure.subscribe(), users);
    started.inspect_err(|problem| warn!("the history is not written: {problem:#}")).ok()
}

/// Starts to serve those that wait: what ends when that does, and what ends it.
fn attend(attendant: Result<(Attendant, waiting::Stop)>) -> (JoinHandle<Result<()>>, Option<waiting::Stop>) {
    match attendant {
        Ok((attendant, leave)) => (tokio::task::spawn_blocking(move || attendant.run()), Some(leave)),
        Err(problem) => {
            error!(
                "cannot serve waiting clients: {problem:#}; each gets in only when the kernel repeats its \
                 SYN-ACK, after seconds, or gets no reason"
            );
            (tokio::spawn(std::future::pending()), None)
        }
    }
}

/// The greeter, which begins to serve when it is told to.
fn greeter(instance: &Instance, listener: Listener, settings: Settings, bounds: Bounds) -> Result<Greeter> {
    let dues = Box::new(PinnedDues(Tables::open(&instance.pins())?));
    let steering = Mutex::new(Steering::open(&instance.pins())?);
    let steer = Box::new(move |listener: &Listener| {
        steering.lock().unwrap_or_else(PoisonError::into_inner).lead_to(listener)
    });
    let launch = Box::new(Program::new(bounds.files()));
    Greeter::new(listener, settings, dues, steer, launch, bounds).context("cannot prepare the greeter")
}

/// What the greeter has to say.
fn words(config: &Config) -> Result<Words> {
    let hostname = match &config.hostname {
        Some(name) => name.clone(),
        None => {
            let name = nix::unistd::gethostname().context("cannot read the host name")?;
            name.to_string_lossy().into_owned()
        }
    };
    Ok(Words::of(config, hostname))
}

/// Reading the file again, in a thread of its own: others may be changing the policy just then, and the daemon
/// answers to signals meanwhile.
struct Reload {
    instance: Instance,
    under_way: Option<JoinHandle<Result<Config>>>,
    once_more: bool,
}

impl Reload {
    fn new(instance: &Instance) -> Self {
        Self { instance: instance.clone(), under_way: None, once_more: false }
    }

    /// Begins; after the one that is under way, if one is.
    fn begin(&mut self) {
        if self.under_way.is_some() {
            self.once_more = true;
        } else {
            let instance = self.instance.clone();
            self.under_way = Some(tokio::task::spawn_blocking(move || reload(&instance)));
        }
    }

    /// Waits until what is under way has ended; for ever if nothing is.
    async fn end(&mut self) -> Result<Config> {
        let Some(under_way) = &mut self.under_way else { return std::future::pending().await };
        let config = under_way.await;
        self.under_way = None;
        if std::mem::take(&mut self.once_more) {
            self.begin();
        }
        let config = config.context("the reload did not finish");
        config.and_then(|config| config).context(
            "SIGHUP changed nothing, and the old configuration stays in \
                                                  force",
        )
    }
}

/// Reads the file again and puts it in force, all of it or nothing.
fn reload(instance: &Instance) -> Result<Config> {
    let mut tables = Tables::open(&instance.pins())?;
    // First: whoever saves a change at this moment makes the file another.
    let _policy = instance.lock_policy()?;
    // Not the one of the options: where there was none, `--save` may have made it.
    let config = instance.config_path()?.as_deref().map(config::load).transpose()?.unwrap_or_default();
    let left = instance.prepare_applied(&config.to_string())?.leave()?;
    let outcome = policy::reapply(&config, &mut tables).or_else(|problem| {
        left.take_back().with_context(|| format!("{problem:#}"))?;
        Err(problem)
    })?;
    match outcome {
        policy::Applied::Changed => info!("reloaded the configuration: it is in force"),
        policy::Applied::Kept => info!("reloaded the configuration: it was already in force"),
    }
    Ok(config)
}

/// The kernel programs' records.
type KernelLog = aya_log::EbpfLogger<&'static dyn tracing_log::log::Log>;

/// Passes the kernel programs' records on.
async fn follow(log: KernelLog) -> Result<()> {
    // SAFETY: the logger owns its ring buffer's descriptor, and names the same one as long as it lives.
    let log = unsafe { AsyncFd::register_with_interest(log, Interest::READABLE) };
    let mut log = log.map_err(|error| error.into_parts().1)?;
    loop {
        let mut ready = log.readable_mut().await?;
        ready.get_inner_mut().flush();
        ready.clear_ready();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_begins_anew_reads_the_file_that_was_read_last() {
        let said = |line: &str, file: Option<&str>| {
            let words = with_config(line.split(' ').map(OsString::from), file.map(Path::new));
            words.join(std::ffi::OsStr::new(" ")).into_string().unwrap()
        };
        let new = Some("/etc/new.toml");
        assert_eq!(
            said("limiter run --config a --cgroup b", new),
            "limiter run --cgroup b --config /etc/new.toml"
        );
        assert_eq!(said("limiter run --config=a", new), "limiter run --config /etc/new.toml");
        assert_eq!(said("limiter run --cgroup b", new), "limiter run --cgroup b --config /etc/new.toml");
        assert_eq!(said("limiter run --cgroup b", None), "limiter run --cgroup b");
    }
}
