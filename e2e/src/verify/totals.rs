//! What passed and what did not.

use crate::steps::{Steps, seconds};

/// Counts of tests, and the names of those that failed.
#[derive(Debug, Default)]
pub struct Totals {
    passed: u64,
    failed: u64,
    skipped: u64,
    failures: Vec<String>,
}

impl Totals {
    pub fn passed(&mut self) {
        self.passed += 1;
    }

    pub fn failed(&mut self, name: impl Into<String>) {
        self.failed += 1;
        self.failures.push(name.into());
    }

    pub fn skipped(&mut self) {
        self.skipped += 1;
    }

    /// Adds what test programs reported; gives how many failed.
    pub fn add(&mut self, output: &str) -> u64 {
        let mut failed = 0;
        for line in output.lines().filter(|line| line.starts_with("test result: ")) {
            self.passed += count(line, "passed");
            self.skipped += count(line, "ignored");
            failed += count(line, "failed");
        }
        self.failed += failed;
        // Test programs repeat the names at their end, without "test" before them.
        let names = output
            .lines()
            .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
        self.failures.extend(names.map(str::to_owned));
        failed
    }

    pub fn is_good(&self) -> bool {
        self.failed == 0
    }

    /// Names the failures, then the line of totals, alone on its line.
    pub fn report(&self, steps: &Steps) {
        for failure in &self.failures {
            steps.say(&format!("failed: {failure}"));
        }
        steps.say(&format!("\nverified in {}", seconds(steps.elapsed())));
        steps.say(&self.line());
    }

    fn line(&self) -> String {
        let line = format!("{} passed, {} failed", self.passed, self.failed);
        if self.skipped == 0 { line } else { format!("{line}, {} skipped", self.skipped) }
    }
}

fn count(line: &str, what: &str) -> u64 {
    let mut words = line.split([' ', ';']).filter(|word| !word.is_empty());
    let mut last = "";
    for word in &mut words {
        if word == what {
            return last.parse().unwrap_or(0);
        }
        last = word;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_test_programs_are_summed() {
        let mut totals = Totals::default();
        let failed = totals.add(
            "test a ... ok\ntest b::c ... FAILED\n\
             test result: FAILED. 4 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out\n\
             test result: ok. 10 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!(failed, 1);
        assert_eq!(totals.failures, ["b::c"]);
        assert_eq!(totals.line(), "14 passed, 1 failed, 2 skipped");
        assert!(!totals.is_good());
    }

    #[test]
    fn nothing_skipped_is_not_mentioned() {
        let mut totals = Totals::default();
        totals.passed();
        assert_eq!(totals.line(), "1 passed, 0 failed");
    }
}
