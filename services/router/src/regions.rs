//! How near a region is. Pure.
//!
//! Nearest is the region that the call asks for, else the router's own; then the router's own, then those of
//! `router.region_order` in that order, then all others, which are equally far: among equals the faster and less loaded instance
//! gets more, so that without an order latency decides. A router without a region finds all equally near, unless there is an
//! order.

/// The router's preference among regions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Regions {
    /// The router's own; empty for none.
    pub own: String,
    /// The others, the preferred first; those that are not named come after them.
    pub order: Vec<String>,
}

impl Regions {
    /// How far `region` is for a call that asks for `preferred`; 0 is nearest. None asked for means the router's own.
    #[must_use]
    pub fn distance(&self, preferred: Option<&str>, region: &str) -> u32 {
        let preferred = preferred.unwrap_or(&self.own);
        if preferred.is_empty() && self.order.is_empty() {
            return 0;
        }
        let first = [preferred, self.own.as_str()];
        let order = self.order.iter().map(String::as_str);
        let mut ranked = first.into_iter().chain(order).filter(|named| !named.is_empty());
        let place = ranked.position(|named| named == region);
        u32::try_from(place.unwrap_or(self.order.len() + first.len())).unwrap_or(u32::MAX)
    }

    /// Whether a call to that region leaves the router's own.
    #[must_use]
    pub fn is_elsewhere(&self, region: &str) -> bool {
        !self.own.is_empty() && self.own != region
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_that_is_asked_for_comes_first_then_the_own_then_those_in_order() {
        let regions = Regions {
            own: "eu".to_owned(),
            order: vec!["us".to_owned(), "ap".to_owned()],
        };
        let sorted = |preferred| {
            let mut all = ["ap", "sa", "us", "eu", ""];
            all.sort_by_key(|region| regions.distance(preferred, region));
            all
        };
        assert_eq!(sorted(None), ["eu", "us", "ap", "sa", ""]);
        assert_eq!(sorted(Some("ap")), ["ap", "eu", "us", "sa", ""]);
        assert_eq!(regions.distance(None, "sa"), regions.distance(None, "af"));
        assert_eq!(Regions::default().distance(None, "eu"), 0, "nothing is preferred");
        assert!(Regions::default().distance(Some("eu"), "us") > 0);
        assert!(regions.is_elsewhere("us") && !regions.is_elsewhere("eu"));
        assert!(!Regions::default().is_elsewhere("us"));
    }
}
