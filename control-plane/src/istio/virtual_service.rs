//! A MetaRouter on a native port, or for gateways → a VirtualService, because there the routes are istiod's.

use serde_json::{Value, json};

use meltemi_engine::names;

use super::{
    Compiled, Desired, DesiredKind, Facts,
    ports::{MeshPort, Shape},
    theirs::Theirs,
};
use crate::{
    compile::{Protocol, Services, check_regex, metadata_key},
    model::{Destination, KeyValue, MetaRouter, Model, Object, Percent, Retries, Route, StringMatch},
    problem::{Kind, Problem, Severity},
};

/// Adds the VirtualServices of all MetaRouters that are about native ports, or name gateways.
pub(super) fn add(
    model: &Model,
    services: &Services<'_>,
    ports: &[MeshPort<'_>],
    facts: &Facts,
    output: &mut Compiled,
) {
    let theirs = Theirs::new(services, facts);
    for router in &model.meta_routers {
        let [host] = router.spec.hosts.as_slice() else { continue };
        let host = services.host_of(host, &router.metadata);
        if services.router_of(&host).is_none_or(|first| first.origin != router.origin) {
            continue;
        }
        let scopes = Scope::of_codecs(router, services, ports, &host);
        let native = scopes.iter().any(|scope| !scope.numbers.is_empty());
        if scopes.is_empty() {
            continue;
        }
        let mut http = Vec::new();
        for (index, route) in router.spec.routes.iter().enumerate() {
            let mut wrong = Vec::new();
            for scope in &scopes {
                match scope.route(route, &format!("spec.routes[{index}]")) {
                    Ok(route) => http.push(route),
                    Err(problem) if native => wrong.push((scope, *problem)),
                    Err(problem) => output.problems.push(of_gateways(*problem)),
                }
            }
            if wrong.len() == scopes.len() {
                output.problems.extend(wrong.into_iter().map(|(_, problem)| problem).take(1));
            } else {
                output.problems.extend(wrong.into_iter().map(|(scope, problem)| scope.left_out(problem)));
            }
        }
        for (field, given) in [
            ("spec.localRateLimit", router.spec.local_rate_limit.is_some()),
            ("spec.globalRateLimit", router.spec.global_rate_limit.is_some()),
        ] {
            if given && native {
                let reason = "has no place in a VirtualService; use a port named tcp-metaprotocol-<protocol>, or an \
                              EnvoyFilter with Envoy's own limits";
                output.problems.push(router.origin.error(field, reason));
            }
        }
        if http.is_empty() {
            continue;
        }
        if native {
            theirs.rival(router, &host, output);
        }
        // As in Aeraki: a gateway comes beside the sidecars, not in their place.
        let mesh = native.then_some("mesh");
        let gateways: Vec<&str> = mesh.into_iter().chain(router.spec.gateways.iter().map(String::as_str)).collect();
        output.desired.push(Desired {
            kind: DesiredKind::VirtualService,
            namespace: router.metadata.namespace.clone(),
            name: format!("meltemi-{}", router.metadata.name),
            owner: Some(router.origin.clone()),
            spec: (&json!({
                "hosts": [host],
                "exportTo": if router.spec.export_to.is_empty() { json!(["*"]) } else { json!(router.spec.export_to) },
                "gateways": gateways,
                "http": http,
            }))
                .into(),
        });
    }
}

/// What sidecars do and gateways cannot.
fn of_gateways(problem: Problem) -> Problem {
    let reason = format!("gateways are without this route: {}", problem.reason);
    Problem { severity: Severity::Warning, reason, ..problem }
}

/// The ports of a host that speak one protocol, as far as their routes are istiod's.
struct Scope<'a> {
    router: &'a Object<MetaRouter>,
    services: &'a Services<'a>,
    protocol: &'a Protocol,
    /// Those that sidecars route by a VirtualService; none if gateways alone do.
    numbers: Vec<u16>,
    /// The host has other ports, which sidecars' routes must leave as they are.
    among_others: bool,
    /// The gateways that have its routes.
    gateways: &'a [String],
}

type Result<T> = std::result::Result<T, Box<Problem>>;

impl<'a> Scope<'a> {
    /// One for each codec of the host's native ports: names in matches and destinations depend on it. Without such ports one for
    /// gateways, because sidecars have the routes of the tcp shape from us.
    fn of_codecs(
        router: &'a Object<MetaRouter>,
        services: &'a Services<'a>,
        ports: &'a [MeshPort<'_>],
        host: &str,
    ) -> Vec<Self> {
        let own = ports.iter().filter(|port| port.host == host);
        let new = |port: &'a MeshPort<'_>| Self {
            router,
            services,
            protocol: port.protocol,
            numbers: Vec::new(),
            among_others: false,
            gateways: &[],
        };
        let mut scopes: Vec<Self> = Vec::new();
        for port in own.clone().filter(|port| port.shape != Shape::Tcp) {
            let of_codec = |scope: &Self| scope.protocol.codec.name == port.protocol.codec.name;
            if !scopes.iter().any(of_codec) {
                scopes.push(new(port));
            }
            if let Some(scope) = scopes.iter_mut().find(|scope| of_codec(scope)) {
                scope.numbers.push(port.number);
            }
        }
        for scope in &mut scopes {
            scope.among_others = services.numbers_of(host).iter().any(|number| !scope.numbers.contains(number));
        }
        if scopes.is_empty() && !router.spec.gateways.is_empty() {
            scopes.extend(own.take(1).map(new));
        }
        // What a gateway speaks its own server says; routes name things as the first codec does.
        if let Some(first) = scopes.first_mut() {
            first.gateways = &router.spec.gateways;
        }
        scopes
    }

    /// What is wrong for these ports alone.
    fn left_out(&self, problem: Problem) -> Problem {
        let ports: Vec<String> = self.numbers.iter().map(u16::to_string).collect();
        let reason = format!("left out for port {}: {}", ports.join(", "), problem.reason);
        Problem { severity: Severity::Warning, reason, ..problem }
    }

    /// Conditions on the headers of calls on these ports, and at gateways, whose own ports have other numbers.
    fn matches(&self, headers: &Value) -> Option<Value> {
        if self.among_others {
            let with = |field: &str, value: Value| {
                let mut with = headers.clone();
                with[field] = value;
                with
            };
            let on = |number: &u16| {
                let mut on = with("port", json!(number));
                on["gateways"] = json!(["mesh"]);
                on
            };
            let through = (!self.gateways.is_empty()).then(|| with("gateways", json!(self.gateways)));
            return Some(self.numbers.iter().map(on).chain(through).collect());
        }
        headers.as_object().is_some_and(|conditions| !conditions.is_empty()).then(|| json!([headers]))
    }

    fn wrong<T>(&self, field: &str, reason: impl Into<String>) -> Result<T> {
        Err(Box::new(self.router.origin.error(field, reason)))
    }

    /// What a destination names is not there, or not what it would have to be.
    fn unresolved<T>(&self, field: &str, reason: impl Into<String>) -> Result<T> {
        self.wrong(field, reason).map_err(|problem| Box::new(problem.of(Kind::Reference)))
    }

    fn route(&self, spec: &Route, field: &str) -> Result<Value> {
        let mut route = json!({});
        if !spec.name.is_empty() {
            route["name"] = json!(spec.name);
        }
        let mut headers = json!({});
        if let Some(conditions) = &spec.r#match {
            let (mut with, mut without) = (json!({}), json!({}));
            for (key, condition) in &conditions.attributes {
                let field = format!("{field}.match.attributes.{key}");
                let (header, matcher, inverted) = self.condition(key, condition.as_ref(), &field)?;
                (if inverted { &mut without } else { &mut with })[header] = matcher;
            }
            headers = json!({"headers": with, "withoutHeaders": without});
        }
        if let Some(matches) = self.matches(&headers) {
            route["match"] = matches;
        }
        if spec.deny {
            route["directResponse"] = json!({"status": 403});
            return Ok(route);
        }
        for (name, given, reason) in [
            (
                "hashPolicy",
                !spec.hash_policy.is_empty(),
                "say it in the DestinationRule: consistentHash.httpHeaderName",
            ),
            ("localRateLimit", spec.local_rate_limit.is_some(), "has no place in a VirtualService"),
        ] {
            if given {
                return self.wrong(&format!("{field}.{name}"), reason);
            }
        }
        route["route"] = self.destinations(spec, field)?;
        if let Some(timeout) = spec.timeout {
            route["timeout"] = json!(seconds(timeout.0));
        }
        // Istio's own default would be the same, but for a retry on "unavailable" that a server may have said.
        route["retries"] = retries(spec.retries.as_ref());
        if let Some(mirror) = &spec.mirror {
            route["mirror"] = self.destination(mirror, &format!("{field}.mirror"))?;
            route["mirrorPercentage"] = json!({"value": spec.mirror_percentage.map_or(100.0, |percent| percent.value)});
        }
        if let Some(fault) = &spec.fault {
            let share = |percent: Option<Percent>| json!({"value": percent.map_or(100.0, |percent| percent.value)});
            if let Some(delay) = &fault.delay {
                let delay = json!({"fixedDelay": seconds(delay.fixed_delay.0), "percentage": share(delay.percentage)});
                route["fault"]["delay"] = delay;
            }
            if let Some(abort) = &fault.abort {
                let status = abort.http_status.unwrap_or(503);
                route["fault"]["abort"] = json!({"httpStatus": status, "percentage": share(abort.percentage)});
            }
        }
        let headers = json!({"request": changes(&spec.request_mutation), "response": changes(&spec.response_mutation)});
        if !(spec.request_mutation.is_empty() && spec.response_mutation.is_empty()) {
            route["headers"] = headers;
        }
        Ok(route)
    }

    /// Name of the header, how it is matched, and whether the condition is that it is not so.
    fn condition(&self, key: &str, condition: Option<&StringMatch>, field: &str) -> Result<(String, Value, bool)> {
        let condition = condition.cloned().unwrap_or_default();
        let given = condition.given();
        if given.len() > 1 {
            return self.wrong(field, format!("only one of {} can be given", given.join(", ")));
        }
        if condition.range.is_some() {
            return self.wrong(field, "a VirtualService has no ranges; use a port named tcp-metaprotocol-<protocol>");
        }
        let key = metadata_key(key, self.protocol.service_aliases);
        let literal = |value: &str| {
            let (header, value) = names::match_header(key, Some(value));
            (header, value.unwrap_or_default())
        };
        let regex = |before: &str, value: &str, after: &str| {
            let (header, value) = literal(value);
            let case = if condition.ignore_case { "(?i)" } else { "" };
            (header, json!({"regex": format!("{case}{before}{}{after}", regex::escape(&value))}))
        };
        let (header, matcher) = match (&condition.exact, &condition.prefix, &condition.suffix, &condition.regex) {
            (Some(exact), ..) if condition.ignore_case => regex("", exact, ""),
            (Some(exact), ..) => {
                let (header, value) = literal(exact);
                (header, json!({"exact": value}))
            }
            (_, Some(prefix), ..) if condition.ignore_case => regex("", prefix, ".*"),
            (_, Some(prefix), ..) => {
                let (header, value) = literal(prefix);
                (header, json!({"prefix": value}))
            }
            (_, _, Some(suffix), _) => regex(".*", suffix, ""),
            (.., Some(expression)) if expression != "*" => {
                // istiod takes what Envoy then refuses, and with it all routes of the port.
                if let Err(reason) = check_regex(expression, condition.ignore_case) {
                    return self.wrong(field, reason);
                }
                (names::match_header(key, None).0, json!({"regex": expression}))
            }
            // "There", whatever it says.
            _ => (names::match_header(key, None).0, json!({})),
        };
        Ok((header, matcher, condition.invert != (condition.present == Some(false))))
    }

    fn destinations(&self, spec: &Route, field: &str) -> Result<Value> {
        let mut all = Vec::new();
        for (index, weighted) in spec.route.iter().enumerate() {
            let below = format!("{field}.route[{index}]");
            let mut one =
                json!({"destination": self.destination(&weighted.destination, &format!("{below}.destination"))?});
            match weighted.weight {
                Some(weight) => one["weight"] = json!(weight),
                None if spec.route.len() > 1 => {
                    return self.wrong(&format!("{below}.weight"), "needed where there are several destinations");
                }
                None => {}
            }
            all.push(one);
        }
        if all.is_empty() {
            return self.wrong(&format!("{field}.route"), "a route needs a destination");
        }
        Ok(json!(all))
    }

    /// A destination, which must speak the same protocol: its cluster needs the bridge.
    fn destination(&self, to: &Destination, field: &str) -> Result<Value> {
        let host = self.services.host_of(&to.host, &self.router.metadata);
        let number = to.port.map(|port| port.number);
        // A gateway keeps no number of its own: whatever speaks the codec will do.
        let mut from = self.numbers.iter().map(|from| Some(*from)).chain(self.numbers.is_empty().then_some(None));
        let why_not = |from: Option<u16>| self.services.why_not(&host, number.or(from), &self.protocol.codec.name);
        if let Some(reason) = from.find_map(why_not) {
            return self.unresolved(&format!("{field}.host"), reason);
        }
        if let Some(subset) = &to.subset
            && self.services.subset(&host, subset).is_none()
        {
            return self
                .unresolved(&format!("{field}.subset"), format!("no DestinationRule of `{host}` has `{subset}`"));
        }
        let mut destination = json!({"host": host});
        if let Some(subset) = &to.subset {
            destination["subset"] = json!(subset);
        }
        if let Some(port) = to.port {
            destination["port"] = json!({"number": port.number});
        }
        Ok(destination)
    }
}

fn retries(spec: Option<&Retries>) -> Value {
    let Some(spec) = spec else {
        return json!({"attempts": 2, "retryOn": UNSENT});
    };
    let mut retries = json!({"attempts": spec.attempts});
    if spec.attempts > 0 {
        let on = if spec.idempotent { format!("{UNSENT},reset,gateway-error") } else { UNSENT.to_owned() };
        retries["retryOn"] = json!(on);
    }
    if let Some(timeout) = spec.per_try_timeout {
        retries["perTryTimeout"] = json!(seconds(timeout.0));
    }
    retries
}

/// What no server has seen.
const UNSENT: &str = "connect-failure,refused-stream,reset-before-request";

fn changes(changes: &[KeyValue]) -> Value {
    let (mut set, mut remove) = (json!({}), Vec::new());
    for change in changes {
        let (header, value) = names::match_header(&change.key, Some(&change.value));
        if change.remove {
            remove.push(names::match_header(&change.key, None).0);
        } else {
            set[header] = json!(value.unwrap_or_default());
        }
    }
    json!({"set": set, "remove": remove})
}

fn seconds(duration: std::time::Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}
