//! What tools may find in the chart, each with its reason: `excuses.txt`.

use std::{collections::BTreeSet, fmt::Write};

use anyhow::{Context, Result, ensure};

const FILE: &str = include_str!("excuses.txt");

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Excuse {
    tool: String,
    /// A check, or a kind.
    pub(super) rule: String,
    /// A part of the object's name, or `*`.
    object: String,
}

#[derive(Debug)]
pub(super) struct Excuses(Vec<Excuse>);

impl Excuses {
    pub(super) fn read() -> Result<Self> {
        Self::parse(FILE)
    }

    fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let excuse = |line: &str| {
            let mut words = line.splitn(4, char::is_whitespace).map(str::trim);
            let mut word = || words.next().map(str::to_owned).filter(|word| !word.is_empty());
            let excuse = (|| Some((word()?, word()?, word()?, word()?)))();
            let (tool, rule, object, _reason) =
                excuse.with_context(|| format!("an excuse without a reason: {line}"))?;
            Ok(Excuse { tool, rule, object })
        };
        lines.map(excuse).collect::<Result<_>>().map(Self)
    }

    pub(super) fn of<'a>(&'a self, tool: &'a str) -> impl Iterator<Item = &'a Excuse> {
        self.0.iter().filter(move |excuse| excuse.tool == tool)
    }

    /// Refuses findings (rule, object, what it says) without an excuse, and excuses without a finding.
    pub(super) fn judge<'a>(
        &self,
        tool: &str,
        found: impl Iterator<Item = (&'a str, &'a str, &'a str)>,
    ) -> Result<()> {
        let mut unused: Vec<&Excuse> = self.of(tool).collect();
        let mut complaints = BTreeSet::new();
        for (rule, object, text) in found {
            let fits = |excuse: &&Excuse| {
                excuse.rule == rule && (excuse.object == "*" || object.contains(&excuse.object))
            };
            unused.retain(|excuse| !fits(excuse));
            if !self.of(tool).any(|excuse| fits(&excuse)) {
                complaints.insert(format!("{rule} {object}: {text}"));
            }
        }
        let mut message = String::new();
        for complaint in complaints {
            writeln!(message, "{complaint}")?;
        }
        for excuse in unused {
            writeln!(message, "nothing needs this excuse: {} {}", excuse.rule, excuse.object)?;
        }
        ensure!(message.is_empty(), "{}", message.trim_end());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_excuse_and_what_needs_none_is_told() {
        let excuses =
            Excuses::parse("# x\ncheckov A *  why\ncheckov B Pod.x  why\nother C * why\n");
        let excuses = excuses.unwrap();
        let both = [("A", "Deployment.a", "a"), ("B", "Pod.x.y", "b")];
        excuses.judge("checkov", both.into_iter()).unwrap();
        let error = excuses.judge("checkov", [("A", "x", "a"), ("B", "Job.z", "b")].into_iter());
        let error = error.unwrap_err().to_string();
        assert_eq!(error, "B Job.z: b\nnothing needs this excuse: B Pod.x");
        assert!(Excuses::parse("checkov A *").is_err());
    }

    #[test]
    fn the_file_can_be_read() {
        assert!(Excuses::read().unwrap().of("checkov").count() > 5);
    }
}
