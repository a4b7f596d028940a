//! What carries the clients' datagrams, one carrier for each worker. Sockets are opened by the workers
//! themselves; what af-xdp needs is opened here, once and before they start.

use anyhow::Context;

use crate::backend::{self, Choice, Kind};
use crate::config::Config;
use crate::filters::Filters;
#[cfg(feature = "af-xdp")]
use {
    crate::config::{Backend, XdpMode},
    anyhow::bail,
    swiftlet_net::backend::xdp::{self, Mode, Request, Share, XdpError},
};

/// What one worker's backend is made of, beside its sockets.
pub(super) enum Carrier {
    /// Nothing.
    Epoll,
    /// Nothing.
    #[cfg(feature = "io-uring")]
    IoUring,
    /// Queues of interfaces.
    #[cfg(feature = "af-xdp")]
    AfXdp(Share),
}

/// The carriers of all workers.
pub(super) struct Carriers {
    /// The backend, and why.
    pub(super) choice: Choice,
    /// One for each worker, by its number.
    pub(super) of_workers: Vec<Carrier>,
    /// The filters that give frames to them.
    pub(super) filters: Filters,
}

impl Carriers {
    /// Chooses the backend and opens what takes privileges.
    pub(super) fn open(config: &Config) -> anyhow::Result<Self> {
        let choice = backend::choose(config.settings.backend).context(
            "SWIFTLET_BACKEND: this backend does not work here (auto takes the best one that does)",
        )?;
        let carrier: fn() -> Carrier = match choice.kind {
            Kind::Epoll => || Carrier::Epoll,
            #[cfg(feature = "io-uring")]
            Kind::IoUring => || Carrier::IoUring,
            #[cfg(feature = "af-xdp")]
            Kind::AfXdp => return Self::af_xdp(config, choice),
        };
        Ok(Self {
            choice,
            of_workers: std::iter::repeat_with(carrier).take(config.workers).collect(),
            filters: Filters::default(),
        })
    }

    /// Attaches the filters and opens the sockets behind them, or sees to it that another backend serves.
    #[cfg(feature = "af-xdp")]
    fn af_xdp(config: &Config, choice: Choice) -> anyhow::Result<Self> {
        match xdp::open(&request(config)) {
            Ok((filters, shares)) => Ok(Self {
                choice,
                of_workers: shares.into_iter().map(Carrier::AfXdp).collect(),
                filters: Filters::new(filters),
            }),
            Err(error) => {
                let why = why_not(&error, config.settings.xdp_fallback)?;
                let mut config = config.clone();
                config.settings.backend = Backend::Auto;
                let mut carriers = Self::open(&config)?;
                carriers.choice.why = format!("{why}; {}", carriers.choice.why);
                tracing::warn!("{why}, so sockets serve: {error}");
                Ok(carriers)
            }
        }
    }
}

/// Why another backend serves, unless that would hide what the operator must see.
#[cfg(feature = "af-xdp")]
fn why_not(error: &XdpError, fallback: bool) -> anyhow::Result<&'static str> {
    // Silently going around somebody else's program would leave two services in each other's way.
    if error.is_conflict() {
        bail!("SWIFTLET_BACKEND=af-xdp: {error}");
    }
    if !fallback {
        bail!(
            "SWIFTLET_BACKEND=af-xdp does not work here \
             (SWIFTLET_XDP_FALLBACK=true serves over sockets instead): {error}"
        );
    }
    Ok("af-xdp does not work here")
}

#[cfg(feature = "af-xdp")]
fn request(config: &Config) -> Request {
    let settings = &config.settings;
    let mut queues: Vec<u32> = settings.xdp_queues.iter().cloned().flatten().collect();
    queues.sort_unstable();
    queues.dedup();
    Request {
        listeners: config.listen.clone(),
        interfaces: settings.xdp_interface.clone(),
        queues: (!queues.is_empty()).then_some(queues),
        mode: match settings.xdp_mode {
            XdpMode::Auto => Mode::Auto,
            XdpMode::ZeroCopy => Mode::ZeroCopy,
            XdpMode::Copy => Mode::Copy,
            XdpMode::Generic => Mode::Generic,
        },
        workers: config.workers,
        batch: settings.batch,
        busy_poll_us: settings.busy_poll_us.into(),
    }
}

#[cfg(all(test, feature = "af-xdp"))]
mod tests {
    use super::*;
    use crate::config::Settings;

    #[test]
    fn a_foreign_program_stops_the_start_whatever_the_fallback_says() {
        let foreign = XdpError::AttachedAbove { interface: "eth0".into() };
        for fallback in [true, false] {
            let error = why_not(&foreign, fallback).unwrap_err().to_string();
            assert!(error.starts_with("SWIFTLET_BACKEND=af-xdp: another XDP program"), "{error}");
        }
        assert_eq!(why_not(&XdpError::NoFamily, true).unwrap(), "af-xdp does not work here");
        let error = why_not(&XdpError::NoFamily, false).unwrap_err().to_string();
        assert!(error.contains("SWIFTLET_XDP_FALLBACK=true"), "{error}");
    }

    #[test]
    fn queues_are_asked_for_once_each() {
        let asked = |queues: &[&str]| {
            let fixed = ["swiftlet", "--forward", "192.0.2.1", "--backend", "af-xdp"];
            let args = fixed.iter().chain(queues).map(Into::into);
            let (settings, given) = Settings::read(args, []).expect("valid settings");
            request(&settings.resolve(&given).expect("a configuration")).queues
        };
        assert_eq!(asked(&[]), None);
        assert_eq!(asked(&["--xdp-queues", "5,0-2,1"]), Some(vec![0, 1, 2, 5]));
    }
}
