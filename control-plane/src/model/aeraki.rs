//! Aeraki's objects mean in places what its proxy makes of them. What counts as a defect there is not repeated.

use super::{Destination, MetaRouter, Route, RouteMatch, StringMatch, TokenBucket};

impl MetaRouter {
    /// Says what an object of Aeraki's group says in our words.
    #[must_use]
    pub fn from_aeraki(mut self) -> Self {
        self.routes.iter_mut().for_each(route);
        if let Some(limit) = &mut self.local_rate_limit {
            limit.token_bucket.iter_mut().for_each(bucket);
            for condition in &mut limit.conditions {
                conditions(&mut condition.r#match);
                bucket(&mut condition.token_bucket);
            }
        }
        if let Some(only) = self.global_rate_limit.as_mut().and_then(|limit| limit.r#match.as_mut()) {
            conditions(only);
        }
        self
    }
}

fn route(route: &mut Route) {
    route.r#match.iter_mut().for_each(conditions);
    let several = route.route.len() > 1;
    for weighted in &mut route.route {
        if several {
            // A number that is not there is 0 in protobuf.
            weighted.weight = Some(weighted.weight.unwrap_or(0));
        }
        destination(&mut weighted.destination);
    }
    route.mirror.iter_mut().for_each(destination);
    // Here as well; a mirror of nothing would not be written.
    route.mirror_percentage = route.mirror_percentage.filter(|percent| percent.value != 0.0);
}

fn destination(destination: &mut Destination) {
    destination.port = destination.port.filter(|port| port.number != 0);
    destination.subset = destination.subset.take().filter(|subset| !subset.is_empty());
}

/// Envoy takes a literal that is empty for "present".
fn conditions(conditions: &mut RouteMatch) {
    for condition in conditions.attributes.values_mut() {
        if condition.as_ref().is_some_and(|condition| condition.exact.as_deref() == Some("")) {
            *condition = Some(StringMatch { present: Some(true), ..StringMatch::default() });
        }
    }
}

fn bucket(bucket: &mut TokenBucket) {
    bucket.tokens_per_fill = bucket.tokens_per_fill.filter(|tokens| *tokens != 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_numbers_and_empty_literals() {
        let text = "
hosts: [a.test]
routes:
- match: {attributes: {method: {exact: ''}, user: {exact: x}}}
  route:
  - {destination: {host: a.test, subset: '', port: {number: 0}}}
  - {destination: {host: a.test, subset: v2, port: {number: 5}}, weight: 100}
  mirror: {host: a.test}
  mirrorPercentage: {value: 0}
- route: [{destination: {host: a.test}}]
localRateLimit: {tokenBucket: {maxTokens: 1, tokensPerFill: 0}}
";
        let router: MetaRouter = serde_yaml_ng::from_str(text).unwrap();
        let router = router.from_aeraki();
        let first = &router.routes[0];
        let attributes = &first.r#match.as_ref().unwrap().attributes;
        assert_eq!(attributes["method"].as_ref().unwrap().given(), ["present"]);
        assert_eq!(attributes["user"].as_ref().unwrap().given(), ["exact"]);
        assert_eq!(first.route.iter().map(|to| to.weight).collect::<Vec<_>>(), [Some(0), Some(100)]);
        assert_eq!((first.route[0].destination.port, &first.route[0].destination.subset), (None, &None));
        assert_eq!(first.route[1].destination.port.unwrap().number, 5);
        assert_eq!(first.mirror_percentage, None);
        assert_eq!(router.routes[1].route[0].weight, None);
        assert_eq!(router.local_rate_limit.unwrap().token_bucket.unwrap().tokens_per_fill, None);
    }
}
