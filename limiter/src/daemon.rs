//! The daemon: loads or takes over, then greets what is refused and keeps the ledger tidy. The limits
//! do not need it.

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use limiter_common::{Addr, Claim, Limits as Allowance, Protocol, Reason};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing::{error, info, warn};

use crate::{
    config::Config,
    greeter::{Greeter, Limits, Listener, Reasons, Refusal},
    instance::Instance,
    kernel::{Attached, Found, Tables, Target, environment, steward::Steward},
    ledger,
    policy::{self, Applied},
    reconcile::Reconciler,
};

/// How often, at most, the ledger is looked through for sources that are gone.
const COLLECT_EVERY: Duration = Duration::from_secs(10);
/// How often reservations that came to nothing are looked for.
const CANCEL_EVERY: Duration = Duration::from_secs(1);
/// Ports where TLS starts at once (RFC 8314, 3; RFC 9051, 11.1): no plain text can be said there.
const IMPLICIT_TLS: [u16; 3] = [465, 993, 995];

/// What `limiter run` was asked for.
pub struct Options {
    /// The network namespace to protect; the present one if none.
    pub netns: Option<PathBuf>,
    /// The cgroup to protect; all if none.
    pub cgroup: Option<PathBuf>,
    /// The configuration.
    pub config: Config,
}

/// Runs until a signal ends it. The limits stay in force after that.
pub fn run(instance: &Instance, options: &Options) -> Result<()> {
    environment::check()?;
    let mut lock = instance.lock_daemon()?;
    if let Some(netns) = &options.netns {
        environment::enter_netns(netns)?;
    }
    // After entering the namespace: every thread of the runtime inherits it.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let (listener, attached) = load(instance, options)?;
        lock.announce()?;
        serve(instance, listener, attached, &options.config).await
    })
}

/// Loads, or takes over what is pinned.
fn load(instance: &Instance, options: &Options) -> Result<(Listener, Attached)> {
    let target = Target {
        cgroup: environment::Cgroup::open(options.cgroup.as_deref())?,
        netns: environment::netns_cookie()?,
        max_sources: options.config.max_sources,
    };
    let found = Found::inspect(instance)?;
    let mut loaded = target.load(instance, &found)?;
    {
        let _policy = instance.lock_policy()?;
        match policy::apply(&options.config, &mut loaded.tables)? {
            Applied::Changed => info!("the configuration is in force"),
            Applied::Kept => info!("the configuration is the one in force; changes made live since stay"),
        }
    }
    let listener = Listener::bind().context("cannot open the greeter's listener")?;
    loaded.set_greeter(&listener)?;
    let attached = loaded.attach(&target, instance)?;
    match found {
        Found::Nothing => info!("loaded as instance {instance}"),
        Found::Current(_) => info!("took over instance {instance}, counts included"),
        Found::Other(difference) => warn!(
            "replaced what was pinned as instance {instance} ({difference}): what it knew of sources is forgotten"
        ),
    }
    if attached.adopted > 0 {
        info!("counted {} connections that were there before", attached.adopted);
    }
    Ok((listener, attached))
}

async fn serve(instance: &Instance, listener: Listener, attached: Attached, config: &Config) -> Result<()> {
    let (stop, stopped) = watch::channel(false);
    let reasons = Arc::new(PinnedReasons(Tables::open(&instance.pins())?));
    let hostname = match &config.hostname {
        Some(name) => name.clone(),
        None => {
            nix::unistd::gethostname().context("cannot read the host name")?.to_string_lossy().into_owned()
        }
    };
    let greeter = Greeter::new(listener, reasons, hostname, Limits::default())?;
    let totals = greeter.totals();
    let mut greeter = tokio::spawn(greeter.serve(stopped));
    let log = tokio::spawn(follow(attached.log));
    let upkeep = Upkeep {
        pins: instance.pins(),
        steward: attached.steward,
        reconciler: Reconciler::default(),
        remember: Duration::from_secs(u64::from(config.remember_seconds)),
        reconcile: Duration::from_secs(u64::from(config.reconcile_seconds)),
    };
    std::thread::Builder::new()
        .name("upkeep".to_owned())
        .spawn(move || upkeep.run())
        .context("cannot start a thread")?;

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        result = &mut greeter => bail!("the greeter ended ({result:?}): refused clients get a reset until the daemon runs again"),
    }
    // Fails when the greeter has ended by itself; then there is nobody to tell.
    let _nobody = stop.send(true);
    greeter.await.context("the greeter failed")?;
    log.abort();
    info!("greeter: {}", totals.snapshot());
    info!(
        "the daemon ends; the limits stay in force, with resets instead of replies, until `limiter --instance {instance} unload`"
    );
    Ok(())
}

/// Passes the kernel programs' records on.
async fn follow(log: aya_log::EbpfLogger<&'static dyn tracing_log::log::Log>) -> Result<()> {
    // SAFETY: the logger owns its ring buffer's descriptor, and names the same one as long as it lives.
    let log = unsafe { AsyncFd::register_with_interest(log, Interest::READABLE) };
    let mut log = log.map_err(|error| error.into_parts().1)?;
    loop {
        let mut ready = log.readable_mut().await?;
        ready.get_inner_mut().flush();
        ready.clear_ready();
    }
}

/// What keeps the ledger true and tidy.
struct Upkeep {
    pins: PathBuf,
    steward: Steward,
    reconciler: Reconciler,
    /// How long a source without connections is remembered.
    remember: Duration,
    /// How often the ledger is compared with the socket table.
    reconcile: Duration,
}

impl Upkeep {
    /// Goes on for as long as the process lives.
    fn run(mut self) {
        let collect_every = COLLECT_EVERY.min(self.remember).max(CANCEL_EVERY);
        let mut collected = Instant::now();
        let mut compared = Instant::now();
        loop {
            std::thread::sleep(CANCEL_EVERY);
            if let Err(problem) = self.steward.cancel_stale() {
                error!("cannot give back stale reservations: {problem:#}");
            }
            if collected.elapsed() >= collect_every {
                collected = Instant::now();
                match ledger::collect(&mut self.steward, self.remember) {
                    Ok(0) => {}
                    Ok(sources) => info!("forgot {sources} sources without connections"),
                    Err(problem) => error!("cannot look through the ledger: {problem:#}"),
                }
            }
            if compared.elapsed() >= self.reconciler.wait(self.reconcile) {
                compared = Instant::now();
                if let Err(problem) = self.reconciler.round(&self.pins, &mut self.steward) {
                    error!("cannot compare the ledger with the socket table: {problem:#}");
                }
            }
        }
    }
}

/// Why the greeter's connections were refused, from the pinned maps.
struct PinnedReasons(Tables);

impl Reasons for PinnedReasons {
    fn reason(&self, local_port: u16, remote: IpAddr) -> Option<Refusal> {
        let (service, policy) = self.0.service_of(local_port).ok()??;
        let claim = Claim::new(service, &policy, &Addr::from(remote));
        let standing = ledger::standing(&self.0, &claim).ok()?;
        let limits = Allowance::of(&policy, false);
        let reason = standing.over(&limits, ledger::now_ns().ok()?);
        // One may have ended since: what the client is told is why it was refused.
        let reason = reason.unwrap_or(Reason::Concurrency);
        let connections = match reason {
            Reason::Total => standing.total.connections().max(limits.total),
            Reason::Network => standing.wide.connections().max(limits.wide),
            Reason::Concurrency | Reason::Rate => standing.narrow.connections().max(limits.narrow),
        };
        Some(Refusal {
            protocol: Protocol::from_u8(policy.protocol)?,
            reason,
            connections,
            tls: IMPLICIT_TLS.contains(&local_port),
        })
    }
}
