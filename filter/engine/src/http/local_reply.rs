use meltemi_core::FailureKind;

/// What Envoy's own reply means.
///
/// `details` is `%RESPONSE_CODE_DETAILS%` if our HCM added it, or the name of a [`FailureKind`] if the outlet did. An HCM that
/// is not ours (Istio's) adds nothing: then status and body text say as much as they do.
pub(crate) fn failure_kind(status: u16, details: &[u8], body: &[u8]) -> FailureKind {
    FailureKind::from_name(details)
        .or_else(|| by_details(details, status))
        .or_else(|| by_body(body))
        .unwrap_or_else(|| by_status(status))
}

/// Envoy's response code details, as listed in its documentation.
fn by_details(details: &[u8], status: u16) -> Option<FailureKind> {
    let is = |prefix: &str| details.starts_with(prefix.as_bytes());
    let has = |part: &str| contains(details, part.as_bytes());
    let kind = if is("route_not_found") || is("route_configuration_not_found") {
        FailureKind::NoRoute
    } else if is("cluster_not_found") {
        FailureKind::NoCluster
    } else if is("no_healthy_upstream") || is("no_cluster") {
        FailureKind::NoHealthyUpstream
    } else if is("upstream_reset") || is("upstream_per_try") || is("early_upstream_reset") {
        if has("overflow") {
            FailureKind::Overflow
        } else if has("timeout") && !has("connection_timeout") {
            FailureKind::Timeout
        } else if has("connection_failure") || has("connection_timeout") || has("refused_stream") {
            // Refused is what was not begun: there was no connection to hand it to.
            FailureKind::ConnectFailure
        } else {
            FailureKind::UpstreamReset
        }
    } else if has("timeout") {
        FailureKind::Timeout
    } else if has("rate_limited") || is("ratelimit") {
        FailureKind::RateLimited
    } else if is("fault_filter_abort") {
        match by_status(status) {
            FailureKind::Internal | FailureKind::NoHealthyUpstream | FailureKind::BadReply => FailureKind::Aborted,
            other => other,
        }
    } else if is("rbac_access_denied") || has("denied") || is("jwt_authn") {
        FailureKind::Denied
    } else if has("too_large") {
        FailureKind::TooLarge
    } else if is("overload") || is("maintenance_mode") || has("max_requests") {
        FailureKind::Overflow
    } else {
        return None;
    };
    Some(kind)
}

/// Texts of Envoy's router and filters.
fn by_body(body: &[u8]) -> Option<FailureKind> {
    let has = |part: &str| contains(body, part.as_bytes());
    if has("no healthy upstream") {
        Some(FailureKind::NoHealthyUpstream)
    } else if has("fault filter abort") {
        Some(FailureKind::Aborted)
    } else if has("local_rate_limited") {
        Some(FailureKind::RateLimited)
    } else if has("RBAC: access denied") {
        Some(FailureKind::Denied)
    } else if has("upstream request timeout") {
        Some(FailureKind::Timeout)
    } else if has("reset reason: overflow") {
        Some(FailureKind::Overflow)
    } else if has("connection failure") || has("connection timeout") || has("refused stream") {
        Some(FailureKind::ConnectFailure)
    } else if has("upstream connect error") {
        Some(FailureKind::UpstreamReset)
    } else {
        None
    }
}

fn by_status(status: u16) -> FailureKind {
    match status {
        400 => FailureKind::Malformed,
        401 | 403 => FailureKind::Denied,
        404 => FailureKind::NoRoute,
        408 | 504 => FailureKind::Timeout,
        413 | 431 => FailureKind::TooLarge,
        429 => FailureKind::RateLimited,
        502 => FailureKind::BadReply,
        503 => FailureKind::NoHealthyUpstream,
        _ => FailureKind::Internal,
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_first_then_text_then_status() {
        let kind = |status, details: &str, body: &str| failure_kind(status, details.as_bytes(), body.as_bytes());
        for (status, details, expected) in [
            (404, "route_not_found", FailureKind::NoRoute),
            (503, "cluster_not_found", FailureKind::NoCluster),
            (503, "no_healthy_upstream{cluster}", FailureKind::NoHealthyUpstream),
            (503, "upstream_reset_before_response_started{remote_connection_failure|x}", FailureKind::ConnectFailure),
            (503, "upstream_reset_before_response_started{connection_termination}", FailureKind::UpstreamReset),
            (503, "upstream_reset_before_response_started{overflow}", FailureKind::Overflow),
            (503, "upstream_reset_before_response_started{connection_timeout}", FailureKind::ConnectFailure),
            (504, "response_timeout", FailureKind::Timeout),
            (504, "upstream_per_try_timeout", FailureKind::Timeout),
            (429, "local_rate_limited", FailureKind::RateLimited),
            (429, "request_rate_limited", FailureKind::RateLimited),
            (503, "fault_filter_abort", FailureKind::Aborted),
            (429, "fault_filter_abort", FailureKind::RateLimited),
            (403, "rbac_access_denied_matched_policy[p]", FailureKind::Denied),
            (502, "bad_reply", FailureKind::BadReply),
        ] {
            assert_eq!(kind(status, details, ""), expected, "{details}");
        }
        assert_eq!(kind(503, "", "no healthy upstream"), FailureKind::NoHealthyUpstream);
        assert_eq!(
            kind(503, "", "upstream connect error or disconnect/reset before headers. reset reason: overflow"),
            FailureKind::Overflow
        );
        assert_eq!(kind(403, "", ""), FailureKind::Denied);
        assert_eq!(kind(418, "", ""), FailureKind::Internal);
    }
}
