//! What a card asks for from who calls the agent, as alternatives, and where each piece of it goes on a call.

use std::collections::HashMap;

use http::HeaderName;
use muster_api::a2a::{
    AgentCard, OAuth2SecurityScheme, SecurityRequirement, SecurityScheme, o_auth_flows, security_scheme,
};
use url::Url;

/// Headers that are the transport's own.
const RESERVED: [&str; 11] = [
    "a2a-version",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// One alternative: everything in it is needed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Demand<'c> {
    pub(super) schemes: Vec<Placed<'c>>,
}

/// One scheme, and where what it asks for goes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Placed<'c> {
    /// Its name in the card.
    pub(super) scheme: &'c str,
    /// What a token has to be good for.
    pub(super) scopes: Vec<&'c str>,
    pub(super) way: Way<'c>,
}

/// Where it goes.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Way<'c> {
    /// A header of this name.
    Header(HeaderName),
    /// A parameter of the query.
    Query(&'c str),
    /// A cookie.
    Cookie(&'c str),
    /// `Authorization: Bearer`.
    Bearer,
    /// `Authorization: Basic`.
    Basic,
    /// `Authorization: Bearer`, with a token that is obtained here.
    OAuth2(Authority<'c>),
    /// On no call, but on the connection: a certificate.
    Certificate,
}

/// Where a token is obtained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Authority<'c> {
    /// At this address.
    Token(&'c str),
    /// At the address that this description of OpenID Connect names.
    Discovered(&'c str),
}

impl Authority<'_> {
    /// What is asked first.
    pub(super) fn url(&self) -> Result<Url, String> {
        let (Self::Token(text) | Self::Discovered(text)) = self;
        let url: Url = text
            .parse()
            .map_err(|error| format!("its card names '{text}' for tokens: {error}"))?;
        if matches!(url.scheme(), "http" | "https") && url.host_str().is_some() {
            Ok(url)
        } else {
            Err(format!(
                "its card names '{text}' for tokens, which is no http or https"
            ))
        }
    }
}

impl Way<'_> {
    /// What is to be in the file.
    pub(super) const fn described(&self) -> &'static str {
        match self {
            Self::Header(_) | Self::Query(_) | Self::Cookie(_) => "an API key",
            Self::Bearer => "a bearer token",
            Self::Basic => "USER:PASSWORD",
            Self::OAuth2(_) => "a client's id and secret (a line each), or a token",
            Self::Certificate => "a client's certificate and its key, in PEM",
        }
    }

    /// Whether two of them want the same place on a call.
    pub(super) fn is_at(&self, other: &Self) -> bool {
        let place = |way: &Self| match way {
            Self::Header(name) => format!("header {name}"),
            Self::Query(name) => format!("query {name}"),
            Self::Cookie(_) => "header cookie".to_owned(),
            Self::Bearer | Self::Basic | Self::OAuth2(_) => "header authorization".to_owned(),
            Self::Certificate => "connection".to_owned(),
        };
        place(self) == place(other)
    }
}

/// The alternatives of a card, or of its skill where that has its own; `None` where nothing is asked for. One that cannot be
/// met says why.
pub(super) fn of_card<'c>(
    card: &'c AgentCard,
    skill: Option<&str>,
) -> Option<Vec<Result<Demand<'c>, String>>> {
    let own = skill
        .and_then(|skill| card.skills.iter().find(|known| known.id == skill))
        .map(|skill| &skill.security_requirements)
        .filter(|requirements| !requirements.is_empty());
    let requirements = own.unwrap_or(&card.security_requirements);
    // An alternative that is empty is met by anybody.
    if requirements.is_empty() || requirements.iter().any(|one| one.schemes.is_empty()) {
        return None;
    }
    let alternatives = requirements.iter();
    Some(
        alternatives
            .map(|requirement| demand(&card.security_schemes, requirement))
            .collect(),
    )
}

/// The schemes of a card that are mutual TLS, whichever alternatives name them.
pub(super) fn certificates(card: &AgentCard) -> Vec<&str> {
    let is_mutual = |scheme: &SecurityScheme| {
        matches!(
            scheme.scheme,
            Some(security_scheme::Scheme::MtlsSecurityScheme(_))
        )
    };
    let schemes = card.security_schemes.iter();
    let mut names: Vec<&str> = schemes
        .filter(|(_, scheme)| is_mutual(scheme))
        .map(|(name, _)| name.as_str())
        .collect();
    names.sort_unstable();
    names
}

fn demand<'c>(
    schemes: &'c HashMap<String, SecurityScheme>,
    requirement: &'c SecurityRequirement,
) -> Result<Demand<'c>, String> {
    let mut placed = Vec::new();
    for (name, scopes) in &requirement.schemes {
        let scheme = schemes
            .get(name)
            .and_then(|scheme| scheme.scheme.as_ref())
            .ok_or_else(|| {
                format!("its card asks for the security scheme '{name}' and does not say what that is")
            })?;
        let way = way(scheme).map_err(|what| format!("its security scheme '{name}' {what}"))?;
        let mut scopes: Vec<&str> = scopes.list.iter().map(String::as_str).collect();
        scopes.sort_unstable();
        placed.push(Placed {
            scheme: name,
            scopes,
            way,
        });
    }
    // The order of a map is chance.
    placed.sort_by_key(|placed| placed.scheme);
    Ok(Demand { schemes: placed })
}

fn way(scheme: &security_scheme::Scheme) -> Result<Way<'_>, String> {
    use security_scheme::Scheme;

    match scheme {
        Scheme::ApiKeySecurityScheme(key) => match key.location.as_str() {
            "header" => header(&key.name).map(Way::Header),
            "query" => Ok(Way::Query(&key.name)),
            "cookie" => Ok(Way::Cookie(&key.name)),
            other => Err(format!(
                "wants an API key in '{other}', which is none of header, query and cookie"
            )),
        },
        Scheme::HttpAuthSecurityScheme(http) => match http.scheme.to_ascii_lowercase().as_str() {
            "bearer" => Ok(Way::Bearer),
            "basic" => Ok(Way::Basic),
            other => Err(format!(
                "is '{other}' of HTTP; the router can do bearer and basic"
            )),
        },
        Scheme::Oauth2SecurityScheme(oauth2) => Ok(Way::OAuth2(authority(oauth2)?)),
        Scheme::OpenIdConnectSecurityScheme(oidc) => {
            Ok(Way::OAuth2(Authority::Discovered(&oidc.open_id_connect_url)))
        }
        Scheme::MtlsSecurityScheme(_) => Ok(Way::Certificate),
    }
}

fn authority(oauth2: &OAuth2SecurityScheme) -> Result<Authority<'_>, String> {
    let flow = oauth2.flows.as_ref().and_then(|flows| flows.flow.as_ref());
    match flow {
        Some(o_auth_flows::Flow::ClientCredentials(flow)) => Ok(Authority::Token(&flow.token_url)),
        // A token that somebody else obtains can be given for these; a client's id and secret come to nothing.
        Some(o_auth_flows::Flow::AuthorizationCode(flow)) => Ok(Authority::Token(&flow.token_url)),
        Some(o_auth_flows::Flow::DeviceCode(flow)) => Ok(Authority::Token(&flow.token_url)),
        _ => {
            Err("is OAuth 2.0 without a flow that the router can do; it can do client credentials".to_owned())
        }
    }
}

fn header(name: &str) -> Result<HeaderName, String> {
    let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
    parsed
        .filter(|name| !RESERVED.contains(&name.as_str()) && !name.as_str().starts_with("grpc-"))
        .ok_or_else(|| format!("wants an API key in the header '{name}', which cannot be set"))
}

#[cfg(test)]
pub(super) mod tests {
    use muster_api::a2a::{
        AgentSkill, ApiKeySecurityScheme, ClientCredentialsOAuthFlow, HttpAuthSecurityScheme,
        MutualTlsSecurityScheme, OAuthFlows, StringList,
    };
    use security_scheme::Scheme;

    use super::*;

    pub(in crate::credentials) fn api_key(location: &str, name: &str) -> Scheme {
        Scheme::ApiKeySecurityScheme(ApiKeySecurityScheme {
            location: location.to_owned(),
            name: name.to_owned(),
            ..ApiKeySecurityScheme::default()
        })
    }

    pub(in crate::credentials) fn http(scheme: &str) -> Scheme {
        Scheme::HttpAuthSecurityScheme(HttpAuthSecurityScheme {
            scheme: scheme.to_owned(),
            ..HttpAuthSecurityScheme::default()
        })
    }

    pub(in crate::credentials) fn oauth2(token_url: &str) -> Scheme {
        let flow = ClientCredentialsOAuthFlow {
            token_url: token_url.to_owned(),
            ..ClientCredentialsOAuthFlow::default()
        };
        Scheme::Oauth2SecurityScheme(OAuth2SecurityScheme {
            flows: Some(OAuthFlows {
                flow: Some(o_auth_flows::Flow::ClientCredentials(flow)),
            }),
            ..OAuth2SecurityScheme::default()
        })
    }

    /// A card with these schemes, which asks for these alternatives.
    pub(in crate::credentials) fn card(schemes: Vec<(&str, Scheme)>, alternatives: &[&[&str]]) -> AgentCard {
        AgentCard {
            security_schemes: schemes
                .into_iter()
                .map(|(name, scheme)| {
                    let scheme = SecurityScheme { scheme: Some(scheme) };
                    (name.to_owned(), scheme)
                })
                .collect(),
            security_requirements: alternatives.iter().map(|names| requirement(names)).collect(),
            ..AgentCard::default()
        }
    }

    fn requirement(names: &[&str]) -> SecurityRequirement {
        SecurityRequirement {
            schemes: names
                .iter()
                .map(|name| ((*name).to_owned(), StringList::default()))
                .collect(),
        }
    }

    #[test]
    fn each_scheme_has_its_place_and_what_cannot_be_done_says_so() {
        let mtls = Scheme::MtlsSecurityScheme(MutualTlsSecurityScheme::default());
        let schemes = vec![
            ("header", api_key("header", "X-Key")),
            ("query", api_key("query", "key")),
            ("cookie", api_key("cookie", "session")),
            ("body", api_key("body", "key")),
            ("host", api_key("header", "Host")),
            ("bearer", http("Bearer")),
            ("digest", http("digest")),
            ("oauth2", oauth2("http://a/token")),
            ("mtls", mtls),
        ];
        let names: Vec<&str> = schemes.iter().map(|(name, _)| *name).collect();
        let each: Vec<&[&str]> = names.iter().map(std::slice::from_ref).collect();
        let card = card(schemes, &each);
        let told: Vec<String> = of_card(&card, None)
            .unwrap()
            .into_iter()
            .map(|demand| match demand {
                Ok(demand) => format!("{:?}", demand.schemes[0].way),
                Err(what) => what,
            })
            .collect();
        for (told, expected) in told.iter().zip([
            "Header(\"x-key\")",
            "Query(\"key\")",
            "Cookie(\"session\")",
            "none of header, query and cookie",
            "cannot be set",
            "Bearer",
            "bearer and basic",
            "Token(\"http://a/token\")",
            "Certificate",
        ]) {
            assert!(told.contains(expected), "{told}");
        }
    }

    #[test]
    fn a_skill_may_have_requirements_of_its_own_and_an_empty_one_is_met_by_anybody() {
        let mut open = card(vec![("b", http("bearer"))], &[&[]]);
        assert_eq!(of_card(&open, None), None);
        open.skills = vec![AgentSkill {
            id: "s".to_owned(),
            security_requirements: vec![requirement(&["b"])],
            ..AgentSkill::default()
        }];
        assert_eq!(of_card(&open, Some("s")).map(|demands| demands.len()), Some(1));
        assert_eq!(of_card(&open, Some("t")), None);
        assert_eq!(of_card(&AgentCard::default(), Some("s")), None);
        let unknown = card(Vec::new(), &[&["b"]]);
        assert!(
            of_card(&unknown, None).unwrap()[0]
                .as_ref()
                .unwrap_err()
                .contains("'b'")
        );
    }
}
