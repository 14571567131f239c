//! Collects what is wrong, so that a test of many cases tells of all that fail and not of the first.

use anyhow::{Result, bail};

/// Findings of a test with many cases.
#[derive(Debug, Default)]
pub struct Collector {
    cases: usize,
    failures: Vec<String>,
}

impl Collector {
    /// Runs one case.
    pub fn case(&mut self, what: &str, check: impl FnOnce() -> Result<()>) {
        self.cases += 1;
        if let Err(error) = check() {
            self.failures.push(format!("{what}: {error:#}"));
        }
    }

    /// The verdict over all cases.
    pub fn verdict(self) -> Result<()> {
        if !self.failures.is_empty() {
            let (failed, cases) = (self.failures.len(), self.cases);
            bail!("{failed} of {cases} cases failed:\n  {}", self.failures.join("\n  "));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_of_every_failure() {
        let mut collector = Collector::default();
        collector.case("one", || Ok(()));
        collector.case("two", || bail!("refused"));
        collector.case("three", || bail!("lost"));
        let verdict = collector.verdict().unwrap_err().to_string();
        assert_eq!(verdict, "2 of 3 cases failed:\n  two: refused\n  three: lost");
        assert!(Collector::default().verdict().is_ok());
    }
}
