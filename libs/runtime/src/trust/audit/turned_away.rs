//! Who is turned away before there is a request to decide about: handshakes that fail, and connections that are broken off for what
//! comes over them.
//!
//! Each has a line, and floods of them few ([`super::counted`]): one address that is turned away for one reason is counted for a
//! minute.
//!
//! An address of IPv6 is told apart by its first 64 bits, because who has one has all that begin like it.
//!
//! What the other side ends is no line: who hangs up, or does not like our certificate, was not turned away.

use std::net::IpAddr;
use std::sync::Arc;

use super::counted::{Counted, Kind};
use super::{Entry, Event, Log};
use crate::clock::SharedClock;
use crate::trust::gate::network;
use crate::trust::metrics::Meters;
use crate::trust::refusals::Refusals;

/// Why somebody is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Why {
    /// A certificate is demanded, and none was shown.
    NoCertificate,
    /// No authority of ours vouches for the certificate.
    UnknownAuthority,
    /// The certificate has ended, or has not begun.
    NotValidNow,
    /// The certificate is wrong in another way.
    BadCertificate,
    /// The workload that the certificate names may not call this service.
    NotAdmitted,
    /// What came was no TLS.
    NotTls,
    /// It was a TLS that is not spoken.
    OtherTls,
    /// The handshake was not done in time.
    SlowHandshake,
    /// Too many newer handshakes came.
    CrowdedOut,
    /// All places for connections are taken; whoever comes waits.
    NoPlace,
    /// The client did not say in time what it wants.
    SlowBeginning,
    /// The head of a request is larger than may be.
    HeadTooLarge,
    /// The client made work for nothing: streams that it has reset, or opened beyond their number.
    Calmed,
    /// The body of a request, or its message, is larger than may be.
    MessageTooLarge,
    /// The body of a request did not come in time.
    SlowBody,
    /// The local proxy does not say who calls.
    Unidentified,
}

impl Why {
    /// As it is in the log.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::UnknownAuthority => "unknown_authority",
            Self::NotValidNow => "certificate_not_valid_now",
            Self::BadCertificate => "bad_certificate",
            Self::NotAdmitted => "peer_not_admitted",
            Self::NotTls => "no_tls",
            Self::OtherTls => "other_tls",
            Self::SlowHandshake => "slow_handshake",
            Self::CrowdedOut => "too_many_handshakes",
            Self::NoPlace => "too_many_connections",
            Self::SlowBeginning => "slow_beginning",
            Self::HeadTooLarge => "head_too_large",
            Self::Calmed => "too_many_streams_or_resets",
            Self::MessageTooLarge => "message_too_large",
            Self::SlowBody => "slow_body",
            Self::Unidentified => "peer_unidentified",
        }
    }

    /// Why a handshake failed; `None` where the other side ended it.
    pub(crate) fn of_handshake(error: &std::io::Error) -> Option<Self> {
        use rustls::{CertificateError, Error};
        let inner = error.get_ref()?.downcast_ref::<Error>()?;
        Some(match inner {
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidCertificate(wrong) => match wrong {
                CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownAuthority,
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Self::NotValidNow,
                // Said by our own verifier, of a certificate whose workload is not admitted.
                CertificateError::Other(_) => Self::NotAdmitted,
                _ => Self::BadCertificate,
            },
            Error::AlertReceived(_) => return None,
            Error::PeerIncompatible(_) => Self::OtherTls,
            _ => Self::NotTls,
        })
    }

    /// Why a connection was broken off; `None` where the other side did, or the network.
    pub(crate) fn of_connection(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref::<h2::Error>() {
                let is_ours = error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
                if is_ours {
                    return Some(Self::Calmed);
                }
            } else if let Some(error) = error.downcast_ref::<hyper::Error>() {
                if error.is_timeout() {
                    return Some(Self::SlowBeginning);
                }
                if error.is_parse_too_large() {
                    return Some(Self::HeadTooLarge);
                }
            } else if let Some(error) = error.downcast_ref::<std::io::Error>()
                && error.kind() == std::io::ErrorKind::TimedOut
            {
                return Some(Self::SlowBeginning);
            }
            next = error.source();
        }
        None
    }
}

/// Those who are turned away, before the audit log.
pub(crate) struct TurnedAway {
    /// Nowhere without an audit log.
    lines: Option<Counted<Whom>>,
    meters: Meters,
    refusals: Refusals,
}

/// Whose lines are counted together. No address: those that are too many to be told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Whom(Why, Option<IpAddr>);

impl Kind for Whom {
    fn line(&self) -> Entry {
        Entry::new(Event::ConnectionRefused)
            .with("reason", self.0.name())
            .with("source_ip", &self.origin())
    }

    fn nameless(&self) -> Self {
        Self(self.0, None)
    }
}

impl Whom {
    /// Where they come from.
    fn origin(self) -> String {
        self.1
            .map_or_else(|| "several".to_owned(), |address| address.to_string())
    }
}

impl TurnedAway {
    /// Writes into this log, if there is one, and counts in any case.
    pub(crate) fn new(
        log: Option<&Arc<Log>>,
        clock: SharedClock,
        meters: Meters,
        refusals: Refusals,
    ) -> Self {
        Self {
            lines: log.map(|log| Counted::new(Arc::clone(log), clock)),
            meters,
            refusals,
        }
    }

    /// Somebody is turned away. `detail` says more, in the words of whoever turns away.
    pub(crate) fn note(&self, address: Option<IpAddr>, why: Why, detail: &str) {
        self.meters.turned_away(why.name());
        self.write_down(address, why, detail);
    }

    /// The same of a request, which is counted among the requests.
    pub(crate) fn write_down(&self, address: Option<IpAddr>, why: Why, detail: &str) {
        let whom = Whom(why, address.map(network));
        self.refusals.note(why.name(), &whom.origin());
        if let Some(lines) = &self.lines {
            lines.note(whom, |line| line.with("detail", detail));
        }
    }

    /// Says what was counted and is due. To be called now and then.
    pub(crate) fn sweep(&self) {
        if let Some(lines) = &self.lines {
            lines.sweep();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;
    use std::path::Path;

    use jiff::Timestamp;
    use serde_json::Value;

    use super::super::chain;
    use super::super::counted::{MOST, WINDOW};
    use super::*;
    use crate::clock::ManualClock;
    use crate::metrics::Metrics;

    fn open(directory: &Path, clock: &Arc<ManualClock>) -> TurnedAway {
        let clock = Arc::clone(clock) as SharedClock;
        let log = Log::open(directory, "router", 1 << 30, Arc::clone(&clock)).unwrap();
        let meters = Meters::new(Metrics::new(&[]).unwrap());
        let refusals = Refusals::new(Arc::clone(&clock));
        TurnedAway::new(Some(&Arc::new(log)), clock, meters, refusals)
    }

    fn lines(directory: &Path) -> Vec<Value> {
        let log = directory.join("router");
        chain::verify(&log).unwrap();
        let text = std::fs::read_to_string(log.join(chain::file_name(1))).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn the_first_is_said_at_once_and_what_follows_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_second(1).unwrap()));
        let turned_away = open(directory.path(), &clock);
        let address = |last: u8| Some(IpAddr::from([10, 0, 0, last]));
        for _ in 0..1_000 {
            turned_away.note(address(1), Why::NoCertificate, "as rustls says");
        }
        turned_away.note(address(1), Why::NotTls, "");
        turned_away.note(address(2), Why::NoCertificate, "");
        turned_away.lines.as_ref().unwrap().sync();
        assert_eq!(lines(directory.path()).len(), 3);
        clock.advance(WINDOW);
        turned_away.sweep();
        turned_away.note(address(1), Why::NoCertificate, "again");
        turned_away.note(address(1), Why::NoCertificate, "again");
        drop(turned_away);
        let lines = lines(directory.path());
        let said: Vec<_> = lines
            .iter()
            .map(|line| {
                [&line["reason"], &line["source_ip"], &line["count"]].map(|field| field.as_str().unwrap())
            })
            .collect();
        assert_eq!(
            said,
            [
                ["no_certificate", "10.0.0.1", "1"],
                ["no_tls", "10.0.0.1", "1"],
                ["no_certificate", "10.0.0.2", "1"],
                ["no_certificate", "10.0.0.1", "999"],
                ["no_certificate", "10.0.0.1", "1"],
                ["no_certificate", "10.0.0.1", "1"],
            ]
        );
        assert!(
            lines
                .iter()
                .all(|line| line["event"] == "connection_refused" && line["outcome"] == "refused")
        );
    }

    #[test]
    fn a_flood_from_everywhere_has_a_bounded_number_of_lines() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_second(1).unwrap()));
        let turned_away = open(directory.path(), &clock);
        for number in 0..100_000_u32 {
            let address = if number % 2 == 0 {
                IpAddr::from(number.to_be_bytes())
            } else {
                // All of one network.
                Ipv6Addr::from((0x2001_0db8 << 96) | u128::from(number)).into()
            };
            turned_away.note(Some(address), Why::SlowHandshake, "");
        }
        drop(turned_away);
        let lines = lines(directory.path());
        assert!(lines.len() <= 2 * (MOST + 1), "{}", lines.len());
        let counted: u64 = lines
            .iter()
            .map(|line| line["count"].as_str().unwrap().parse::<u64>().unwrap())
            .sum();
        assert_eq!(counted, 100_000, "nobody is forgotten");
        assert!(lines.iter().any(|line| line["source_ip"] == "several"));
    }
}
