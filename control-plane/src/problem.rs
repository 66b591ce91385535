//! What is wrong with what a user wrote.

use std::{fmt, path::PathBuf, sync::Arc};

use serde::Serialize;

use crate::lines::line_of_field;

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Whether the object is left out because of it.
    pub severity: Severity,
    /// The object, and the place it comes from.
    #[serde(flatten)]
    pub origin: Origin,
    /// Path of the field, such as `spec.routes[0].route[1].weight`; empty if it is the whole object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// What is wrong and what would be right.
    pub reason: String,
    /// What it is about.
    #[serde(skip)]
    pub kind: Kind,
}

/// What a problem is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// What the object itself says.
    #[default]
    Content,
    /// Something that it names: it is not there, or not what it would have to be.
    Reference,
    /// Another object has it already.
    Conflict,
    /// Standalone proxies alone: in a mesh, istiod acts on it.
    Standalone,
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Taken, but probably not what was meant.
    Warning,
    /// Not taken; what was served before stays.
    Error,
}

/// An object and the place it comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Origin {
    /// The file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Line in the file, from 1: the object's first, in a problem the field's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// What the object was read from, beginning in its first line.
    #[serde(skip)]
    pub document: Option<Arc<str>>,
    /// `networking.istio.io`, `meltemi.dev`, …; empty for Kubernetes' core.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// `MetaRouter`, `ServiceEntry`, …; empty if the file could not be read that far.
    pub kind: String,
    /// `namespace/name`.
    pub name: String,
}

/// What tells objects apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// `MetaRouter`, `ServiceEntry`, …
    pub kind: String,
    /// Its API group.
    pub group: String,
    /// `namespace/name`.
    pub name: String,
}

impl Origin {
    /// Which object it is.
    pub fn key(&self) -> Key {
        Key { kind: self.kind.clone(), group: self.group.clone(), name: self.name.clone() }
    }

    /// An error in this object, at the line of the field.
    pub fn error(&self, field: impl Into<String>, reason: impl Into<String>) -> Problem {
        let field = field.into();
        // What is said about it needs no text.
        let mut origin = Self { document: None, ..self.clone() };
        if let (Some(first), Some(document)) = (self.line, &self.document)
            && !field.is_empty()
            && let Some(line) = line_of_field(document, &field)
        {
            origin.line = Some(first.saturating_add(line).saturating_sub(1));
        }
        Problem { severity: Severity::Error, origin, field, reason: reason.into(), kind: Kind::default() }
    }

    /// A warning about this object.
    pub fn warning(&self, field: impl Into<String>, reason: impl Into<String>) -> Problem {
        Problem { severity: Severity::Warning, ..self.error(field, reason) }
    }
}

impl Problem {
    /// The same, about this.
    #[must_use]
    pub fn of(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }
}

impl fmt::Display for Problem {
    /// `file:line: error: Kind namespace/name: field: reason`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin { file, line, kind, name, .. } = &self.origin;
        if let Some(file) = file {
            write!(f, "{}:", file.display())?;
            if let Some(line) = line {
                write!(f, "{line}:")?;
            }
            write!(f, " ")?;
        }
        match self.severity {
            Severity::Error => write!(f, "error: ")?,
            Severity::Warning => write!(f, "warning: ")?,
        }
        if !kind.is_empty() {
            write!(f, "{kind} {name}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}", self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_like_a_compiler_message() {
        let origin = Origin {
            file: Some("demo/routes.yaml".into()),
            line: Some(12),
            kind: "MetaRouter".into(),
            name: "default/echo".into(),
            ..Origin::default()
        };
        assert_eq!(
            origin.error("spec.hosts", "must name exactly one host").to_string(),
            "demo/routes.yaml:12: error: MetaRouter default/echo: spec.hosts: must name exactly one host"
        );
        assert_eq!(Origin::default().warning("", "odd").to_string(), "warning: odd");
    }

    #[test]
    fn points_at_the_field() {
        let document: Arc<str> = "kind: MetaRouter\nspec:\n  hosts: [a]\n".into();
        let origin = Origin { line: Some(10), document: Some(document), ..Origin::default() };
        assert_eq!(origin.error("spec.hosts[0]", "odd").origin.line, Some(12));
        assert_eq!(origin.error("spec.routes", "odd").origin.line, Some(11), "what is not there: where it would be");
        assert_eq!(origin.error("", "odd").origin.line, Some(10));
    }
}
