//! `authority`: a name server that answers anything.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use swiftlet_loadtest::values;
use swiftlet_loadtest::{Authority, Behaviour, CHAIN_MAX, Delay, TEXT_MAX, Zone};
use swiftlet_parser::name::Name;

use super::load_args::stop_flag;

/// How often the program looks whether it should end.
const STOP_WAIT: Duration = Duration::from_millis(50);

/// Arguments of `authority`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Address and port to listen on, over UDP and TCP.
    #[arg(long, default_value = "127.0.0.1:5300")]
    listen: SocketAddr,
    /// Names under it are answered, others refused.
    #[arg(long, default_value = ".", value_parser = name)]
    suffix: Name,
    /// TTL of every record, in seconds.
    #[arg(long, default_value_t = 3600, value_parser = clap::value_parser!(u32).range(..=0x7fff_ffff))]
    ttl: u32,
    /// Bytes of text in a TXT record.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(..=i64::from(TEXT_MAX)))]
    txt_size: u16,
    /// CNAMEs in front of the answer.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=i64::from(CHAIN_MAX)))]
    cname_chain: u8,
    /// Share of the names that don't exist: 0.2, or 20%.
    #[arg(long, default_value = "0", value_parser = values::share)]
    nxdomain: f64,
    /// Time for which answers are held back: 10ms, uniform:5ms,20ms or exp:10ms. Over TCP the answers
    /// to what was read at once are held back together, one such time.
    #[arg(long, default_value = "0", value_parser = Delay::from_text)]
    delay: Delay,
    /// Share of the queries over UDP that are dropped: 0.01, or 1%. TCP loses none, as it would send
    /// again what a network loses.
    #[arg(long, default_value = "0", value_parser = values::share)]
    loss: f64,
    /// What delay and loss follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Core to pin the thread to that answers datagrams.
    #[arg(long)]
    core: Option<usize>,
}

fn name(text: &str) -> Result<Name, String> {
    Name::from_text(text).map_err(|error| error.to_string())
}

/// Serves until SIGINT or SIGTERM; always true.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let stop = stop_flag()?;
    let behaviour = Behaviour {
        zone: Zone {
            suffix: args.suffix,
            ttl_s: args.ttl,
            text_len: args.txt_size,
            chain: args.cname_chain,
            nxdomain_share: args.nxdomain,
        },
        delay: args.delay,
        loss: args.loss,
        seed: args.seed,
        core: args.core,
    };
    let authority = Authority::start_with(args.listen, behaviour)
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    println!("answering on {}", authority.address());
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(STOP_WAIT);
    }
    println!("answered {}", authority.answered());
    Ok(true)
}
