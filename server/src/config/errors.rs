//! What is wrong with the configuration, said so that it can be mended at once: the variable, the flag,
//! the value, what is expected, and the nearest valid name.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::PREFIX;

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value that its setting does not take.
    #[error("{variable} (--{flag}): '{value}' is not valid: {expected}")]
    Value {
        /// Environment variable of the setting.
        variable: String,
        /// Its flag, without dashes.
        flag: String,
        /// What was given.
        value: String,
        /// What is expected.
        expected: String,
    },
    /// A variable with our prefix that is no setting.
    #[error("{variable} is no setting of this server{}; see swiftlet --help", suggestion(.nearest))]
    UnknownVariable {
        /// The variable.
        variable: String,
        /// The setting whose name is nearest, if any is near.
        nearest: Option<String>,
    },
    /// MIN_TTL above MAX_TTL.
    #[error(
        "SWIFTLET_MIN_TTL ({min}) is above SWIFTLET_MAX_TTL ({max}); lower one or raise the other"
    )]
    TtlOrder {
        /// The one.
        min: u32,
        /// The other.
        max: u32,
    },
    /// No upstream was given and the system names none.
    #[error(
        "no upstream: {path} names no nameserver; set SWIFTLET_FORWARD, such as 192.0.2.1,192.0.2.2:5353"
    )]
    NoUpstream {
        /// The file that was read.
        path: String,
    },
    /// Every upstream is this server.
    #[error(
        "every upstream ({upstreams}) is an address that this server listens on itself; \
         set SWIFTLET_FORWARD to another resolver"
    )]
    OnlySelf {
        /// The upstreams, separated by commas.
        upstreams: String,
    },
    /// An upstream given twice.
    #[error("SWIFTLET_FORWARD names {address} twice; leave one out")]
    Repeated {
        /// The address.
        address: std::net::SocketAddr,
    },
    /// More zones than there may be.
    #[error(
        "SWIFTLET_FORWARD_ZONES has {given} zones; at most {} are expected",
        super::zones::MAX_ZONES
    )]
    TooManyZones {
        /// Zones given.
        given: usize,
    },
    /// A zone given twice.
    #[error(
        "SWIFTLET_FORWARD_ZONES names {zone} twice; \
         give it once, with all its servers: zone=address+address"
    )]
    ZoneRepeated {
        /// The zone.
        zone: String,
    },
    /// A server given twice for one zone.
    #[error("SWIFTLET_FORWARD_ZONES names {address} twice for {zone}; leave one out")]
    ZoneServerRepeated {
        /// The zone.
        zone: String,
        /// The server.
        address: std::net::SocketAddr,
    },
    /// A zone's server is this server.
    #[error(
        "SWIFTLET_FORWARD_ZONES sends {zone} to {address}, an address that this server listens on \
         itself; another resolver is expected"
    )]
    ZoneSelf {
        /// The zone.
        zone: String,
        /// The server.
        address: std::net::SocketAddr,
    },
    /// An address to listen on given twice.
    #[error("SWIFTLET_LISTEN names {address} twice; leave one out")]
    ListenRepeated {
        /// The address.
        address: std::net::SocketAddr,
    },
    /// A backend that this program does not have.
    #[error(
        "SWIFTLET_BACKEND: this binary was built without io-uring: build with --features io-uring, \
         or set SWIFTLET_BACKEND=auto"
    )]
    NoIoUring,
    /// The other one.
    #[error(
        "SWIFTLET_BACKEND: this binary was built without af-xdp: build with --features af-xdp, \
         or set SWIFTLET_BACKEND=auto"
    )]
    NoAfXdp,
    /// A setting of af-xdp while another backend is to serve.
    #[error(
        "{variable} is for SWIFTLET_BACKEND=af-xdp and would change nothing; set that, or leave it out"
    )]
    NotAfXdp {
        /// The variable.
        variable: String,
    },
    /// An answer cache that this program does not have.
    #[error(
        "SWIFTLET_CACHE: this binary was built without moka: build with --features moka-cache, \
         or set SWIFTLET_CACHE=segmented"
    )]
    NoMoka,
    /// Busy polling by workers that have no core of their own.
    #[error(
        "SWIFTLET_BUSY_POLL_US ({us}) needs a core of its own for each worker, but {why}; {fix}, \
         or set SWIFTLET_BUSY_POLL_US=0"
    )]
    BusyPollUnpinned {
        /// Microseconds asked for.
        us: u16,
        /// Why they have none.
        why: String,
        /// What to change.
        fix: String,
    },
    /// Looking ahead was asked for and would change nothing.
    #[error("SWIFTLET_LOOK_AHEAD is true, but {why}; set it to false or leave it out")]
    NothingAhead {
        /// Why it would change nothing.
        why: &'static str,
    },
    /// Huge pages asked for or forbidden where the cache has no memory of its own.
    #[error(
        "SWIFTLET_HUGE_PAGES: the answer cache on moka has no memory of its own; \
         set SWIFTLET_CACHE=segmented, or leave it out"
    )]
    NoHugePages,
    /// Help, version, or a fault in the command line that clap explains well enough.
    #[error(transparent)]
    CommandLine(#[from] clap::Error),
}

fn suggestion(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

/// The first variable with our prefix that is no setting.
pub(super) fn unknown_variable(
    command: &clap::Command,
    environment: impl IntoIterator<Item = String>,
) -> Result<(), ConfigError> {
    let known: Vec<String> = command
        .get_arguments()
        .filter_map(|arg| Some(arg.get_env()?.to_string_lossy().into_owned()))
        .collect();
    let mut strangers: Vec<String> = environment
        .into_iter()
        .filter(|name| name.starts_with(PREFIX) && !known.contains(name) && !is_service_link(name))
        .collect();
    strangers.sort();
    let Some(variable) = strangers.into_iter().next() else {
        return Ok(());
    };
    let nearest = known
        .iter()
        .map(|name| (strsim::jaro_winkler(&name[PREFIX.len()..], &variable[PREFIX.len()..]), name))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name.clone());
    Err(ConfigError::UnknownVariable { variable, nearest })
}

/// Whether a variable is one that Kubernetes makes for a Service named `swiftlet`.
fn is_service_link(name: &str) -> bool {
    let name = &name[PREFIX.len()..];
    name == "SERVICE_HOST"
        || name == "PORT"
        || name.starts_with("SERVICE_PORT")
        || name
            .strip_prefix("PORT_")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Says which variable and flag a value was for, whichever of the two it came by.
pub(super) fn explain(command: &clap::Command, error: clap::Error) -> ConfigError {
    let invalid = matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue);
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let (true, Some(arg), Some(value)) =
        (invalid, text(ContextKind::InvalidArg), text(ContextKind::InvalidValue))
    else {
        return error.into();
    };
    let flag = arg.trim_start_matches('-').split([' ', '=']).next().unwrap_or_default().to_owned();
    let setting = command.get_arguments().find(|arg| arg.get_long() == Some(&flag));
    let Some(variable) = setting.and_then(|arg| arg.get_env()) else {
        return error.into();
    };
    let expected = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) => format!("one of {} is expected", values.join(", ")),
        _ => std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default(),
    };
    ConfigError::Value { variable: variable.to_string_lossy().into_owned(), flag, value, expected }
}
