//! The servers beside which ours is measured.
//!
//! Each has a row in [`PEERS`] and a configuration in `bench/peers/`, with placeholders as
//! `@PORT@`. They are set up alike: one thread, everything forwarded to one upstream, no validation,
//! nothing told or limited, and a cache just large enough.

mod template;
mod zone;

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use nix::sys::statvfs::statvfs;
use tempfile::TempDir;

use crate::process::{Process, free_address};

/// Where daemons are, beside PATH.
const DAEMON_DIRECTORIES: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// What a cache has at least, in bytes: room for what isn't counted by names.
const CACHE_BYTES_MIN: usize = 4 << 20;

/// Files in memory.
const SHARED_MEMORY: &str = "/dev/shm";

/// What a peer does, and so which workloads it takes part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It caches, and forwards what it doesn't know.
    Resolver,
    /// It answers from a zone of [`Setup::names`], and asks nobody.
    Authoritative,
}

/// What a server is to be set up for.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'s> {
    /// The core it runs on.
    pub core: usize,
    /// Whom a resolver asks.
    pub upstream: SocketAddr,
    /// How many names its cache is for.
    pub cache_names: usize,
    /// The names of the zone of an authoritative one, each with an A record; with or without the
    /// dot at the end. There is at least one then.
    pub names: &'s [String],
}

/// A server beside which ours is measured.
#[derive(Debug)]
pub struct Peer {
    /// Its program, and what the report calls it.
    pub name: &'static str,
    /// What it does.
    pub role: Role,
    /// The name of its configuration file.
    file: &'static str,
    /// What is in that, with placeholders.
    template: &'static str,
    /// Arguments, with placeholders.
    arguments: &'static [&'static str],
    /// The limit on open files that it is started with, unless the usual one suits it.
    open_files: Option<u32>,
    /// A program that its packagers run beside it, with arguments.
    companion: Option<(&'static str, &'static [&'static str])>,
    /// The argument that makes it tell its version.
    version: &'static str,
    /// Placeholders for sizes of caches, with the bytes for each name. They were measured with
    /// 100,000 names as `n123456.bench.example`, type A; the template says more.
    bytes_per_name: &'static [(&'static str, usize)],
}

/// All peers, resolvers first.
pub const PEERS: &[Peer] = &[
    Peer {
        name: "unbound",
        role: Role::Resolver,
        file: "unbound.conf",
        template: include_str!("../peers/unbound.conf"),
        arguments: &["-d", "-p", "-c", "@CONFIG@"],
        open_files: None,
        companion: None,
        version: "-V",
        bytes_per_name: &[("MESSAGE_BYTES", 264), ("RRSET_BYTES", 352)],
    },
    Peer {
        name: "kresd",
        role: Role::Resolver,
        file: "kresd.lua",
        template: include_str!("../peers/kresd.lua"),
        arguments: &["-n", "-q", "-c", "@CONFIG@", "@DIR@"],
        open_files: None,
        companion: Some(("kres-cache-gc", &["-c", "@DIR@/cache", "-d", "1000"])),
        version: "-V",
        bytes_per_name: &[("CACHE_BYTES", 220)],
    },
    Peer {
        name: "pdns_recursor",
        role: Role::Resolver,
        file: "recursor.conf",
        template: include_str!("../peers/pdns_recursor.conf"),
        arguments: &["--config-dir=@DIR@"],
        open_files: None,
        companion: None,
        version: "--version",
        bytes_per_name: &[],
    },
    Peer {
        name: "dnsdist",
        role: Role::Resolver,
        file: "dnsdist.lua",
        template: include_str!("../peers/dnsdist.lua"),
        arguments: &["--supervised", "--disable-syslog", "--config", "@CONFIG@"],
        open_files: None,
        companion: None,
        version: "--version",
        bytes_per_name: &[],
    },
    Peer {
        name: "named",
        role: Role::Resolver,
        file: "named.conf",
        template: include_str!("../peers/named.conf"),
        arguments: &["-f", "-n", "1", "-c", "@CONFIG@"],
        open_files: None,
        companion: None,
        version: "-V",
        bytes_per_name: &[("CACHE_BYTES", 420)],
    },
    Peer {
        name: "dnsmasq",
        role: Role::Resolver,
        file: "dnsmasq.conf",
        template: include_str!("../peers/dnsmasq.conf"),
        arguments: &["--keep-in-foreground", "--log-facility=-", "--conf-file=@CONFIG@"],
        // It walks a table of a third of that for each query; services get 1024 from systemd.
        open_files: Some(1024),
        companion: None,
        version: "--version",
        bytes_per_name: &[],
    },
    Peer {
        name: "knotd",
        role: Role::Authoritative,
        file: "knotd.conf",
        template: include_str!("../peers/knotd.conf"),
        arguments: &["-c", "@CONFIG@"],
        open_files: None,
        companion: None,
        version: "-V",
        bytes_per_name: &[],
    },
    Peer {
        name: "nsd",
        role: Role::Authoritative,
        file: "nsd.conf",
        template: include_str!("../peers/nsd.conf"),
        arguments: &["-d", "-c", "@CONFIG@"],
        open_files: None,
        companion: None,
        version: "-v",
        bytes_per_name: &[],
    },
];

/// `knotd` once more, over AF_XDP sockets on the interface that it is started on.
pub const KNOTD_XDP: Peer = Peer {
    name: "knotd",
    role: Role::Authoritative,
    file: "knotd.conf",
    template: include_str!("../peers/knotd-xdp.conf"),
    arguments: &["-c", "@CONFIG@"],
    open_files: None,
    companion: None,
    version: "-V",
    bytes_per_name: &[],
};

impl Peer {
    /// Its program, if it is installed: in PATH, or where daemons are.
    #[must_use]
    pub fn find(&self) -> Option<PathBuf> {
        find(self.name)
    }

    /// Its version for the report, as `1.17.1`; `unknown` if it doesn't tell.
    #[must_use]
    pub fn version(&self, program: &Path) -> String {
        let output = Command::new(program).arg(self.version).stdin(Stdio::null()).output();
        let told = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
        version_in(&String::from_utf8_lossy(&told)).unwrap_or("unknown").to_owned()
    }

    /// Starts it on a free port of loopback, with one thread and all of its processes on one core.
    /// It may take a while until it answers.
    pub fn start(&self, program: &Path, setup: &Setup<'_>) -> anyhow::Result<Process> {
        let address = free_address().context("loopback has no free port")?;
        self.start_at(address, "lo", program, setup)
    }

    /// The same on this address, which the interface of that name has.
    pub fn start_at(
        &self,
        address: SocketAddr,
        interface: &str,
        program: &Path,
        setup: &Setup<'_>,
    ) -> anyhow::Result<Process> {
        let directory = self.directory(setup)?;
        let path = directory.path();
        let values = self.values(address, interface, path, setup);
        let template = template::fill(self.template, &values)?;
        write(&path.join(self.file), &template)?;
        if self.role == Role::Authoritative {
            let zone = zone::text(setup.names);
            write(&path.join("zone"), &zone)?;
        }
        let mut command = command_of(program, self.arguments, &values)?;
        if let Some(limit) = self.open_files {
            let limited = command;
            command = Command::new("prlimit");
            command.arg(format!("--nofile={limit}")).arg(program).args(limited.get_args());
        }
        let companion = self.companion.and_then(|(name, arguments)| Some((find(name)?, arguments)));
        let companion =
            companion.map(|(program, arguments)| command_of(&program, arguments, &values));
        let mut process = Process::start(self.name, address, command, setup.core, Some(directory))?;
        if let Some(companion) = companion {
            process.add_companion(companion?, setup.core)?;
        }
        Ok(process)
    }

    /// In memory, if there is room: a cache in a file is meant to be there.
    fn directory(&self, setup: &Setup<'_>) -> anyhow::Result<TempDir> {
        let needed: usize = self.sizes(setup).map(|(_, bytes)| 2 * bytes).sum();
        let room =
            statvfs(SHARED_MEMORY).map_or(0, |room| room.blocks_available() * room.fragment_size());
        let mut builder = tempfile::Builder::new();
        builder.prefix("swiftlet-bench-");
        if room > needed as u64
            && let Ok(directory) = builder.tempdir_in(SHARED_MEMORY)
        {
            return Ok(directory);
        }
        builder.tempdir().context("cannot make a temporary directory")
    }

    fn sizes(&self, setup: &Setup<'_>) -> impl Iterator<Item = (&'static str, usize)> {
        let names = setup.cache_names;
        let each = self.bytes_per_name.iter();
        each.map(move |&(name, bytes)| (name, (names * bytes).max(CACHE_BYTES_MIN)))
    }

    fn values(
        &self,
        address: SocketAddr,
        interface: &str,
        directory: &Path,
        setup: &Setup<'_>,
    ) -> Vec<(&'static str, String)> {
        let mut values = vec![
            ("ADDRESS", address.ip().to_string()),
            ("PORT", address.port().to_string()),
            ("INTERFACE", interface.to_owned()),
            ("UPSTREAM", setup.upstream.ip().to_string()),
            ("UPSTREAM_PORT", setup.upstream.port().to_string()),
            ("DIR", directory.display().to_string()),
            ("CONFIG", directory.join(self.file).display().to_string()),
            ("CACHE_NAMES", setup.cache_names.to_string()),
            ("ZONE", zone::apex(setup.names)),
        ];
        values.extend(self.sizes(setup).map(|(name, bytes)| (name, bytes.to_string())));
        values
    }
}

fn command_of(
    program: &Path,
    arguments: &[&str],
    values: &[(&str, String)],
) -> anyhow::Result<Command> {
    let mut command = Command::new(program);
    for argument in arguments {
        command.arg(template::fill(argument, values)?);
    }
    Ok(command)
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let daemons = DAEMON_DIRECTORIES.iter().map(PathBuf::from);
    env::split_paths(&path).chain(daemons).map(|directory| directory.join(program)).find(|file| {
        fs::metadata(file)
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    })
}

/// The first word that looks like a version, as `9.18.49`.
fn version_in(told: &str) -> Option<&str> {
    told.split(|letter: char| letter.is_whitespace() || letter == ',')
        .find(|word| word.starts_with(|letter: char| letter.is_ascii_digit()) && word.contains('.'))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_and_argument_is_filled() {
        let names = ["a.example".to_owned()];
        let upstream = ([192, 0, 2, 53], 5353).into();
        let setup = Setup { core: 0, upstream, cache_names: 100_000, names: &names };
        for peer in PEERS.iter().chain([&KNOTD_XDP]) {
            let address = ([127, 0, 0, 1], 12_345).into();
            let values = peer.values(address, "lo", Path::new("/run/peer"), &setup);
            let text = template::fill(peer.template, &values).expect(peer.name);
            assert!(text.contains("12345") && text.contains("127.0.0.1"), "{}", peer.name);
            match peer.role {
                Role::Resolver => assert!(text.contains("5353") && text.contains("192.0.2.53")),
                Role::Authoritative => assert!(text.contains("example")),
            }
            let companion = peer.companion.map_or(&[][..], |(_, arguments)| arguments);
            for argument in peer.arguments.iter().chain(companion) {
                template::fill(argument, &values).expect(peer.name);
            }
            for (name, _) in peer.bytes_per_name {
                assert!(peer.template.contains(&format!("@{name}@")), "{} {name}", peer.name);
            }
        }
    }

    #[test]
    fn every_peer_is_there_once_resolvers_first() {
        let mut names: Vec<_> = PEERS.iter().map(|peer| peer.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PEERS.len());
        assert!(PEERS.is_sorted_by_key(|peer| peer.role == Role::Authoritative));
    }

    #[test]
    fn versions_are_found_in_what_servers_tell() {
        for (told, version) in [
            ("Version 1.17.1\n\nConfigure line: --build=x86_64", "1.17.1"),
            ("Knot Resolver, version 5.6.0\n", "5.6.0"),
            ("Nov 20 19:54:03 PowerDNS Recursor 4.8.8 (C) 2001-2022", "4.8.8"),
            ("dnsdist 1.7.3 (Lua 5.1.4 [LuaJIT 2.1.0-beta3])", "1.7.3"),
            ("BIND 9.18.49-1~deb12u3-Debian (Extended", "9.18.49-1~deb12u3-Debian"),
        ] {
            assert_eq!(version_in(told), Some(version));
        }
        assert_eq!(version_in("no version"), None);
    }

    #[test]
    fn programs_are_found_in_path_and_only_if_they_can_run() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program"), None);
    }
}
