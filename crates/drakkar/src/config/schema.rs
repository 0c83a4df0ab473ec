//! The composed shape of the whole configuration.
//!
//! Crates declare constant [`Field`]s; here they become one tree of [`Table`]s, in which a section
//! can hold the settings of several crates.

use drakkar_api::{Field, Kind, Section};

/// One level of the configuration.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// What the settings are about.
    pub(super) about: &'static str,
    /// The settings, in the order of the reference page.
    pub(super) settings: Vec<Setting>,
}

/// One entry of a [`Table`].
#[derive(Clone, Debug)]
pub(super) struct Setting {
    /// Its key.
    pub(super) name: &'static str,
    /// What it means; empty for a table, which says it itself.
    pub(super) about: &'static str,
    /// Its default as YAML text; `None` when it must be given. Tables need none.
    pub(super) default: Option<&'static str>,
    /// What values it takes.
    pub(super) shape: Shape,
}

/// What values a setting takes.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// One value of a kind without parts.
    Scalar(Kind),
    /// A value of the inner shape, or null.
    Optional(Box<Self>),
    /// A list of values of the inner shape.
    List(Box<Self>),
    /// A map from free names to values of the inner shape.
    Map(Box<Self>),
    /// Known keys.
    Table(Table),
}

impl Table {
    /// Starts a table without settings.
    pub(super) fn new(about: &'static str) -> Self {
        Self { about, settings: Vec::new() }
    }

    /// Adds the settings that one crate declares.
    pub(super) fn fields(mut self, fields: &[Field]) -> Self {
        self.settings.extend(fields.iter().map(Setting::from_field));
        self
    }

    /// Adds a nested table.
    pub(super) fn table(self, name: &'static str, table: Self) -> Self {
        self.entry(name, Shape::Table(table))
    }

    /// Adds a map from free names to tables, empty by default.
    pub(super) fn instances(self, name: &'static str, table: Self) -> Self {
        self.entry(name, Shape::Map(Box::new(Shape::Table(table))))
    }

    fn entry(mut self, name: &'static str, shape: Shape) -> Self {
        self.settings.push(Setting { name, about: "", default: Some("{}"), shape });
        self
    }

    /// Returns the setting of this name.
    pub(super) fn get(&self, name: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.name == name)
    }

    /// Returns the keys.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.settings.iter().map(|setting| setting.name)
    }
}

impl From<&Section> for Table {
    fn from(section: &Section) -> Self {
        Self::new(section.about).fields(section.fields)
    }
}

impl Setting {
    fn from_field(field: &Field) -> Self {
        let Field { name, kind, default, about } = *field;
        Self { name, about, default, shape: Shape::from(&kind) }
    }
}

impl Shape {
    /// Returns whether values of this shape must never be shown.
    pub(super) fn is_secret(&self) -> bool {
        match self {
            Self::Scalar(kind) => matches!(kind, Kind::Secret),
            Self::Optional(inner) | Self::List(inner) | Self::Map(inner) => inner.is_secret(),
            Self::Table(_) => false,
        }
    }

    /// Returns the table inside, for a table and for an optional one.
    pub(super) fn as_table(&self) -> Option<&Table> {
        match self {
            Self::Table(table) => Some(table),
            Self::Optional(inner) => inner.as_table(),
            _ => None,
        }
    }
}

impl From<&Kind> for Shape {
    fn from(kind: &Kind) -> Self {
        match kind {
            Kind::Optional(inner) => Self::Optional(Box::new(Self::from(*inner))),
            Kind::List(inner) => Self::List(Box::new(Self::from(*inner))),
            Kind::Map(inner) => Self::Map(Box::new(Self::from(*inner))),
            Kind::Section(section) => Self::Table(Table::from(*section)),
            scalar => Self::Scalar(*scalar),
        }
    }
}
