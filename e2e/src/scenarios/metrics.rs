//! What proxies count: the text format of Prometheus, read from an agent's merged endpoint.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::client::Client;

/// One line: a name, labels and a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Sample {
    /// A label's value, empty where it has none.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(name, value)| self.label(name) == *value)
    }
}

/// What a pod's proxy counts. `client` must be outside the mesh: the port is not for its proxies.
pub fn scrape(client: Client<'_>, pod_ip: &str) -> Result<Vec<Sample>> {
    let url = format!("http://{pod_ip}:15020/stats/prometheus");
    let outcome = client.call(&url, &[])?.answered()?;
    let text = outcome.answer().as_str().with_context(|| format!("{url} is no text"))?;
    Ok(parse(text))
}

/// The sum of every sample of this name with these labels.
pub fn sum(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> f64 {
    samples
        .iter()
        .filter(|sample| sample.name == name && sample.has(labels))
        .map(|sample| sample.value)
        .sum()
}

/// Reads the text format; lines that are none of it are left out.
pub fn parse(text: &str) -> Vec<Sample> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
}

fn sample(line: &str) -> Option<Sample> {
    let name_ends = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(name_ends);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// Reads `name="value",…}`; gives what stands behind it too.
fn labels(text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, behind) = rest.split_once("=\"")?;
        let (value, behind) = quoted(behind)?;
        labels.insert(name.to_owned(), value);
        rest = behind;
    }
}

/// Reads up to the closing quote, and undoes escapes.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            _ => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# TYPE istio_requests_total counter
istio_requests_total{reporter="destination",source_principal="spiffe://cluster.local/ns/shop/sa/front",response_code="200"} 41
istio_requests_total{reporter="destination",source_principal="spiffe://cluster.local/ns/shop/sa/front",response_code="503"} 1 1700000000
istio_requests_total{reporter="source",source_principal="a \"b\"\\,}",} 7
up 1
not a sample
broken{a="b
"#;

    #[test]
    fn reads_names_labels_and_values() {
        let samples = parse(TEXT);
        assert_eq!(samples.len(), 4, "{samples:?}");
        assert_eq!(samples[0].label("response_code"), "200");
        assert_eq!(samples[0].label("absent"), "");
        assert_eq!(samples[2].label("source_principal"), "a \"b\"\\,}");
        assert_eq!(samples[3].name, "up");
    }

    #[test]
    fn sums_what_matches() {
        let samples = parse(TEXT);
        let requests = |labels: &[(&str, &str)]| sum(&samples, "istio_requests_total", labels);
        assert!((requests(&[("reporter", "destination")]) - 42.0).abs() < 1e-9);
        assert!((requests(&[("reporter", "source")]) - 7.0).abs() < 1e-9);
        assert!(requests(&[("reporter", "nobody")]).abs() < 1e-9);
    }
}
