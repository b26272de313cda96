//! How TLS is spoken with an endpoint.
//!
//! A service's own identity changes while it runs, and with it how TLS is spoken. So what is passed around is where the
//! settings come from, and each new connection asks there; those that are open stay as they are.

use std::fmt;
use std::sync::{Arc, LazyLock};

use rustls::ClientConfig;

use crate::endpoint::Endpoint;
use crate::outbound;

/// Where the settings of the next handshake come from.
pub trait Handshake: fmt::Debug + Send + Sync + 'static {
    /// As they are now.
    fn config(&self) -> Arc<ClientConfig>;
}

/// Whether TLS is spoken with an endpoint, and how. Clones share what is behind.
#[derive(Debug, Clone, Default)]
pub struct Security {
    handshake: Option<Arc<dyn Handshake>>,
    always: bool,
}

impl Security {
    /// As the endpoint's scheme says; a server at `https://` has to be one that Mozilla's authorities certify for its name.
    #[must_use]
    pub fn by_scheme() -> Self {
        Self::default()
    }

    /// As the endpoint's scheme says, with these settings where it is `https://`.
    #[must_use]
    pub fn by_scheme_with(handshake: Arc<dyn Handshake>) -> Self {
        Self {
            handshake: Some(handshake),
            always: false,
        }
    }

    /// TLS with these settings, whatever the endpoint's scheme: nobody gets plaintext out of it by another address.
    #[must_use]
    pub fn always(handshake: Arc<dyn Handshake>) -> Self {
        Self {
            handshake: Some(handshake),
            always: true,
        }
    }

    /// Whether TLS is spoken with this endpoint.
    #[must_use]
    pub fn applies_to(&self, endpoint: &Endpoint) -> bool {
        self.always || endpoint.is_tls()
    }

    /// The settings for an address of this scheme; `None` for plaintext.
    pub(super) fn config(&self, scheme: Option<&str>) -> Option<Arc<ClientConfig>> {
        if !self.always && scheme != Some("https") {
            return None;
        }
        Some(
            self.handshake
                .as_ref()
                .map_or_else(|| Public.config(), |handshake| handshake.config()),
        )
    }
}

/// Settings that do not change.
#[derive(Clone)]
pub struct Fixed(Arc<ClientConfig>);

impl Fixed {
    /// These settings, for HTTP/2.
    #[must_use]
    pub fn http2(settings: &ClientConfig) -> Self {
        let mut settings = settings.clone();
        settings.alpn_protocols = vec![HTTP_2.to_vec()];
        Self(Arc::new(settings))
    }
}

impl fmt::Debug for Fixed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Fixed")
    }
}

impl Handshake for Fixed {
    fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0)
    }
}

/// What is negotiated for gRPC.
pub const HTTP_2: &[u8] = b"h2";

/// Servers that Mozilla's authorities certify.
#[derive(Debug)]
struct Public;

impl Handshake for Public {
    fn config(&self) -> Arc<ClientConfig> {
        static SETTINGS: LazyLock<Fixed> = LazyLock::new(|| {
            let settings = outbound::tls(None).expect("the library's own defaults fit together");
            Fixed::http2(&settings)
        });
        SETTINGS.config()
    }
}
