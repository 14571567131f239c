//! How fast and at what cost configuration reaches proxies.
//!
//! `cargo bench --bench push` makes a synthetic cluster, serves it from this process as the control
//! plane does, connects simulated delta-ADS proxies from a second process (so that their CPU is not
//! counted), and prints how long it takes from nothing to settled, what it costs, and how long an
//! endpoint change takes to reach every proxy.
//!
//! `--connect ADDRESS [--pid PID]` measures a running control plane instead
//! (`meshwright control-plane --insecure-xds-address …`, or any other delta-ADS server).

mod client;
mod light;
mod process;
mod serve;
mod synthetic;

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clap::Parser;

/// Measures how configuration reaches proxies.
#[derive(Debug, Parser)]
struct Args {
    /// Numbers of proxies, each measured by itself
    #[arg(long, value_delimiter = ',', default_value = "100,300")]
    proxies: Vec<usize>,
    #[arg(long, default_value_t = 1000)]
    services: usize,
    #[arg(long, default_value_t = 2)]
    ports: u16,
    #[arg(long, default_value_t = 5)]
    endpoints: usize,
    #[arg(long, default_value_t = 10)]
    namespaces: usize,
    /// Endpoint changes to measure
    #[arg(long, default_value_t = 100)]
    changes: usize,
    /// Measure a running control plane, without endpoint changes
    #[arg(long)]
    connect: Option<SocketAddr>,
    /// Its process, to read its CPU time and memory
    #[arg(long)]
    pid: Option<u32>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    meshwright::runtime::install_crypto_provider();
    let words: Vec<String> = std::env::args().collect();
    if let [_, role, address, proxies, namespaces] = &words[..]
        && role == "client"
    {
        return client::run(address.parse()?, proxies.parse()?, namespaces.parse()?);
    }
    let args = Args::parse();
    let mut out = std::io::stdout();
    for &proxies in &args.proxies {
        match args.connect {
            Some(address) => {
                let mut clients = Clients::start(address, proxies, args.namespaces)?;
                let pid = args.pid;
                cold(&mut out, &mut clients, proxies, || process::usage(pid))?;
            }
            None => serve_and_measure(&mut out, &args, proxies)?,
        }
    }
    Ok(())
}

fn serve_and_measure(out: &mut impl Write, args: &Args, proxies: usize) -> anyhow::Result<()> {
    let mut cluster =
        synthetic::Cluster::new(args.services, args.ports, args.endpoints, args.namespaces);
    let server = serve::start(cluster.snapshot())?;
    process::reset_peak();
    let before = process::usage(None)?;
    writeln!(
        out,
        "{} services × {} ports × {} endpoints in {} namespaces; {} MB resident before",
        args.services,
        args.ports,
        args.endpoints,
        args.namespaces,
        before.resident >> 20,
    )?;
    let mut clients = Clients::start(server.address, proxies, args.namespaces)?;
    cold(out, &mut clients, proxies, || process::usage(None))?;
    let mut latencies = Vec::new();
    for change in 0..args.changes {
        clients.send(&format!("change {}", now().as_nanos()))?;
        let (snapshot, changes) = cluster.change_endpoints(change);
        server.mailbox.put(snapshot, changes);
        let line = clients.receive()?;
        for text in line.split_whitespace() {
            latencies.push(text.parse::<f64>()?);
        }
        // A change at a time: what is measured is latency, not a queue.
        std::thread::sleep(Duration::from_millis(20));
    }
    if latencies.is_empty() {
        return Ok(());
    }
    latencies.sort_by(f64::total_cmp);
    let at = |part: usize| latencies[(latencies.len() - 1) * part / 100];
    writeln!(
        out,
        "{proxies} proxies, {} endpoint changes to each: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        args.changes,
        at(50),
        at(99),
        at(100),
    )?;
    Ok(())
}

fn cold(
    out: &mut impl Write,
    clients: &mut Clients,
    proxies: usize,
    usage: impl Fn() -> anyhow::Result<process::Usage>,
) -> anyhow::Result<()> {
    let before = usage()?;
    let start = Instant::now();
    clients.send("go")?;
    let line = clients.receive()?;
    let took = start.elapsed();
    let after = usage()?;
    let (bytes, client_cpu) = line.split_once(' ').unwrap_or((&line, "?"));
    writeln!(
        out,
        "{proxies} proxies cold to settled: {:.2} s, {:.2} CPU s, {} MB peak, {} MB sent \
         (clients: {client_cpu} CPU s)",
        took.as_secs_f64(),
        after.cpu.saturating_sub(before.cpu).as_secs_f64(),
        after.peak >> 20,
        bytes.parse::<u64>()? >> 20,
    )?;
    std::thread::sleep(Duration::from_secs(1));
    let settled = usage()?;
    writeln!(out, "{proxies} proxies connected and idle: {} MB resident", settled.resident >> 20)?;
    Ok(())
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The simulated proxies, in a process of their own that obeys lines on its standard input.
struct Clients {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Clients {
    fn start(address: SocketAddr, proxies: usize, namespaces: usize) -> anyhow::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["client", &address.to_string(), &proxies.to_string(), &namespaces.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let pipes = process.stdin.take().zip(process.stdout.take());
        let (input, output) = pipes.ok_or_else(|| anyhow::anyhow!("the clients have no pipes"))?;
        Ok(Self { process, input, output: BufReader::new(output) })
    }

    fn send(&mut self, line: &str) -> anyhow::Result<()> {
        writeln!(self.input, "{line}")?;
        Ok(self.input.flush()?)
    }

    fn receive(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        anyhow::ensure!(self.output.read_line(&mut line)? > 0, "the clients ended early");
        Ok(line.trim().to_owned())
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
