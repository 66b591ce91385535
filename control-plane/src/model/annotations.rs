//! Our annotations. A word of ours that is misspelt would otherwise be passed over, and with it what it should protect.

use super::{AnyObject, Model};
use crate::problem::Problem;

/// What all of them begin with.
const OURS: &str = "meltemi.dev/";
/// `meltemi.dev/mode.<port>`.
const MODE: &str = "mode.";
/// Of services, for all their ports.
const OF_SERVICES: [&str; 5] = ["access-log", "codec", "tls-certificate", "tls-private-key", "tls-client-ca"];

/// Annotations of ours that mean nothing.
pub fn check_annotations(model: &Model) -> Vec<Problem> {
    let objects = model.clone().into_objects();
    objects.flat_map(|object| check(&object)).collect()
}

/// Of gateways.
const OF_GATEWAYS: [&str; 1] = ["codec"];

fn check(object: &AnyObject) -> Vec<Problem> {
    let is_gateway = matches!(object, AnyObject::Gateway(_));
    let ports: Option<Vec<u16>> = match object {
        AnyObject::ServiceEntry(entry) => Some(entry.spec.ports.iter().map(|port| port.number).collect()),
        AnyObject::Service(service) => Some(service.spec.ports.iter().map(|port| port.port).collect()),
        _ => None,
    };
    let ours = object.metadata().annotations.keys().filter_map(|key| Some((key, key.strip_prefix(OURS)?)));
    ours.filter_map(|(key, word)| {
        if is_gateway && OF_GATEWAYS.contains(&word) {
            return None;
        }
        let reason = wrong(word, ports.as_deref())?;
        Some(object.origin().error(format!("metadata.annotations[{key}]"), reason))
    })
    .collect()
}

fn wrong(word: &str, ports: Option<&[u16]>) -> Option<String> {
    let Some(ports) = ports else {
        let reason = "means nothing here: of ours, ServiceEntry and Service have annotations, and Gateway has `codec`";
        return Some(reason.to_owned());
    };
    if let Some(port) = word.strip_prefix(MODE) {
        if port.parse().is_ok_and(|port| ports.contains(&port)) {
            return None;
        }
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        return Some(format!("there is no port {port}; there are: {}", ports.join(", ")));
    }
    (!OF_SERVICES.contains(&word))
        .then(|| format!("means nothing; what does: {MODE}<port>, {}", OF_SERVICES.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Metadata, Object, Service, ServicePort};

    #[test]
    fn misspelt_ones_are_told() {
        let with = |key: &str| {
            let metadata = Metadata { annotations: [(key.to_owned(), "x".to_owned())].into(), ..Metadata::default() };
            let port = ServicePort { port: 9090, ..ServicePort::default() };
            let spec = Service { ports: vec![port], ..Service::default() };
            let object = Object { origin: crate::problem::Origin::default(), metadata, spec };
            check_annotations(&Model { services: vec![object.into()], ..Model::default() })
        };
        for good in ["meltemi.dev/mode.9090", "meltemi.dev/access-log", "example.org/mode.1"] {
            assert_eq!(with(good), [], "{good}");
        }
        for bad in ["meltemi.dev/mode.9091", "meltemi.dev/mode.x", "meltemi.dev/mode", "meltemi.dev/tls-certificat"] {
            assert_eq!(with(bad)[0].field, format!("metadata.annotations[{bad}]"));
        }
    }
}
