//! The arguments that every load has: whom it is for, what is asked, and by whom.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use swiftlet_loadtest::values::{self, Source, Zipf};
use swiftlet_loadtest::{Builder, Queries, QueriesError, Report, Shape, Transport};

/// Whom a load is for, and how it is carried.
#[derive(clap::Args)]
pub(crate) struct LoadArgs {
    /// Address and port of the server, as 127.0.0.1:53 or [::1]:53.
    #[arg(long)]
    pub(crate) server: SocketAddr,
    /// What carries the queries.
    #[arg(long, value_enum, default_value_t = Carrier::Udp)]
    transport: Carrier,
    /// Threads.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Cores to pin the threads to, in turn. Not pinned if left out.
    #[arg(long, value_delimiter = ',')]
    pub(crate) cores: Vec<usize>,
    /// UDP sockets, that is source ports, of each thread.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=4096))]
    sockets: u16,
    /// TCP connections of each thread.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=4096))]
    connections: u16,
    /// Queries after which a TCP connection is renewed. Without a bound if left out.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    queries_per_connection: Option<u64>,
    /// Pass each UDP query to the kernel by itself, not those of one length in one message that it
    /// cuts up (UDP_SEGMENT): dearer, but the order of the queries stays within a batch.
    #[arg(long)]
    pub(crate) no_segmentation: bool,
    /// Local addresses, FIRST-LAST, taken in turn by the sockets, as 127.0.0.1-127.0.0.100.
    #[arg(long, value_parser = values::sources)]
    source_range: Option<Sources>,
    /// Time after which a query counts as lost: 500ms, 2s, or plain seconds.
    #[arg(long, default_value = "1s", value_parser = values::duration)]
    pub(crate) timeout: Duration,
    /// Process of the server, to report its CPU time and memory.
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// File to write the result to as JSON.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// File to write charts to, as one page of HTML.
    #[arg(long)]
    pub(crate) html: Option<PathBuf>,
    #[command(flatten)]
    workload: Workload,
}

type Sources = Vec<IpAddr>;

#[derive(Clone, Copy, clap::ValueEnum)]
enum Carrier {
    Udp,
    Tcp,
}

/// What is asked. One of the sources, or several with --mix.
#[derive(clap::Args)]
struct Workload {
    #[command(flatten)]
    source: SourceArgs,
    /// Suffix of the built-in names.
    #[arg(long, default_value = "bench.example")]
    names_under: String,
    /// Send EDNS with this UDP payload size; 1232 if none is given.
    #[arg(long, num_args = 0..=1, default_missing_value = "1232")]
    edns: Option<u16>,
    /// Set DO.
    #[arg(long = "do")]
    dnssec_ok: bool,
    /// Share of the queries whose letters are of random case: 0.5, or 50%.
    #[arg(long, default_value = "0", value_parser = values::share)]
    case_share: f64,
    /// What all that is random follows from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct SourceArgs {
    /// File with one query a line: a name, and a type unless it is A (as dnsperf has it).
    #[arg(long)]
    queries: Option<PathBuf>,
    /// Queries to port 53 out of a pcap file, in their order.
    #[arg(long)]
    pcap: Option<PathBuf>,
    /// N built-in names, drawn from a Zipf distribution: N,EXPONENT.
    #[arg(long, value_parser = values::zipf)]
    zipf: Option<Zipf>,
    /// N built-in names, drawn alike.
    #[arg(long, value_parser = values::count)]
    uniform: Option<usize>,
    /// Names under a suffix that are never asked twice.
    #[arg(long, value_name = "SUFFIX")]
    random_subdomains: Option<String>,
    /// Several sources in shares; repeat it, as in `--mix 70=zipf:10000,1.0 --mix
    /// 30=random:example`. Kinds are queries:FILE, pcap:FILE, zipf:N,EXP, uniform:N, random:SUFFIX.
    #[arg(long, value_name = "SHARE=KIND:VALUE", value_parser = values::mix)]
    mix: Vec<(f64, Source)>,
}

impl LoadArgs {
    pub(crate) fn threads(&self) -> usize {
        usize::from(self.threads)
    }

    /// Sockets or connections over all threads.
    pub(crate) fn channels(&self) -> usize {
        let each = match self.transport {
            Carrier::Udp => self.sockets,
            Carrier::Tcp => self.connections,
        };
        usize::from(each) * self.threads()
    }

    pub(crate) fn transport(&self) -> Transport {
        let per_connection = self.queries_per_connection.unwrap_or(u64::MAX);
        match self.transport {
            Carrier::Udp => Transport::Udp,
            Carrier::Tcp => Transport::Tcp { per_connection },
        }
    }

    pub(crate) fn sources(&self) -> &[IpAddr] {
        self.source_range.as_deref().unwrap_or_default()
    }

    /// What cannot be, beyond what each argument says by itself.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if let Some(source) = self.sources().first() {
            anyhow::ensure!(
                source.is_ipv4() == self.server.is_ipv4(),
                "--source-range and --server must be of one family: {source} cannot reach {}",
                self.server
            );
        }
        if let Some(pid) = self.pid {
            swiftlet_loadtest::Usage::of(pid)
                .with_context(|| format!("--pid {pid}: cannot read its /proc files"))?;
        }
        // Tens of thousands of sockets need more than the usual soft limit; opening them says more.
        let _ = swiftlet_net::limits::raise_open_files();
        Ok(())
    }

    /// Builds the packets.
    pub(crate) fn queries(&self) -> Result<Queries, QueriesError> {
        let Workload { source, names_under, edns, dnssec_ok, case_share, seed } = &self.workload;
        let shape =
            Shape { edns: *edns, dnssec_ok: *dnssec_ok, case_share: *case_share, seed: *seed };
        let mut builder = Builder::new(shape);
        let single = [
            source.queries.clone().map(Source::File),
            source.pcap.clone().map(Source::Pcap),
            source.zipf.map(Source::Zipf),
            source.uniform.map(|count| Source::Zipf(Zipf { count, exponent: 0.0 })),
            source.random_subdomains.clone().map(Source::Fresh),
        ];
        let single = single.into_iter().flatten().map(|source| (1.0, source));
        for (share, source) in single.chain(source.mix.iter().cloned()) {
            match source {
                Source::File(path) => builder.add_file(&path, share)?,
                Source::Pcap(path) => builder.add_pcap(&path, share)?,
                Source::Zipf(zipf) => {
                    builder.add_names(zipf.count, zipf.exponent, names_under, share)?;
                }
                Source::Fresh(suffix) => builder.add_fresh_names(&suffix, share)?,
            }
        }
        let queries = builder.build();
        match queries.passed_over() {
            0 => {}
            count => eprintln!(
                "passed over {count} packets of the recording: no queries over UDP to port 53"
            ),
        }
        Ok(queries)
    }
}

/// A flag that the first Ctrl-C or SIGTERM sets; the second ends the program.
pub(crate) fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// The command line, for the record.
pub(crate) fn command_line() -> String {
    std::env::args().skip(1).collect::<Vec<_>>().join(" ")
}

/// An error if nothing at all came back.
pub(crate) fn ensure_answers(server: SocketAddr, report: &Report) -> anyhow::Result<()> {
    anyhow::ensure!(
        report.answered > 0 || report.unreachable == 0,
        "nobody listens at {server}: the port refused the queries"
    );
    anyhow::ensure!(
        report.answered > 0 || report.sent == 0,
        "{server} answered none of {} queries; is the address right?",
        report.sent
    );
    Ok(())
}
