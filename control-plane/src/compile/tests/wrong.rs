//! One wrong object at a time: where it is, what it is, which field, and why.

use super::*;

/// Kind, field and a part of the reason of the only error.
fn is_wrong(yaml: &[String], kind: &str, field: &str, reason: &str) {
    let compiled = all(&yaml.concat());
    let errors: Vec<&Problem> = compiled.problems.iter().filter(|p| p.severity == Severity::Error).collect();
    let [problem] = errors.as_slice() else { panic!("{kind} {field}: {:?}", compiled.problems) };
    assert_eq!(problem.origin.file.as_deref().and_then(|file| file.file_name()), Some(FILE.as_ref()), "{problem}");
    let lines = yaml.concat().lines().count();
    assert!(problem.origin.line.is_some_and(|line| (1..=lines).contains(&line)), "{problem}");
    assert_eq!((problem.origin.kind.as_str(), problem.field.as_str()), (kind, field), "{problem}");
    assert!(problem.reason.contains(reason), "{problem}");
}

fn route_is_wrong(route: &str, field: &str, reason: &str) {
    let yaml = [service("thrift"), rule(""), router(&format!("  routes: [{{{route}}}]"))];
    is_wrong(&yaml, "MetaRouter", &format!("spec.routes[0].{field}"), reason);
}

#[test]
fn routes() {
    let to = "route: [{destination: {host: a.test}}]";
    route_is_wrong("timeout: 1s", "route", "needs a destination");
    route_is_wrong("route: [{destination: {host: b.test}}]", "route[0].destination.host", "no Service or ServiceEntry");
    route_is_wrong(
        "route: [{destination: {host: a.test, port: {number: 81}}}]",
        "route[0].destination.port",
        "no port 81",
    );
    route_is_wrong("route: [{destination: {host: a.test, subset: x}}]", "route[0].destination.subset", "has `x`");
    route_is_wrong(&format!("{to}, mirror: {{host: b.test}}"), "mirror.host", "no Service");
    route_is_wrong(
        &format!("{to}, mirror: {{host: a.test}}, mirrorPercentage: {{value: -1}}"),
        "mirrorPercentage.value",
        "0 and 100",
    );
    route_is_wrong(&format!("{to}, fault: {{delay: {{fixedDelay: 0s}}}}"), "fault.delay.fixedDelay", "more than 0");
    route_is_wrong(&format!("{to}, fault: {{abort: {{httpStatus: 200}}}}"), "fault.abort.httpStatus", "no failure");
    route_is_wrong(&format!("{to}, hashPolicy: ['']"), "hashPolicy[0]", "empty");
    let two = |a: &str, b: &str| {
        format!("route: [{{destination: {{host: a.test}}{a}}}, {{destination: {{host: a.test, subset: v1}}{b}}}]")
    };
    route_is_wrong(&two("", ", weight: 1"), "route[0].weight", "needed");
    route_is_wrong(&two(", weight: 0", ", weight: 0"), "route", "add up to 0");
}

#[test]
fn matches() {
    for (condition, reason) in [
        ("{exact: a, prefix: b}", "only one"),
        ("{prefix: ''}", "present"),
        ("{regex: '('}", "regex"),
        ("{regex: '(?x) a'}", "RE2"),
        ("{regex: '\\\\u{61}'}", "RE2"),
        ("{regex: '\\\\p{Alphabetic}'}", "RE2"),
        ("{regex: a, ignoreCase: true}", "(?i)"),
        ("{range: {start: 5, end: 5}}", "empty"),
    ] {
        let route = format!("deny: true, match: {{attributes: {{method: {}}}}}", condition.replace("\\\\", "\\"));
        route_is_wrong(&route, "match.attributes.method", reason);
    }
}

#[test]
fn routers() {
    let hosts = |hosts: &str| router("  routes: [{deny: true}]").replace("[a.test]", hosts);
    is_wrong(&[service("thrift"), hosts("[]")], "MetaRouter", "spec.hosts", "exactly one");
    is_wrong(&[service("thrift"), hosts("[a.test, b.test]")], "MetaRouter", "spec.hosts", "not 2");
}

#[test]
fn policies() {
    let policy_is_wrong = |policy: &str, field: &str, reason: &str| {
        let rule = rule(&format!("  trafficPolicy: {policy}"));
        is_wrong(&[service("thrift"), rule], "DestinationRule", &format!("spec.trafficPolicy.{field}"), reason);
    };
    policy_is_wrong(
        "{connectionPool: {tcp: {connectTimeout: 0s}}}",
        "connectionPool.tcp.connectTimeout",
        "more than 0",
    );
    policy_is_wrong(
        "{outlierDetection: {maxEjectionPercent: 101}}",
        "outlierDetection.maxEjectionPercent",
        "at most 100",
    );
    let hash = "loadBalancer.consistentHash";
    policy_is_wrong(
        "{loadBalancer: {consistentHash: {useSourceIp: true, minimumRingSize: 99999999}}}",
        &format!("{hash}.minimumRingSize"),
        "at most",
    );
    for size in ["0", "1000", "65536"] {
        let policy =
            format!("{{loadBalancer: {{consistentHash: {{useSourceIp: true, maglev: {{tableSize: {size}}}}}}}}}");
        policy_is_wrong(&policy, &format!("{hash}.maglev.tableSize"), "no prime");
    }
    policy_is_wrong(
        "{loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 18446744073709551557}}}}",
        &format!("{hash}.maglev.tableSize"),
        "at most",
    );
    policy_is_wrong("{tls: {mode: ISTIO_MUTUAL}}", "tls.mode", "needs Istio");
    policy_is_wrong("{tls: {mode: MUTUAL, caCertificates: x}}", "tls.clientCertificate", "needs");
    policy_is_wrong("{tls: {mode: SIMPLE, credentialName: x}}", "tls.credentialName", "needs Kubernetes");
}

#[test]
fn services() {
    is_wrong(&[service("nonsense")], "ServiceEntry", "spec.ports[0].name", "no codec `nonsense`");
    is_wrong(&[service("thrift").replace("number: 80", "number: 0")], "ServiceEntry", "spec.ports[0]", "number");
    is_wrong(
        &[service("thrift").replace("10.0.0.1", "name")],
        "ServiceEntry",
        "spec.endpoints[0].address",
        "resolution: DNS",
    );
    let tls = service("thrift").replace("{name: a}", "{name: a, annotations: {meltemi.dev/tls-certificate: x}}");
    is_wrong(&[tls], "ServiceEntry", "metadata.annotations", "belong together");
    let protocol = |spec: &str| {
        format!(
            "
apiVersion: meltemi.dev/v1alpha1
kind: ApplicationProtocol
metadata: {{name: x}}
spec: {spec}
"
        )
    };
    is_wrong(&[protocol("{protocol: x, codec: nonsense}")], "ApplicationProtocol", "spec.codec", "no codec");
    is_wrong(
        &[protocol("{protocol: x, codec: thrift, maxFrameBytes: 0}")],
        "ApplicationProtocol",
        "spec.maxFrameBytes",
        "more than 0",
    );
    is_wrong(
        &[protocol("{protocol: x, codec: thrift, maxFrameBytes: 33554433}")],
        "ApplicationProtocol",
        "spec.maxFrameBytes",
        "at most 33554432",
    );
    is_wrong(
        &[protocol("{protocol: x, codec: thrift, passHeaders: [traceparent, Host]}")],
        "ApplicationProtocol",
        "spec.passHeaders[1]",
        "`Host` means something to HTTP/2",
    );
    is_wrong(
        &[protocol("{protocol: x, codec: thrift, options: {nonsense: 1}}")],
        "ApplicationProtocol",
        "spec.options.nonsense",
        "",
    );
}
