//! The program: reads the configuration, then serves or shows it.

use std::process::ExitCode;

use swiftlet::backend::{self, Choice};
use swiftlet::config::{Command, Config, ConfigError, LogLevel, Settings};
use swiftlet::{features, health, startup, upstream};
use tracing::level_filters::LevelFilter;

// The first of these that is compiled in; with none of them it is the system's.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
#[cfg(all(feature = "jemalloc", not(feature = "mimalloc")))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Exit status for a configuration that cannot be used.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let environment = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    let (settings, given) = match Settings::read(std::env::args_os(), environment) {
        Ok(read) => read,
        Err(error) => return unusable(error),
    };
    let config = match settings.resolve(&given) {
        Ok(config) => config,
        Err(error) => return unusable(error),
    };
    match settings.command {
        Some(Command::Config) => {
            show(&config);
            ExitCode::SUCCESS
        }
        Some(Command::Health) => match health::check(&config.listen) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("swiftlet: {error:#}");
                ExitCode::FAILURE
            }
        },
        Some(Command::Upstreams) => match upstream::report::fetch(config.settings.http) {
            Ok(servers) => {
                print!("{}", upstream::report::table(&servers));
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("swiftlet: {error:#}");
                ExitCode::FAILURE
            }
        },
        None => serve(&config),
    }
}

fn serve(config: &Config) -> ExitCode {
    log_to_stderr(config.settings.log);
    match startup::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn unusable(error: ConfigError) -> ExitCode {
    match error {
        // Help and version are errors to clap, but not to whoever asked for them.
        ConfigError::CommandLine(error) => error.exit(),
        error => {
            eprintln!("swiftlet: {error}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn show(config: &Config) {
    let width = |of: fn(&swiftlet::config::Source) -> &String| {
        config.effective.iter().map(|source| of(source).len()).max().unwrap_or(0).min(40)
    };
    let (variables, values) = (width(|source| &source.variable), width(|source| &source.value));
    for source in &config.effective {
        let assignment = format!("{}={}", source.variable, source.value);
        println!("{assignment:<0$}  # {1}", variables + 1 + values, source.why);
    }
    println!("# features: {}", features::compiled());
    for (part, name) in features::active() {
        println!("# {part}: {name}");
    }
    println!("# answer cache: {}", config.settings.cache.name());
    match backend::choose(config.settings.backend) {
        Ok(Choice { kind, why }) => println!("# backend: {} ({why})", kind.name()),
        Err(absent) => println!("# backend: none, the server will not start: {absent}"),
    }
    for note in &config.notes {
        println!("# {note}");
    }
}

fn log_to_stderr(level: LogLevel) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        .init();
}
