//! Amounts of CPU and memory.

use k8s_openapi::{
    api::core::v1::ResourceRequirements, apimachinery::pkg::api::resource::Quantity,
};

use super::form::Result;

/// Units with what they stand for.
const UNITS: [(&str, f64); 16] = [
    ("", 1.0),
    ("n", 1e-9),
    ("u", 1e-6),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("E", 1e18),
    ("Ki", 1_024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("Ei", 1_152_921_504_606_846_976.0),
];
/// More cannot be told in Kubernetes.
const MOST: f64 = 9.2e18;

/// What Kubernetes takes as an amount: a decimal number, not negative, with a unit.
pub fn parse(text: &str) -> Option<f64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match UNITS.iter().find(|(known, _)| *known == unit) {
        Some((_, factor)) => *factor,
        None => 10_f64.powi(unit.strip_prefix(['e', 'E'])?.parse::<i8>().ok()?.into()),
    };
    let amount = number.parse::<f64>().ok()? * factor;
    (text.len() <= 32 && amount <= MOST).then_some(amount)
}

/// An amount above nothing.
pub(super) fn quantity(text: &str) -> Result<Quantity> {
    match parse(text) {
        Some(amount) if amount > 0.0 => Ok(Quantity(text.to_owned())),
        _ => Err(String::new()),
    }
}

/// The first resource of which more is asked for than is allowed.
pub fn exceeded(resources: &ResourceRequirements) -> Option<&str> {
    let limits = resources.limits.as_ref()?;
    let exceeds = |(name, asked): &(&String, &Quantity)| {
        let limit = limits.get(*name).and_then(|limit| parse(&limit.0));
        matches!((parse(&asked.0), limit), (Some(asked), Some(limit)) if asked > limit)
    };
    resources.requests.iter().flatten().find(exceeds).map(|(name, _)| name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_kubernetes_takes() {
        for (text, want) in [("1", 1.0), ("100m", 0.1), ("0.5", 0.5), ("1e3", 1e3), ("2Ki", 2048.0)]
        {
            assert_eq!(parse(text), Some(want), "{text}");
        }
        let huge = "9".repeat(30);
        for text in ["", "m", "64 Mi", "64mi", "-1", "1.2.3", "1e200", "0x1", "NaN", "inf", &huge] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert!(quantity("0").is_err());
    }

    #[test]
    fn finds_what_exceeds_its_limit() {
        let amounts = |cpu: &str| Some([("cpu".to_owned(), Quantity(cpu.to_owned()))].into());
        let of = |requests: &str, limits: &str| ResourceRequirements {
            requests: amounts(requests),
            limits: amounts(limits),
            ..ResourceRequirements::default()
        };
        assert_eq!(exceeded(&of("1", "500m")), Some("cpu"));
        assert_eq!(exceeded(&of("500m", "0.5")), None);
    }
}
