//! A network of the run's own: the broker and each service in a network namespace, joined by a bridge in this program's.
//!
//! ```text
//!   this program, its own namespace: bridge 10.77.0.1
//!      │ port-2          │ port-3           │ port-4 …
//!      │                 │                  │
//!   eth0 10.77.0.2    eth0 10.77.0.3     eth0 10.77.0.4
//!    broker            ingest-0           worker-0
//! ```
//! `unshare` gives the program a namespace without a name, and a process on a leash holds that of each host: when this program is
//! gone, in whatever way, so are they all. Root is not needed where user namespaces are allowed.
//!
//! Packets vanish in silence, as they do on a real network: a host is cut off by taking its port off the bridge, one host from
//! another by a neighbour's address that nobody has. A slow link has `netem` where the kernel has it, else a narrow bucket.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use tidegate_tests::Place;

/// The ways into a namespace of our own: as root, else as a root of our own.
const WAYS: &[&[&str]] = &[&["--net"], &["--user", "--map-root-user", "--net"]];
/// Nobody's.
const NOWHERE: &str = "02:00:00:00:00:ff";
/// 150 ms, give or take 100.
const NETEM: &[&str] = &["netem", "delay", "150ms", "100ms"];
/// A third of what an ingest reads passes; packets wait up to 400 ms, then they are dropped.
const BUCKET: &[&str] = &["tbf", "rate", "400kbit", "burst", "16kb", "latency", "400ms"];

/// The namespaces of all hosts; they end with this value.
#[derive(Debug)]
pub struct Network {
    hosts: BTreeMap<String, Host>,
    slow: &'static [&'static str],
}

#[derive(Debug)]
struct Host {
    address: Ipv4Addr,
    /// The end of its cable at the bridge.
    port: String,
    /// Holds the namespace until its standard input closes.
    holder: Child,
}

/// Runs this program again with `arguments` in a namespace of its own, in its own stead. Comes back only where that cannot be; then
/// it says why. A run with `probe` has to show first that everything works.
pub fn enter(arguments: &[String], probe: &[String]) -> Result<String> {
    let program = std::env::current_exe()?;
    let mut why = String::new();
    for way in WAYS {
        let unshare = |arguments: &[String]| {
            let mut command = Command::new("unshare");
            command.args(*way).arg(&program).args(arguments);
            command
        };
        match unshare(probe).stdin(Stdio::null()).output() {
            Ok(output) if output.status.success() => return Err(unshare(arguments).exec().into()),
            Ok(output) => why = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "),
            Err(error) => why = format!("unshare: {error}"),
        }
    }
    Ok(why)
}

impl Network {
    /// Lays the cables, in a namespace that is this program's own.
    pub fn lay(names: &[&str]) -> Result<Self> {
        ip(&["link", "set", "lo", "up"])?;
        ip(&["link", "add", "bridge", "type", "bridge"])?;
        ip(&["address", "add", "10.77.0.1/24", "dev", "bridge"])?;
        ip(&["link", "set", "bridge", "up"])?;
        let mut hosts = BTreeMap::new();
        for (number, name) in (2..).zip(names) {
            hosts.insert((*name).to_owned(), Host::connect(number).with_context(|| format!("host {name}"))?);
        }
        let mut network = Self { hosts, slow: NETEM };
        let first = names.first().context("no hosts")?;
        if network.slow_down(first).is_err() {
            network.slow = BUCKET;
            network.slow_down(first)?;
        }
        network.join(first)?;
        Ok(network)
    }

    /// Where a host is.
    pub fn place(&self, name: &str) -> Result<Place> {
        let host = self.host(name)?;
        Ok(Place { address: IpAddr::V4(host.address), enter: host.enter() })
    }

    /// What a slow link is here.
    pub fn slowness(&self) -> String {
        self.slow.join(" ")
    }

    /// Nothing comes to this host any more, nor from it.
    pub fn cut(&self, name: &str) -> Result<()> {
        ip(&["link", "set", &self.host(name)?.port, "nomaster"])
    }

    /// Nothing of `from` comes to `to` any more; the other way is open.
    pub fn part(&self, from: &str, to: &str) -> Result<()> {
        let to = self.host(to)?.address.to_string();
        let neighbour = ["neighbour", "replace", &to, "lladdr", NOWHERE, "nud", "permanent", "dev", "eth0"];
        self.host(from)?.run("ip", &neighbour)
    }

    /// The host's link becomes slow in both directions.
    pub fn slow_down(&self, name: &str) -> Result<()> {
        let host = self.host(name)?;
        host.run("tc", &[&["qdisc", "replace", "dev", "eth0", "root"], self.slow].concat())?;
        run("tc", &[&["qdisc", "replace", "dev", &host.port, "root"], self.slow].concat())
    }

    /// Takes back what was done to a host's link.
    pub fn join(&self, name: &str) -> Result<()> {
        let host = self.host(name)?;
        ip(&["link", "set", &host.port, "master", "bridge"])?;
        // There may be nothing to take away.
        let _ = host.run("tc", &["qdisc", "delete", "dev", "eth0", "root"]);
        let _ = run("tc", &["qdisc", "delete", "dev", &host.port, "root"]);
        Ok(())
    }

    /// Takes back a [`part`](Self::part).
    pub fn join_path(&self, from: &str, to: &str) -> Result<()> {
        let to = self.host(to)?.address.to_string();
        // There may be nothing to take away.
        let _ = self.host(from)?.run("ip", &["neighbour", "delete", &to, "dev", "eth0"]);
        Ok(())
    }

    /// Takes back everything.
    pub fn join_all(&self) -> Result<()> {
        for name in self.hosts.keys() {
            self.join(name)?;
            for other in self.hosts.keys().filter(|other| *other != name) {
                self.join_path(name, other)?;
            }
        }
        Ok(())
    }

    fn host(&self, name: &str) -> Result<&Host> {
        self.hosts.get(name).with_context(|| format!("no host {name}"))
    }
}

impl Host {
    fn connect(number: u8) -> Result<Self> {
        let address = Ipv4Addr::new(10, 77, 0, number);
        let port = format!("port-{number}");
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo ready && exec cat >/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("unshare")?;
        let mut line = String::new();
        BufReader::new(holder.stdout.take().context("no standard output")?).read_line(&mut line)?;
        let host = Self { address, port, holder };
        ensure!(line == "ready\n", "cannot make a network namespace");
        let pid = host.holder.id().to_string();
        ip(&["link", "add", &host.port, "type", "veth", "peer", "name", "eth0", "netns", &pid])?;
        host.run("ip", &["address", "add", &format!("{address}/24"), "dev", "eth0"])?;
        host.run("ip", &["link", "set", "eth0", "up"])?;
        ip(&["link", "set", &host.port, "master", "bridge", "up"])?;
        Ok(host)
    }

    /// Goes into the namespace, and ends when this program does.
    fn enter(&self) -> Vec<String> {
        let namespace = format!("--net=/proc/{}/ns/net", self.holder.id());
        ["setpriv", "--pdeathsig", "KILL", "nsenter", &namespace].map(str::to_owned).into()
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let namespace = format!("--net=/proc/{}/ns/net", self.holder.id());
        run("nsenter", &[&[&namespace, program], arguments].concat())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    run("ip", arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let words = || format!("{program} {}", arguments.join(" "));
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().with_context(words)?;
    if !output.status.success() {
        bail!("{}: {}", words(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
