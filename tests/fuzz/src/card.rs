//! Agent cards, as agents serve them: any body is answered without a panic; of what is a card, the forms that a signature is over are
//! found, and what a registry takes of it stays the same when it is encoded and read again.

use muster_a2a::card;
use muster_api::a2a::AgentCard;
use muster_registry::instance::wire;
use prost::Message as _;

/// See the module.
pub fn run(bytes: &[u8]) {
    let Ok(read) = card::parse(bytes) else { return };
    let _forms = card::canonical::forms(&read);
    let again = AgentCard::decode(read.encode_to_vec().as_slice()).expect("a card that was read is one");
    assert_eq!(again, read);
    if let Ok(taken) = wire::checked_card(read) {
        assert!(AgentCard::decode(taken.encoded()).is_ok());
        let _words = taken.words();
    }
}
