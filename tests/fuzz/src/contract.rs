//! Contracts of gRPC services, as `.proto` files and as servers tell them by reflection: anything is a contract or refused without a
//! panic, and each method of a contract takes and gives JSON.
//!
//! The first byte of the input says which form it has. Files are parted by a zero byte; each but the first begins with a line that is
//! its name.

use std::collections::HashMap;

use muster_workflow_engine::caller::grpc::proto::{self, Compiled, ROOT};
use muster_workflow_engine::caller::grpc::{Method, reflection};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use prost_types::FileDescriptorSet;
use serde_json::json;

/// Methods of a contract that are tried.
const MOST_METHODS: usize = 8;

/// See the module.
pub fn run(bytes: &[u8]) {
    let Some((form, rest)) = bytes.split_first() else {
        return;
    };
    let contract = if form % 2 == 0 { compiled(rest) } else { told(rest) };
    let Some(contract) = contract else { return };
    let methods = contract.services().flat_map(|service| {
        let methods: Vec<_> = service.methods().collect();
        methods
    });
    for descriptor in methods.take(MOST_METHODS) {
        let service = descriptor.parent_service();
        let method = Method::find(&contract, service.full_name(), descriptor.name());
        let method = method.expect("the contract has it");
        let _empty = method.request(&json!({}));
        let _refused = method.request(&json!({"nothing": [1, {"a": null}]}));
        if let Ok(answer) = DynamicMessage::decode(descriptor.output(), rest) {
            let _json = method.json(&answer);
        }
    }
}

fn compiled(bytes: &[u8]) -> Option<DescriptorPool> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut files = text.split('\0');
    let mut sources = HashMap::from([(ROOT.to_owned(), files.next()?.to_owned())]);
    for file in files {
        let (name, source) = file.split_once('\n')?;
        sources.insert(name.to_owned(), source.to_owned());
    }
    match proto::compile(&sources) {
        Compiled::Contract(contract) => Some(contract),
        Compiled::Missing(name) => {
            assert!(!sources.contains_key(&name));
            if let Some(address) = proto::beside("https://h.test/api/main.proto", &name) {
                assert!(address.starts_with("https://h.test/api/"), "{address}");
                assert!(!address.contains("/../"), "{address}");
            }
            None
        }
        Compiled::Wrong(what) => {
            assert!(!what.is_empty());
            None
        }
    }
}

fn told(bytes: &[u8]) -> Option<DescriptorPool> {
    let files = FileDescriptorSet::decode(bytes).ok()?;
    reflection::pool(files.file.into_iter()).ok()
}
