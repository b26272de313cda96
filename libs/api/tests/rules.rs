//! Every RPC of ours is reachable over plain HTTP: it has a `google.api.http` rule, and no two share a method and path.

use std::collections::HashMap;

use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, Value};

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

fn rules(method: &MethodDescriptor) -> Vec<DynamicMessage> {
    let pool = method.parent_pool();
    let option = pool
        .get_extension_by_name("google.api.http")
        .expect("the option is compiled in");
    let options = method.options();
    if !options.has_extension(&option) {
        return Vec::new();
    }
    let first = options
        .get_extension(&option)
        .as_message()
        .cloned()
        .expect("a rule");
    let more = first.get_field_by_name("additional_bindings").expect("a field");
    let more = more
        .as_list()
        .expect("a list")
        .iter()
        .filter_map(Value::as_message)
        .cloned();
    std::iter::once(first.clone())
        .chain(more.collect::<Vec<_>>())
        .collect()
}

fn route(rule: &DynamicMessage) -> Option<(&'static str, String)> {
    METHODS.into_iter().find_map(|method| {
        let path = rule.get_field_by_name(method)?.as_str()?.to_owned();
        (!path.is_empty()).then_some((method, path))
    })
}

#[test]
fn every_rpc_of_ours_has_a_path_of_its_own() {
    let pool =
        DescriptorPool::decode(muster_api::FILE_DESCRIPTOR_SET).expect("the descriptor set is complete");
    let ours = pool
        .services()
        .filter(|service| service.package_name().starts_with("muster."));
    // Services of one package share a port.
    let mut taken: HashMap<(String, &str, String), String> = HashMap::new();
    let mut seen = 0;
    for service in ours {
        for method in service.methods() {
            let (name, file) = (
                method.full_name().to_owned(),
                service.parent_file().name().to_owned(),
            );
            let rules = rules(&method);
            assert!(
                !rules.is_empty() || method.is_client_streaming(),
                "{name} cannot be reached over plain HTTP. In proto/{file} import \"google/api/annotations.proto\" and \
                 write in the RPC's braces, for a read, `option (google.api.http) = {{get: \"/v1/runs/{{run_id}}\"}};`, \
                 for a change, `option (google.api.http) = {{post: \"/v1/runs/{{run_id}}:pause\" body: \"*\"}};`: nouns in \
                 the plural, fields of the request as {{variables}}, the verb after a colon",
            );
            for rule in rules {
                let (verb, path) = route(&rule).unwrap_or_else(|| panic!("{name}: the rule has no path"));
                assert!(
                    path.starts_with("/v1/"),
                    "{name}: {path} does not begin with /v1/"
                );
                let key = (service.package_name().to_owned(), verb, path.clone());
                if let Some(other) = taken.insert(key, name.clone()) {
                    panic!("{name} and {other} share {verb} {path}");
                }
                seen += 1;
            }
        }
    }
    assert!(seen >= 20, "found only {seen} rules");
}
