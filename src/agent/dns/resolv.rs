//! `/etc/resolv.conf`: the servers upstream and the search list.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

/// How often the file is looked at, while there are questions.
const LOOK: Duration = Duration::from_secs(2);
/// As many as resolvers use.
const MOST_SERVERS: usize = 3;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolv {
    pub servers: Vec<IpAddr>,
    /// Lower case, without a dot at the end.
    pub search: Vec<String>,
}

impl Resolv {
    /// Reads the file's text as resolvers do: the last of `search` and `domain` is in force, what
    /// cannot be read is skipped, and without a server there is one on this machine.
    pub fn parse(text: &str) -> Self {
        let (mut servers, mut search) = (Vec::new(), Vec::new());
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()));
                }
                Some("search") => search = words.map(domain).collect(),
                Some("domain") => search = words.take(1).map(domain).collect(),
                _ => {}
            }
        }
        servers.truncate(MOST_SERVERS);
        if servers.is_empty() {
            servers.push(Ipv4Addr::LOCALHOST.into());
        }
        search.retain(|domain: &String| !domain.is_empty());
        Self { servers, search }
    }
}

fn domain(word: &str) -> String {
    word.trim_end_matches('.').to_ascii_lowercase()
}

/// The file as it is now.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    looked: Instant,
    modified: Option<SystemTime>,
    resolv: Arc<Resolv>,
}

impl File {
    /// Reads the file. One that cannot be read is as an empty one.
    pub fn open(path: PathBuf) -> Self {
        let modified = modified(&path);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "cannot read the servers of DNS");
            String::new()
        });
        let resolv = Arc::new(Resolv::parse(&text));
        Self { seen: Mutex::new(Seen { looked: Instant::now(), modified, resolv }), path }
    }

    /// What the file says, read anew if it has changed.
    pub fn current(&self) -> Arc<Resolv> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.looked.elapsed() >= LOOK {
            seen.looked = Instant::now();
            let modified = modified(&self.path);
            if modified != seen.modified
                && let Ok(text) = std::fs::read_to_string(&self.path)
            {
                seen.modified = modified;
                seen.resolv = Arc::new(Resolv::parse(&text));
                tracing::info!(path = %self.path.display(), "read the servers of DNS anew");
            }
        }
        Arc::clone(&seen.resolv)
    }
}

fn modified(path: &std::path::Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kubelet_writes() {
        let resolv = Resolv::parse(
            "search shop.svc.cluster.local svc.cluster.local. Cluster.Local example.com\n\
             nameserver 10.96.0.10\nnameserver fd00::10\noptions ndots:5\n",
        );
        assert_eq!(
            resolv.servers,
            ["10.96.0.10".parse::<IpAddr>().unwrap(), "fd00::10".parse().unwrap()]
        );
        let search =
            ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.com"];
        assert_eq!(resolv.search, search);
    }

    #[test]
    fn reads_what_others_write() {
        let resolv = Resolv::parse(
            "# nameserver 1.1.1.1\nnameserver fe80::1%eth0\nnameserver\nsearch a.b\ndomain c.d e.f\n\
             search .\ndomain x.y",
        );
        assert_eq!(resolv.servers, [IpAddr::from(Ipv4Addr::LOCALHOST)]);
        assert_eq!(resolv.search, ["x.y"]);
        let many = "nameserver 10.0.0.1\n".repeat(9);
        assert_eq!(Resolv::parse(&many).servers.len(), MOST_SERVERS);
    }

    #[test]
    fn a_change_is_seen() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "nameserver 10.0.0.1\n").unwrap();
        let open = File::open(file.path().to_owned());
        assert_eq!(open.current().servers, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        std::fs::write(file.path(), "nameserver 10.0.0.2\n").unwrap();
        {
            let mut seen = open.seen.lock().unwrap();
            // As long ago as it takes, and another time of change even on a coarse clock.
            seen.looked = Instant::now().checked_sub(LOOK).unwrap();
            seen.modified = None;
        }
        assert_eq!(open.current().servers, ["10.0.0.2".parse::<IpAddr>().unwrap()]);
    }
}
