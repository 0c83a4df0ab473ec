//! Where log lines go.

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// A file, by the template of its path.
    File(Vec<Part>),
}

/// A piece of a path template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Text as it is.
    Text(String),
    /// `{worker_id}`
    WorkerId,
    /// `{cluster_name}`
    ClusterName,
}

impl Output {
    /// Reads `stderr`, `stdout` or the template of a path.
    ///
    /// # Errors
    ///
    /// When a brace is neither `{worker_id}` nor `{cluster_name}`.
    pub(crate) fn parse(template: &str) -> Result<Self, String> {
        match template {
            "stderr" => return Ok(Self::Stderr),
            "stdout" => return Ok(Self::Stdout),
            _ => {}
        }
        let mut parts = Vec::new();
        let mut rest = template;
        while let Some(open) = rest.find(['{', '}']) {
            let (text, brace) = rest.split_at(open);
            parts.push(Part::Text(text.to_owned()));
            let (part, after) = if let Some(after) = brace.strip_prefix("{worker_id}") {
                (Part::WorkerId, after)
            } else if let Some(after) = brace.strip_prefix("{cluster_name}") {
                (Part::ClusterName, after)
            } else {
                return Err(format!(
                    "the braces of \"{template}\" must be {{worker_id}} or {{cluster_name}}, such as \
                     /var/log/drakkar/{{worker_id}}.log"
                ));
            };
            parts.push(part);
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        Ok(Self::File(parts))
    }
}
