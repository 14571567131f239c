//! Properties of the mesh stage, over the objects of all golden cases.

use std::{fs, path::Path};

use meshwright::{
    mesh::{self, endpoints},
    watch,
};
use proptest::{prelude::*, sample::subsequence};

/// The documents of one golden case.
fn documents(case: &str) -> Vec<String> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/mesh");
    let text = fs::read_to_string(golden.join(case).join("input.yaml")).expect("a case");
    text.split("\n---\n").map(str::to_owned).collect()
}

fn case() -> impl Strategy<Value = Vec<String>> {
    prop_oneof![
        Just("services"),
        Just("virtual-service"),
        Just("virtual-service-mistakes"),
        Just("istio-gateway"),
        Just("gateway-api"),
        Just("peer-authentication"),
        Just("service-entry"),
        Just("service-entry-mistakes"),
        Just("service-entry-allocated"),
    ]
    .prop_map(documents)
}

fn built(documents: &[String]) -> String {
    let snapshot = watch::from_yaml(&documents.join("\n---\n")).expect("objects");
    let endpoints = endpoints::build(&snapshot);
    format!("{:?} {endpoints:?}", mesh::build(&snapshot, &endpoints))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn order_of_input_means_nothing(
        (documents, shuffled) in case().prop_flat_map(|d| (Just(d.clone()), Just(d).prop_shuffle()))
    ) {
        prop_assert_eq!(built(&documents), built(&shuffled));
    }

    #[test]
    fn any_part_of_a_cluster_can_be_read(
        some in case().prop_flat_map(|d| { let n = d.len(); subsequence(d, 0..=n) })
    ) {
        let _ = built(&some);
    }

    #[test]
    fn one_service_alone_has_the_endpoints_that_it_has_among_all(documents in case()) {
        let snapshot = watch::from_yaml(&documents.join("\n---\n")).unwrap();
        let all = endpoints::build(&snapshot);
        let (built, _) = mesh::build(&snapshot, &all);
        for host in built.services.keys() {
            let alone = endpoints::for_host(&snapshot, &built, host);
            prop_assert_eq!(all.get(host).map(|e| (**e).clone()).unwrap_or_default(), alone);
        }
    }
}
