//! What the linked librdkafka was built with.

use rdkafka::ClientConfig;

/// The optional parts of librdkafka in this build.
///
/// Asked of the library itself and not of cargo features, since any crate of a program may have
/// enabled them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// TLS.
    pub tls: bool,
    /// SASL with SCRAM.
    pub scram: bool,
    /// SASL with tokens from an OpenID Connect endpoint.
    pub oidc: bool,
    /// SASL with Kerberos.
    pub gssapi: bool,
}

impl Capabilities {
    /// Asks the linked library.
    pub fn of_this_build() -> Self {
        let features = ClientConfig::new()
            .create_native_config()
            .and_then(|config| config.get("builtin.features"))
            .unwrap_or_default();
        Self::from_features(&features)
    }

    /// Reads the library's own list, such as `gzip,snappy,ssl,sasl_plain`.
    fn from_features(features: &str) -> Self {
        let has = |name| features.split(',').any(|feature| feature.trim() == name);
        Self {
            tls: has("ssl"),
            scram: has("sasl_scram"),
            oidc: has("oidc"),
            gssapi: has("sasl_gssapi"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read_by_whole_words() {
        let some = Capabilities::from_features("gzip, snappy,ssl,sasl_scram");
        assert_eq!(some, Capabilities { tls: true, scram: true, oidc: false, gssapi: false });
        let none = Capabilities::from_features("ssl_x,sasl,sasl_plain");
        assert_eq!(none, Capabilities { tls: false, scram: false, oidc: false, gssapi: false });
    }

    #[test]
    fn the_linked_library_has_what_the_features_of_this_crate_enable() {
        let capabilities = Capabilities::of_this_build();
        if cfg!(any(feature = "tls", feature = "tls-system", feature = "gssapi")) {
            assert!(capabilities.tls && capabilities.scram, "{capabilities:?}");
        }
        if cfg!(feature = "oidc") {
            assert!(capabilities.oidc, "{capabilities:?}");
        }
        if cfg!(feature = "gssapi") {
            assert!(capabilities.gssapi, "{capabilities:?}");
        }
    }
}
