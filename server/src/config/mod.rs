//! Configuration: every setting is an environment variable `SWIFTLET_X` and a flag `--x`.
//!
//! [`Settings`] is what the operator said, checked value by value while it is read. [`Config`] is what
//! the server runs with: automatic values are filled in from the host, each with the reason that
//! `swiftlet config` shows. To add a setting, add a field to [`Settings`] with its doc comment (the
//! first paragraph is its help), default and parser, and use it from there.

mod auto;
mod errors;
mod switches;
mod values;
mod zones;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use crate::cache;
pub use auto::{Config, Source};
pub use errors::ConfigError;
use errors::unknown_variable;
pub use values::{Http, format_bytes};
use values::{bytes_of, http_address, number, socket_address, upstream_address};
pub use zones::ForwardZone;

/// The prefix of every environment variable that is a setting.
pub const PREFIX: &str = "SWIFTLET_";

/// Where the system's resolvers are named.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// A DNS resolver that answers known names at the cost of little more than echoing the packet.
///
/// Without a command it serves. Every option can be given as a flag or as the environment variable shown
/// with it; the flag wins.
#[derive(Parser, Clone, Debug)]
#[command(name = "swiftlet", version, max_term_width = 100, disable_help_subcommand = true)]
pub struct Settings {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Addresses that clients ask, `address:port` separated by commas.
    #[arg(long, env = "SWIFTLET_LISTEN", value_delimiter = ',', value_parser = socket_address)]
    #[arg(default_value = "127.0.0.1:5300,[::1]:5300", value_name = "ADDR:PORT")]
    pub listen: Vec<SocketAddr>,

    /// Upstream resolvers in order of preference, `address[:port]` separated by commas
    /// [default: the nameservers of /etc/resolv.conf].
    #[arg(long, env = "SWIFTLET_FORWARD", value_delimiter = ',', value_parser = upstream_address)]
    #[arg(value_name = "ADDR[:PORT]")]
    pub forward: Option<Vec<SocketAddr>>,

    /// Names that have upstream resolvers of their own, with everything below them:
    /// `zone=address[:port]+...` separated by semicolons. The longest name wins, and its resolvers alone
    /// are asked; all other names go to --forward. A zone at, above or below a special-use name switches
    /// the built-in answers off where they overlap.
    #[arg(long, env = "SWIFTLET_FORWARD_ZONES", value_delimiter = ';')]
    #[arg(value_parser = zones::forward_zone, value_name = "ZONE=ADDR[:PORT]+...")]
    pub forward_zones: Vec<ForwardZone>,

    /// Seconds between two looks whether an upstream forwards back to this server, 0 to 86400; 0 never
    /// looks.
    #[arg(long, env = "SWIFTLET_LOOP_PROBE_S", value_parser = number::<u32>(0..=86_400))]
    #[arg(default_value = "60", value_name = "SECONDS")]
    pub loop_probe_s: u32,

    /// Networks whose clients are served; all others get REFUSED.
    #[arg(long, env = "SWIFTLET_ALLOW", value_delimiter = ',', value_parser = values::network)]
    #[arg(default_value = values::PRIVATE_NETWORKS, value_name = "NETWORK")]
    pub allow: Vec<IpNet>,

    /// Worker threads, 1 to 1024 [default: the cores that this process may use].
    #[arg(long, env = "SWIFTLET_WORKERS", value_parser = number::<usize>(1..=1024))]
    pub workers: Option<usize>,

    /// Pin each worker to a core of its own.
    #[arg(long, env = "SWIFTLET_PIN", action = ArgAction::Set, default_value = "true")]
    #[arg(value_name = "true|false", value_parser = values::switch)]
    pub pin: bool,

    /// How datagrams are received and sent.
    #[arg(long, env = "SWIFTLET_BACKEND", value_enum, default_value = "auto", ignore_case = true)]
    pub backend: Backend,

    /// Datagrams per system call, 1 to 1024.
    #[arg(long, env = "SWIFTLET_BATCH", value_parser = number::<usize>(1..=1024))]
    #[arg(default_value = "64")]
    pub batch: usize,

    /// Load what answering a batch will read from the cache for all of its packets at once.
    #[arg(long, env = "SWIFTLET_LOOK_AHEAD", action = ArgAction::Set, default_value = "true")]
    #[arg(value_name = "true|false", value_parser = values::switch)]
    pub look_ahead: bool,

    /// Microseconds for which a worker goes on looking for packets before it sleeps, 0 to 10000; 0 for
    /// never. Takes its whole core.
    #[arg(long, env = "SWIFTLET_BUSY_POLL_US", value_parser = number::<u16>(0..=10_000))]
    #[arg(default_value = "0", value_name = "US")]
    pub busy_poll_us: u16,

    /// Interfaces whose queries af-xdp takes, by name, separated by commas
    /// [default: those that carry the listen addresses].
    #[arg(long, env = "SWIFTLET_XDP_INTERFACE", value_delimiter = ',', value_parser = values::interface)]
    #[arg(value_name = "NAME")]
    pub xdp_interface: Vec<String>,

    /// Receive queues of each of these interfaces that af-xdp takes, numbers and ranges such as `0-3,5`
    /// [default: all].
    #[arg(long, env = "SWIFTLET_XDP_QUEUES", value_delimiter = ',', value_parser = values::queues)]
    #[arg(value_name = "QUEUES")]
    pub xdp_queues: Vec<RangeInclusive<u32>>,

    /// How frames come from the network card under af-xdp.
    #[arg(long, env = "SWIFTLET_XDP_MODE", value_enum, default_value = "auto", ignore_case = true)]
    pub xdp_mode: XdpMode,

    /// Serve over sockets where af-xdp does not work, or stop. Another XDP program in the way always
    /// stops the start.
    #[arg(long, env = "SWIFTLET_XDP_FALLBACK", action = ArgAction::Set, default_value = "true")]
    #[arg(value_name = "true|false", value_parser = values::switch)]
    pub xdp_fallback: bool,

    /// The answer cache; `moka` needs a program with the feature moka-cache.
    #[arg(long, env = "SWIFTLET_CACHE", value_enum, default_value = "segmented")]
    #[arg(ignore_case = true)]
    pub cache: cache::Kind,

    /// Memory of the answer cache in bytes, with suffix K, M or G; 1M to 1024G
    /// [default: a quarter of the memory limit, at most 1G].
    #[arg(long, env = "SWIFTLET_CACHE_SIZE", value_parser = bytes_of(MIB..=1024 * 1024 * MIB))]
    #[arg(value_name = "BYTES")]
    pub cache_size: Option<u64>,

    /// Ask for huge pages for the answer cache, or forbid them
    /// [default: as the allocator and the kernel like].
    #[arg(long, env = "SWIFTLET_HUGE_PAGES", action = ArgAction::Set)]
    #[arg(value_name = "true|false", value_parser = values::switch)]
    pub huge_pages: Option<bool>,

    /// Seconds for which an answer is kept at least, 0 to 86400.
    #[arg(long, env = "SWIFTLET_MIN_TTL", value_parser = number::<u32>(0..=86_400))]
    #[arg(default_value = "0", value_name = "SECONDS")]
    pub min_ttl: u32,

    /// Seconds for which an answer is kept at most, 1 to 604800.
    #[arg(long, env = "SWIFTLET_MAX_TTL", value_parser = number::<u32>(1..=604_800))]
    #[arg(default_value = "86400", value_name = "SECONDS")]
    pub max_ttl: u32,

    /// Seconds for which the absence of a name or type is kept at most, 0 to 86400.
    #[arg(long, env = "SWIFTLET_MAX_NEGATIVE_TTL", value_parser = number::<u32>(0..=86_400))]
    #[arg(default_value = "3600", value_name = "SECONDS")]
    pub max_negative_ttl: u32,

    /// Seconds after its TTL for which an answer is given when no other is to be had, 0 to 604800;
    /// 0 for never.
    #[arg(long, env = "SWIFTLET_STALE_TTL", value_parser = number::<u32>(0..=604_800))]
    #[arg(default_value = "86400", value_name = "SECONDS")]
    pub stale_ttl: u32,

    /// Largest UDP payload sent or asked for, 512 to 4096 bytes.
    #[arg(long, env = "SWIFTLET_UDP_SIZE", value_parser = number::<u16>(512..=4096))]
    #[arg(default_value = "1232", value_name = "BYTES")]
    pub udp_size: u16,

    /// Receive buffer to ask for, for each socket; 4K to 1G.
    #[arg(long, env = "SWIFTLET_RECV_BUFFER", value_parser = bytes_of(4 * KIB..=1024 * MIB))]
    #[arg(default_value = "4M", value_name = "BYTES")]
    pub recv_buffer: u64,

    /// Send buffer to ask for, for each socket; 4K to 1G.
    #[arg(long, env = "SWIFTLET_SEND_BUFFER", value_parser = bytes_of(4 * KIB..=1024 * MIB))]
    #[arg(default_value = "1M", value_name = "BYTES")]
    pub send_buffer: u64,

    /// Milliseconds for a question to all upstreams it is asked of, 10 to 60000.
    #[arg(long, env = "SWIFTLET_UPSTREAM_TIMEOUT_MS", value_parser = number::<u32>(10..=60_000))]
    #[arg(default_value = "3000", value_name = "MS")]
    pub upstream_timeout_ms: u32,

    /// Ask upstreams with the letters of names in random case, which their replies have to repeat.
    #[arg(long, env = "SWIFTLET_CASE_RANDOMIZATION", action = ArgAction::Set)]
    #[arg(default_value = "true", value_name = "true|false", value_parser = values::switch)]
    pub case_randomization: bool,

    /// Queries that one client may have waiting for upstreams, 1 to 1000000; hits are never limited
    /// [default: half of what may be in flight in all].
    #[arg(long, env = "SWIFTLET_CLIENT_MISSES", value_parser = number::<u32>(1..=1_000_000))]
    pub client_misses: Option<u32>,

    /// TCP connections from clients, 0 to 1000000.
    #[arg(long, env = "SWIFTLET_TCP_MAX_CLIENTS", value_parser = number::<u32>(0..=1_000_000))]
    #[arg(default_value = "4096", value_name = "CONNECTIONS")]
    pub tcp_max_clients: u32,

    /// TCP connections from one client address, 1 to 1000000.
    #[arg(long, env = "SWIFTLET_TCP_MAX_PER_CLIENT", value_parser = number::<u32>(1..=1_000_000))]
    #[arg(default_value = "256", value_name = "CONNECTIONS")]
    pub tcp_max_per_client: u32,

    /// Milliseconds after which an idle TCP connection is closed, 100 to 600000.
    #[arg(long, env = "SWIFTLET_TCP_IDLE_MS", value_parser = number::<u32>(100..=600_000))]
    #[arg(default_value = "10000", value_name = "MS")]
    pub tcp_idle_ms: u32,

    /// Address of /metrics, /health, /ready and /debug/upstreams, or `off`.
    #[arg(long, env = "SWIFTLET_HTTP", value_parser = http_address)]
    #[arg(default_value = "127.0.0.1:8053", value_name = "ADDR:PORT|off")]
    pub http: Http,

    /// Milliseconds to go on serving after SIGTERM or SIGINT, 0 to 600000.
    #[arg(long, env = "SWIFTLET_LAMEDUCK_MS", value_parser = number::<u32>(0..=600_000))]
    #[arg(default_value = "0", value_name = "MS")]
    pub lameduck_ms: u32,

    /// Name of this instance, told to clients that ask for id.server, hostname.bind or NSID;
    /// `off` keeps it to itself [default: the host's name].
    #[arg(long, env = "SWIFTLET_IDENTITY", value_parser = values::identity, value_name = "NAME")]
    pub identity: Option<String>,

    /// What TTLs run by: the time since boot, or the wall clock (for tests that shift it).
    #[arg(
        long,
        env = "SWIFTLET_TTL_CLOCK",
        value_enum,
        default_value = "boot",
        ignore_case = true
    )]
    pub ttl_clock: TtlClock,

    /// Least severity of the messages logged.
    #[arg(long, env = "SWIFTLET_LOG", value_enum, default_value = "info", ignore_case = true)]
    pub log: LogLevel,
}

/// What the program does.
#[derive(Subcommand, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Print the effective value of every setting, and where it comes from.
    Config,
    /// Ask the running server over DNS whether it answers; exit 0 if so, 1 if not.
    Health,
    /// Print what the running server knows of its upstreams, asked over HTTP.
    Upstreams,
}

/// How datagrams are received and sent.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The fastest that works here.
    Auto,
    /// recvmmsg and sendmmsg, woken by epoll.
    Epoll,
    /// Multishot receives into buffers that the kernel picks, by io_uring.
    IoUring,
    /// Whole frames from the network card, past the kernel's socket layer; only for the asking.
    AfXdp,
}

/// How frames come from the network card.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// The best that its driver can.
    Auto,
    /// The card writes into our memory.
    ZeroCopy,
    /// The driver runs the filter, and frames are copied.
    Copy,
    /// The kernel runs the filter behind the driver: works with each, gains least.
    Generic,
}

/// What TTLs run by.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum TtlClock {
    /// Time since boot, which nobody can set.
    Boot,
    /// The wall clock.
    Wall,
}

/// Severity of log messages.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// What stops the server.
    Error,
    /// What an operator should look at.
    Warn,
    /// What the server is doing as a whole.
    Info,
    /// More of it.
    Debug,
    /// Everything.
    Trace,
}

/// One setting as the operator gave it, for the listing.
#[derive(Clone, Debug)]
pub struct Given {
    /// Environment variable.
    pub variable: String,
    /// Value as it was written; `None` when it is automatic.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: &'static str,
}

impl Given {
    /// Whether the operator said it.
    fn is_given(&self) -> bool {
        !matches!(self.source, "default" | "automatic")
    }
}

impl Settings {
    /// Reads flags and environment. A variable with our prefix that is no setting is an error, for a
    /// misspelt limit must not go unnoticed.
    pub fn read<A, E>(args: A, environment: E) -> Result<(Self, Vec<Given>), ConfigError>
    where
        A: IntoIterator<Item = std::ffi::OsString>,
        E: IntoIterator<Item = String>,
    {
        // Before or after the command: both are how people type.
        let command = Self::command().mut_args(|arg| arg.global(true));
        unknown_variable(&command, environment)?;
        let matches = command
            .clone()
            .try_get_matches_from(args)
            .map_err(|error| errors::explain(&command, error))?;
        let settings =
            Self::from_arg_matches(&matches).map_err(|error| errors::explain(&command, error))?;
        if settings.min_ttl > settings.max_ttl {
            return Err(ConfigError::TtlOrder { min: settings.min_ttl, max: settings.max_ttl });
        }
        Ok((settings, given(&command, &matches)))
    }

    /// Fills in what is automatic.
    pub fn resolve(&self, given: &[Given]) -> Result<Config, ConfigError> {
        auto::resolve(self, given, Path::new(RESOLV_CONF))
    }
}

fn given(command: &clap::Command, matches: &ArgMatches) -> Vec<Given> {
    let settings = command.get_arguments().filter_map(|arg| Some((arg, arg.get_env()?)));
    settings
        .map(|(arg, variable)| {
            let id = arg.get_id().as_str();
            let raw = matches.try_get_raw(id).ok().flatten();
            let delimiter = arg.get_value_delimiter().unwrap_or(',').to_string();
            let value = raw.map(|values| {
                values.map(|value| value.to_string_lossy()).collect::<Vec<_>>().join(&delimiter)
            });
            let source = match matches.value_source(id) {
                Some(ValueSource::CommandLine) => "flag",
                Some(ValueSource::EnvVariable) => "environment",
                Some(_) => "default",
                None => "automatic",
            };
            Given { variable: variable.to_string_lossy().into_owned(), value, source }
        })
        .collect()
}
