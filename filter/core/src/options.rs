use std::collections::BTreeMap;

use crate::OptionError;

/// Options of a codec as a user wrote them: names and text values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options(pub BTreeMap<String, String>);

/// Documentation of one option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionDoc {
    /// Its name.
    pub name: &'static str,
    /// The values it takes, the default first.
    pub values: &'static [&'static str],
    /// What it does.
    pub help: &'static str,
}

impl Options {
    /// The value of `doc`'s option, checked against its values; the first of them if it was not given.
    pub fn choice(&self, doc: &OptionDoc) -> Result<&'static str, OptionError> {
        let default = doc.values.first().copied().unwrap_or_default();
        let Some(value) = self.0.get(doc.name) else { return Ok(default) };
        doc.values.iter().copied().find(|v| v == value).ok_or_else(|| OptionError {
            name: doc.name.to_owned(),
            reason: format!("`{value}` is not one of {}", doc.values.join(", ")),
        })
    }

    /// Refuses options that are not among `docs`.
    pub fn check_names(&self, docs: &[OptionDoc]) -> Result<(), OptionError> {
        match self.0.keys().find(|name| !docs.iter().any(|doc| doc.name == name.as_str())) {
            None => Ok(()),
            Some(name) => {
                let known: Vec<_> = docs.iter().map(|doc| doc.name).collect();
                Err(OptionError { name: name.clone(), reason: format!("unknown; known are: {}", known.join(", ")) })
            }
        }
    }
}
