//! Label selectors as Kubernetes reads them, except that an empty one matches nothing: in a list of
//! exceptions, it would be one for everything.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

type Labels = BTreeMap<String, String>;

/// Position of the first selector that matches.
pub(super) fn first_match(selectors: &[LabelSelector], labels: Option<&Labels>) -> Option<usize> {
    let none = Labels::new();
    let labels = labels.unwrap_or(&none);
    selectors.iter().position(|selector| matches(selector, labels))
}

/// Whether the labels are what the selector asks for. One that is [not valid](problem) never matches.
pub fn matches(selector: &LabelSelector, labels: &Labels) -> bool {
    let equal = selector.match_labels.iter().flatten();
    let expressions = selector.match_expressions.iter().flatten();
    let says_something = equal.clone().next().is_some() || expressions.clone().next().is_some();
    says_something
        && equal.clone().all(|(key, value)| labels.get(key) == Some(value))
        && expressions.clone().all(|expression| meets(expression, labels) == Some(true))
        && problem(selector).is_none()
}

/// `None` where the operator is not one.
fn meets(expression: &LabelSelectorRequirement, labels: &Labels) -> Option<bool> {
    let value = labels.get(&expression.key);
    let among = |value: &String| expression.values.iter().flatten().any(|other| other == value);
    match expression.operator.as_str() {
        "In" => Some(value.is_some_and(among)),
        "NotIn" => Some(!value.is_some_and(among)),
        "Exists" => Some(value.is_some()),
        "DoesNotExist" => Some(value.is_none()),
        _ => None,
    }
}

/// Why a selector can never match: the path of the field in it, and what is wrong.
pub fn problem(selector: &LabelSelector) -> Option<(String, String)> {
    let expressions = selector.match_expressions.iter().flatten().enumerate();
    expressions.into_iter().find_map(|(index, expression)| {
        let path = format!("matchExpressions[{index}]");
        let has_values = expression.values.iter().flatten().next().is_some();
        match (expression.operator.as_str(), has_values) {
            ("In" | "NotIn", true) | ("Exists" | "DoesNotExist", false) => None,
            ("In" | "NotIn", false) => {
                Some((format!("{path}.values"), format!("{} needs values", expression.operator)))
            }
            ("Exists" | "DoesNotExist", true) => {
                Some((format!("{path}.values"), format!("{} takes no values", expression.operator)))
            }
            (operator, _) => Some((
                format!("{path}.operator"),
                format!("{operator:?} is not an operator: use In, NotIn, Exists or DoesNotExist"),
            )),
        }
    })
}
